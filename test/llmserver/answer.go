package llmserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strings"
	"sync"
)

const (
	eventStream = "text/event-stream; charset=utf-8"

	// created is in every answer where a real provider puts the time: answers to equal requests are equal.
	created = 1_700_000_000
)

// answer is what to say, before any fault: a whole body, or the events of a stream, each with its empty line.
type answer struct {
	status      int
	contentType string
	header      []string // further lines "Name: value"
	body        []byte
	events      [][]byte
	bill        bill
}

// question is what an answer is made of.
type question struct {
	*Request
	shape
	host   string // in the form of hostname
	fields map[string]json.RawMessage
}

// decide makes the answer to a request that no fault concerns.
func (s *Server) decide(request *Request, shape shape) answer {
	host := hostname(request.Host)
	if !s.is(host) {
		return failure(http.StatusMisdirectedRequest, fmt.Sprintf("This server is not %s.", request.Host), "unknown_host")
	}
	if refused := s.demands[host].check(request); refused != nil {
		return *refused
	}
	if s.options.Revoked != nil && s.options.Revoked(request.Header) {
		return failure(http.StatusUnauthorized, "Incorrect API key provided.", "invalid_api_key")
	}
	if realtime(request) {
		return upgrade(request)
	}
	if !s.options.Quiet || request.Upload != nil || len(request.Body) > cachedBody {
		return decide(&question{Request: request, host: host, shape: shape})
	}
	return s.cache.get(&question{Request: request, host: host, shape: shape})
}

func decide(q *question) answer {
	if q.Method == http.MethodGet {
		if strings.HasSuffix(q.Path, "/models") {
			return models()
		}
		if _, id, ok := strings.Cut(q.Path, "/models/"); ok && id != "" {
			return jsonAnswer(model{ID: id, Object: "model", Created: created, OwnedBy: "llmserver"})
		}
	}
	for _, o := range operations {
		if q.Method == http.MethodPost && strings.HasSuffix(q.Path, o.suffix) {
			return o.answer(q)
		}
	}
	return failure(http.StatusNotFound, fmt.Sprintf("Unknown request URL: %s %s.", q.Method, q.Path), "unknown_url")
}

// operation is something that is asked for by POST to any path with this end.
type operation struct {
	suffix string
	answer func(*question) answer
}

var operations = []operation{
	{"/chat/completions", withJSON(chat, "messages", "model")},
	{"/completions", withJSON(completion, "model", "prompt")},
	{"/responses", withJSON(response, "model", "input")},
	{"/embeddings", withJSON(embeddings, "model", "input")},
	{"/moderations", withJSON(moderation, "input")},
	{"/rerank", withJSON(rerank, "model", "query", "documents")},
	{"/images/generations", withJSON(image, "prompt")},
	{"/audio/speech", withJSON(speech, "model", "input", "voice")},
	{"/audio/transcriptions", withForm(heard, "file", "model")},
	{"/audio/translations", withForm(heard, "file", "model")},
	{"/images/edits", withForm(edited, "image", "model", "prompt")},
	{"/images/variations", withForm(edited, "image", "model")},
}

// withJSON checks that the body is a JSON object with the fields that the operation cannot do without.
func withJSON(f func(*question) answer, required ...string) func(*question) answer {
	return func(q *question) answer {
		kind, _, _ := strings.Cut(q.Header.Get("Content-Type"), ";")
		if kind = strings.TrimSpace(kind); kind != "" && !strings.EqualFold(kind, "application/json") {
			return failure(http.StatusBadRequest, fmt.Sprintf("The Content-Type is %s; send application/json.", kind), "bad_content_type")
		}
		var err error
		if q.fields, err = object(q.Body); err != nil {
			return failure(http.StatusBadRequest, "We could not parse the JSON body of your request: "+err.Error(), "bad_json")
		}
		for _, name := range required {
			if v := string(q.fields[name]); v == "" || v == "null" || v == `""` || v == "[]" {
				return failure(http.StatusBadRequest, "you must provide a "+name+" parameter", "missing_"+name)
			}
		}
		return f(q)
	}
}

// object reads one JSON object. Unlike encoding/json it tells `Model` from `model`, and refuses a name that comes twice:
// a proxy that edits bodies could produce either.
func object(body []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is not an object")
	}
	fields := map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		if _, twice := fields[name.(string)]; twice {
			return nil, fmt.Errorf("%q comes twice", name)
		}
		fields[name.(string)] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	return fields, nil
}

// field reads one field into v, which stays as it is where there is no such field.
func (q *question) field(name string, v any) *answer {
	raw, ok := q.fields[name]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		a := failure(http.StatusBadRequest, fmt.Sprintf("Invalid type for '%s': %v", name, err), "invalid_type")
		return &a
	}
	return nil
}

// read reads several fields.
func (q *question) read(fields map[string]any) *answer {
	for name, v := range fields {
		if refused := q.field(name, v); refused != nil {
			return refused
		}
	}
	return nil
}

// id is the same for the same text.
func id(prefix string, text ...string) string {
	h := fnv.New64a()
	for _, t := range text {
		_, _ = io.WriteString(h, t+"\x00")
	}
	return fmt.Sprintf("%s%016x", prefix, h.Sum64())
}

type apiError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

// failure is an error in OpenAI's shape.
func failure(status int, message, code string) answer {
	kind := "invalid_request_error"
	switch {
	case status == http.StatusTooManyRequests:
		kind = "requests"
	case status >= 500:
		kind = "server_error"
	}
	a := jsonAnswer(map[string]apiError{"error": {Message: message, Type: kind, Code: code}})
	a.status = status
	return a
}

// statusFailure is what a provider says with a status for which there is no other reason.
func statusFailure(status int) answer {
	code := strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "_")
	if status == http.StatusTooManyRequests {
		code = "rate_limit_exceeded"
	}
	return failure(status, fmt.Sprintf("This is status %d, as asked for.", status), code)
}

func jsonAnswer(v any) answer {
	return answer{status: http.StatusOK, contentType: "application/json", body: encode(v)}
}

// cache remembers answers in quiet mode, because the provider should not cost more than the proxy that is measured.
type cache struct {
	mu      sync.RWMutex
	answers map[string]answer
}

const (
	cached     = 1000      // answers; then all are forgotten
	cachedBody = 128 << 10 // bytes of a request; what is larger is too large for a key
)

func (c *cache) get(q *question) answer {
	key := fmt.Appendf(nil, "%s %s %s %v %s\n", q.Method, q.host, q.Path, q.shape, q.Header.Get("Content-Type"))
	key = append(key, q.Body...)
	c.mu.RLock()
	a, ok := c.answers[string(key)]
	c.mu.RUnlock()
	if ok {
		return a
	}
	a = decide(q)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers == nil || len(c.answers) >= cached {
		c.answers = map[string]answer{}
	}
	c.answers[string(key)] = a
	return a
}
