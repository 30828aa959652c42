package otlp

import (
	"cmp"
	"net"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/sidecar/trace"
)

// Flags of spans beyond those of W3C: whether it is known if the parent is of another process, and whether it is.
const (
	flagKnown  = 0x100
	flagRemote = 0x200
)

// encoder makes the spans of one request. It is reused.
type encoder struct {
	spans []byte // fields of ScopeSpans
	count int
	one   []byte // the span that is being made
}

// encode makes the span of a request and one for each attempt.
func (e *encoder) encode(r *record.Record, s *telemetry.Settings) {
	e.spans, e.count = e.spans[:0], 0
	e.request(r, s)
	for i := range r.Attempts {
		e.attempt(r, i)
	}
}

// begin writes what all spans have.
func (e *encoder) begin(c trace.Context, id, parent trace.SpanID, kind uint64, start time.Time, took time.Duration) {
	dst := appendBytes(e.one[:0], spanTraceID, c.Trace[:])
	dst = appendBytes(dst, spanID, id[:])
	if parent != (trace.SpanID{}) {
		dst = appendBytes(dst, spanParentID, parent[:])
	}
	flags := uint32(1 | flagKnown)
	if c.Random {
		flags |= 2
	}
	if kind == kindServer && parent != (trace.SpanID{}) {
		flags |= flagRemote
	}
	dst = protowire.AppendFixed32(protowire.AppendTag(dst, spanFlags, protowire.Fixed32Type), flags)
	dst = appendVarint(dst, spanKind, kind)
	dst = appendTime(dst, spanStart, start)
	e.one = appendTime(dst, spanEnd, start.Add(max(took, 0)))
}

// name writes it as the semantic conventions of GenAI have it.
func (e *encoder) name(operation, model string) {
	name := text(cmp.Or(operation, "other"))
	if model != "" {
		name += " " + text(model)
	}
	e.one = appendString(e.one, spanName, name)
}

// failed marks a span as an error.
func (e *encoder) failed(what string) {
	status := appendString(nil, statusMessage, what)
	e.one = appendBytes(e.one, spanStatus, appendVarint(status, statusCode, statusError))
}

func (e *encoder) end() {
	e.spans = appendBytes(e.spans, scopeSpansSpans, e.one)
	e.count++
}

func (e *encoder) request(r *record.Record, s *telemetry.Settings) {
	e.begin(r.Trace, r.Trace.Span, r.Parent, kindServer, r.Start, r.Total)
	e.name(r.Operation, r.RequestModel)
	a := attributes{dst: e.one, field: spanAttributes}
	a.text("gen_ai.operation.name", r.Operation)
	a.text("gen_ai.provider.name", system(r, r.Provider))
	a.text("gen_ai.request.model", r.RequestModel)
	a.text("gen_ai.response.model", r.ResponseModel)
	a.yes("gen_ai.request.stream", func() bool { return r.Stream })
	a.seconds("gen_ai.response.time_to_first_chunk", r.FirstToken)
	if u := &r.Usage; u.Reported {
		a.count("gen_ai.usage.input_tokens", u.Input)
		a.count("gen_ai.usage.output_tokens", u.Output)
		a.number("gen_ai.usage.cache_read.input_tokens", u.Cached)
		a.number("gen_ai.usage.reasoning.output_tokens", u.Reasoned)
	}
	a.number("remora.usage.estimated_input_tokens", r.Usage.EstimatedInput)
	a.number("remora.usage.estimated_output_tokens", r.Usage.EstimatedOutput)
	a.text("http.request.method", r.Method)
	a.text("url.path", r.Path)
	a.text("server.address", r.Host)
	a.text("client.address", r.Client)
	a.number("http.response.status_code", int64(r.Status))
	a.count("http.request.body.size", r.RequestBytes)
	a.count("http.response.body.size", r.ResponseBytes)

	a.text("remora.rule", rule(r))
	a.text("remora.provider", path(r.Provider))
	a.text("remora.endpoint", r.Endpoint)
	a.text("remora.key", r.Key)
	if r.AskedModel != r.RequestModel {
		a.text("remora.asked_model", r.AskedModel)
	}
	a.number("remora.retries", int64(r.Retries))
	a.number("remora.fallbacks", int64(r.Fallbacks))
	a.yes("remora.retry_withheld", func() bool { return r.Withheld })
	a.text("remora.cut_by", string(r.Cut))
	a.seconds("remora.upstream_seconds", r.Upstream)
	a.seconds("remora.added_seconds", r.Added)
	if r.Priced {
		a.double("remora.cost", r.Cost)
		a.text("remora.currency", cmp.Or(s.Prices.Currency, telemetry.DefaultCurrency))
	}
	a.yes("remora.shadow", func() bool { return r.Shadow })
	fault := errorType(r.Code, r.Status)
	a.text("error.type", fault)
	e.one = a.dst
	if fault != "" {
		e.failed(fault)
	}
	e.end()
}

func (e *encoder) attempt(r *record.Record, i int) {
	t := &r.Attempts[i]
	if t.Span == (trace.SpanID{}) {
		return // nobody was told of it
	}
	e.begin(r.Trace, t.Span, r.Trace.Span, kindClient, t.Start, t.Duration)
	e.name(r.Operation, t.Model)
	a := attributes{dst: e.one, field: spanAttributes}
	a.text("gen_ai.operation.name", r.Operation)
	a.text("gen_ai.provider.name", system(r, t.Provider))
	a.text("gen_ai.request.model", t.Model)
	a.text("http.request.method", r.Method)
	a.number("http.request.resend_count", int64(i))
	a.number("http.response.status_code", int64(t.Status))
	if t.Provider == r.Provider {
		a.address("server.address", "server.port", r.Endpoint)
	}
	a.address("network.peer.address", "network.peer.port", t.Server)
	a.text("remora.provider", path(t.Provider))
	a.text("remora.key", t.Key)
	a.seconds("remora.first_byte_seconds", t.FirstByte)
	a.yes("remora.connection_reused", func() bool { return t.Reused })
	fault := errorType(t.Code, t.Status)
	a.text("error.type", fault)
	e.one = a.dst
	if fault != "" {
		e.failed(fault)
	}
	e.end()
}

// address adds the two parts of HOST:PORT.
func (a *attributes) address(hostKey, portKey, address string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	a.text(hostKey, host)
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		a.number(portKey, int64(n))
	}
}

// system names who a provider is, as the conventions have it: openai, for example. Where they have no name for it, the provider's is it.
func system(r *record.Record, provider routing.Ref) string {
	if provider == r.Provider {
		return cmp.Or(metrics.SystemOf(r.Endpoint), provider.Name)
	}
	return provider.Name
}

func path(of routing.Ref) string {
	if of == (routing.Ref{}) {
		return ""
	}
	return of.Path()
}

// rule names it as the access log and the metrics do.
func rule(r *record.Record) string { return record.RuleText(r.RuleOwner, r.Rule) }

// errorType is a code, or the status of a provider's own error, as in the metrics.
func errorType(code routing.Code, status int) string {
	if status >= 400 && (code == "" || code == routing.UpstreamRefusal) {
		return strconv.Itoa(status)
	}
	return string(code)
}
