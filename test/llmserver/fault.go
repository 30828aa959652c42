package llmserver

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// FaultHeader is the request header that asks for a fault, in the text form of Fault. It goes before scripted faults,
// which it does not use up.
const FaultHeader = "X-Llmserver-Fault"

// Fault says how one answer differs from a good one. The zero Fault is a good answer.
//
// Its text form is a list of words separated by single spaces, such as `status=503 retry-after=1` or
// `first-token=500ms headers=early`. A flag is its bare name. `body=` comes last and takes the rest of the text.
type Fault struct {
	Status     int    // status=503: this status, with an error in OpenAI's shape
	RetryAfter string // retry-after=1: the header Retry-After
	Redirect   string // redirect=URL: 307 with this Location
	Body       string // body=…: this body instead, as application/json
	Huge       int64  // huge=BYTES: a JSON body of exactly this size
	Reflect    bool   // reflect: the lines of the request's head are told back, in headers and in the body, an error's or a stream's too

	Delay             time.Duration // delay=1s: before anything of the answer
	FirstToken        time.Duration // first-token=500ms: before the first byte of the body; headers wait as well
	HeadersEarly      bool          // headers=early: they do not wait for the first token
	KeepaliveComments bool          // keepalive-comments: three ": ping" comments before the first event, headers early
	Chunks            int           // chunks=N: the number of words of the answer
	ChunkDelay        time.Duration // chunk-delay=20ms: between two events of a stream
	Split             bool          // split: each event in two chunks, written 1 ms apart
	Chunked           bool          // chunked: a JSON answer in several chunks instead of with a Content-Length

	Usage     UsageShape // usage=own|last|running|none: where a stream says what it cost
	Cached    int        // cached=N: how many of the input's tokens were known already, at most all
	Reasoning int        // reasoning=N: so many tokens of output that nobody sees, beside the words
	// refuse-stream-options=422: this status to a body with stream_options, as some providers answer to what they do not know
	RefuseStreamOptions int

	// An event, or sixteen bytes of a body that is no stream, is a piece. After so many of them comes silence until the
	// client leaves (stall-after=N), or the end of the TCP connection without the end of the answer (cut-after=N). Past
	// the last piece only the ending chunk is missing.
	StallAfter *int
	CutAfter   *int
	MidEvent   bool // mid-event: with cut-after, half of one more piece is sent

	HoldUntil string // hold-until=WORD: after three events, the others wait for a request with that word in its body

	ErrorAfter *int // error-after=N: after so many events of a stream, one tells of an error, and the stream ends in order

	Reset      bool // reset: the connection is reset before any byte
	Close      bool // close: the connection is closed in order before any byte
	Garbage    bool // garbage: something that is not HTTP
	EarlyClose bool // early-close: the connection is closed after the answer, which did not say so

	Times int // times=N: for how many requests, -1 for all to come; 0 means 1. Only for Script.
}

// word ties a word of the text form to its field.
type word struct {
	name  string
	field any // *int, **int, *int64, *string, *bool, *UsageShape or *time.Duration
}

func (f *Fault) words() []word {
	return []word{
		{"status", &f.Status}, {"retry-after", &f.RetryAfter}, {"redirect", &f.Redirect}, {"huge", &f.Huge}, {"reflect", &f.Reflect},
		{"delay", &f.Delay}, {"first-token", &f.FirstToken}, {"headers=early", &f.HeadersEarly},
		{"keepalive-comments", &f.KeepaliveComments}, {"chunks", &f.Chunks}, {"chunk-delay", &f.ChunkDelay},
		{"split", &f.Split}, {"chunked", &f.Chunked}, {"stall-after", &f.StallAfter}, {"cut-after", &f.CutAfter},
		{"mid-event", &f.MidEvent}, {"hold-until", &f.HoldUntil}, {"error-after", &f.ErrorAfter}, {"reset", &f.Reset}, {"close", &f.Close}, {"garbage", &f.Garbage},
		{"early-close", &f.EarlyClose}, {"usage", &f.Usage}, {"cached", &f.Cached}, {"reasoning", &f.Reasoning},
		{"refuse-stream-options", &f.RefuseStreamOptions}, {"times", &f.Times}, {"body", &f.Body},
	}
}

