// Package trace is the W3C Trace Context (https://www.w3.org/TR/trace-context-2/) of requests: which trace one belongs to, and whether that
// is recorded. It is pure but for the random numbers of ids; what sends spans is package trace/otlp.
package trace

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
)

// Header is the name of the header that has the Context, and State that of what vendors of tracing say to each other beside it. Where
// Header does not say what it should, or comes twice, State means nothing either.
const (
	Header = "traceparent"
	State  = "tracestate"
)

// ID names a trace; zero: none.
type ID [16]byte

// SpanID names a span; zero: none.
type SpanID [8]byte

// String gives the form of headers and logs: 32 digits. Of none, it gives none.
func (id ID) String() string {
	if id == (ID{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// String gives the form of headers and logs: 16 digits. Of none, it gives none.
func (id SpanID) String() string {
	if id == (SpanID{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// Context is what a traceparent header says, or will say.
type Context struct {
	Trace   ID
	Span    SpanID
	Sampled bool
	Random  bool // Trace is random: who began it said so
}

// IsZero tells whether there is none.
func (c Context) IsZero() bool { return c == Context{} }

// Begin gives the context of a request's own span, that parent leads to. What the parent says of sampling holds: a trace of which some
// spans are missing misleads. Where there is no parent, a trace begins, and sample is the share of those that are recorded.
func Begin(parent Context, sample float64) Context {
	if !parent.IsZero() {
		return parent.Child()
	}
	c := New(false)
	c.Sampled = Sampled(c.Trace, sample)
	return c
}

// New begins a trace.
func New(sampled bool) Context {
	c := Context{Span: newSpan(), Sampled: sampled, Random: true}
	for c.Trace == (ID{}) {
		binary.BigEndian.PutUint64(c.Trace[:8], rand.Uint64())
		binary.BigEndian.PutUint64(c.Trace[8:], rand.Uint64())
	}
	return c
}

// Child gives the context of a span below.
func (c Context) Child() Context {
	c.Span = newSpan()
	return c
}

func newSpan() (id SpanID) {
	for id == (SpanID{}) {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// Sampled decides whether a trace is one of the share that is recorded. It decides by the id, as the TraceIdRatioBased of OpenTelemetry's
// SDKs does, so that everyone who is asked the same answers the same. A share that is no number is none.
func Sampled(id ID, share float64) bool {
	switch {
	case share >= 1:
		return true
	case !(share > 0):
		return false
	}
	return binary.BigEndian.Uint64(id[8:])>>1 < uint64(share*(1<<63))
}

// A header of version 00: 00-TRACE-SPAN-FLAGS.
const (
	traceAt = len("00-")
	spanAt  = traceAt + 2*len(ID{}) + len("-")
	flagsAt = spanAt + 2*len(SpanID{}) + len("-")
	length  = flagsAt + 2

	flagSampled = 1
	flagRandom  = 2
)

// Parse reads a traceparent header. ok is false where it does not say what it should; it counts as missing then. Of later versions, it
// reads what version 00 has, as the specification demands.
func Parse(header []byte) (c Context, ok bool) {
	if len(header) < length || header[traceAt-1] != '-' || header[spanAt-1] != '-' || header[flagsAt-1] != '-' {
		return Context{}, false
	}
	var version, flags [1]byte
	if !unhex(version[:], header[:2]) || version[0] == 0xff {
		return Context{}, false
	}
	if len(header) > length && (version[0] == 0 || header[length] != '-') {
		return Context{}, false
	}
	if !unhex(c.Trace[:], header[traceAt:]) || !unhex(c.Span[:], header[spanAt:]) || !unhex(flags[:], header[flagsAt:]) {
		return Context{}, false
	}
	if c.Trace == (ID{}) || c.Span == (SpanID{}) {
		return Context{}, false
	}
	// A later version may mean something else by the flags that version 00 has no name for. The two that it has stay.
	c.Sampled, c.Random = flags[0]&flagSampled != 0, flags[0]&flagRandom != 0
	return c, true
}

// unhex fills to from digits, of which capital ones are not allowed.
func unhex(to, digits []byte) bool {
	for i := range to {
		high, low := digit(digits[2*i]), digit(digits[2*i+1])
		if high > 15 || low > 15 {
			return false
		}
		to[i] = high<<4 | low
	}
	return true
}

func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// AppendHeader adds the value of a traceparent header to dst.
func (c Context) AppendHeader(dst []byte) []byte {
	var flags byte
	if c.Sampled {
		flags |= flagSampled
	}
	if c.Random {
		flags |= flagRandom
	}
	dst = append(dst, "00-"...)
	dst = hex.AppendEncode(dst, c.Trace[:])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, c.Span[:])
	return append(dst, '-', '0', '0'+flags)
}
