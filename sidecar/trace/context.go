// Package trace is the W3C Trace Context (https://www.w3.org/TR/trace-context/) of requests: which trace one belongs to, and whether that
// is recorded. It is pure but for the random numbers of ids; what sends spans is package trace/otlp.
package trace

// ID names a trace; zero: none.
type ID [16]byte

// SpanID names a span; zero: none.
type SpanID [8]byte

// Context is what a traceparent header says, or will say.
type Context struct {
	Trace   ID
	Span    SpanID
	Sampled bool
}

// IsZero tells whether there is none.
func (c Context) IsZero() bool { return c == Context{} }