// ParseFault reads the text form. Its error names the word that is wrong.
func ParseFault(text string) (Fault, error) {
	var f Fault
	words := f.words()
	for text != "" {
		var one string
		if strings.HasPrefix(text, "body=") {
			one, text = text, ""
		} else {
			one, text, _ = strings.Cut(text, " ")
		}
		if err := set(words, strings.TrimSuffix(one, "=true")); err != nil {
			return Fault{}, fmt.Errorf("fault %q: %w", one, err)
		}
	}
	return f, nil
}

func set(words []word, one string) error {
	name, value, hasValue := strings.Cut(one, "=")
	for _, w := range words {
		if flag, ok := w.field.(*bool); ok {
			if w.name == one {
				*flag = true
				return nil
			}
			continue
		}
		if w.name != name {
			continue
		}
		if !hasValue {
			return errors.New("a value is missing")
		}
		return assign(w.field, value)
	}
	return errors.New("there is no such word")
}

func assign(field any, value string) (err error) {
	switch field := field.(type) {
	case *int:
		*field, err = strconv.Atoi(value)
	case **int:
		var n int
		n, err = strconv.Atoi(value)
		*field = &n
	case *int64:
		*field, err = strconv.ParseInt(value, 10, 64)
	case *string:
		*field = value
	case *UsageShape:
		*field, err = parseUsageShape(value)
	case *time.Duration:
		*field, err = time.ParseDuration(value)
	}
	return err
}

// String is the text form.
func (f Fault) String() string {
	var words []string
	for _, w := range f.words() {
		var value string
		switch field := w.field.(type) {
		case *bool:
			if *field {
				words = append(words, w.name)
			}
			continue
		case *int:
			if *field == 0 {
				continue
			}
			value = strconv.Itoa(*field)
		case **int:
			if *field == nil {
				continue
			}
			value = strconv.Itoa(**field)
		case *int64:
			if *field == 0 {
				continue
			}
			value = strconv.FormatInt(*field, 10)
		case *string:
			if *field == "" {
				continue
			}
			value = *field
		case *UsageShape:
			if value = string(*field); value == "" {
				continue
			}
		case *time.Duration:
			if *field == 0 {
				continue
			}
			value = field.String()
		}
		words = append(words, w.name+"="+value)
	}
	return strings.Join(words, " ")
}

// scripts are the faults that wait for their requests, by host name; "" is for any host.
type scripts struct {
	mu      sync.Mutex
	waiting map[string][]Fault
}

// Script puts faults in line for the coming requests to a host, or with the empty name to any host that has none of its
// own left. Each request takes one.
func (s *Server) Script(host string, faults ...Fault) {
	s.scripts.mu.Lock()
	defer s.scripts.mu.Unlock()
	if s.scripts.waiting == nil {
		s.scripts.waiting = map[string][]Fault{}
	}
	host = hostname(host)
	for _, f := range faults {
		if f.Times == 0 {
			f.Times = 1
		}
		s.scripts.waiting[host] = append(s.scripts.waiting[host], f)
	}
}

// Unscript forgets all faults that still wait.
func (s *Server) Unscript() {
	s.scripts.mu.Lock()
	defer s.scripts.mu.Unlock()
	s.scripts.waiting = nil
}

// next takes the fault of a request, or the zero Fault.
func (s *scripts) next(host string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range []string{hostname(host), ""} {
		line := s.waiting[h]
		if len(line) == 0 {
			continue
		}
		f := line[0]
		if f.Times > 0 {
			if line[0].Times--; line[0].Times == 0 {
				s.waiting[h] = line[1:]
			}
		}
		return f
	}
	return Fault{}
}
