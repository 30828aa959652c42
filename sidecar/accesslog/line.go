package accesslog

import (
	"encoding/hex"
	"math"
	"time"

	"go.uber.org/zap/zapcore"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
)

// line is one that is being written. It is reused, so that a line costs no memory.
type line struct {
	record   *record.Record
	settings *telemetry.Settings
	of       *launch.Identity
	self     [1]zapcore.Field // what hands the line to the encoder
	joined   []byte           // a value that is put together
	room     []byte           // a value that is cleaned
	people   []byte
	texts    texts
}

// MarshalLogObject adds the fields. What is not known, and what did not happen, is left out.
func (e *line) MarshalLogObject(to zapcore.ObjectEncoder) error {
	r, u := e.record, &e.record.Usage
	// What ASM has, by the names that it has there.
	e.said(to, "request_model", r.RequestModel)
	if u.Reported {
		to.AddInt64("request_prompt_tokens", u.Input)
		to.AddInt64("request_completion_tokens", u.Output)
	}
	e.identity(to)

	e.said(to, "host", r.Host)
	e.rule(to)
	e.ref(to, "provider", r.Provider)
	e.name(to, "server", r.Server)
	e.name(to, "key", r.Key)
	e.name(to, "operation", r.Operation)
	e.said(to, "asked_model", r.AskedModel)
	e.said(to, "response_model", r.ResponseModel)

	number(to, "status", int64(r.Status))
	e.name(to, "code", string(r.Code))
	number(to, "retries", int64(r.Retries))
	number(to, "fallbacks", int64(r.Fallbacks))
	e.name(to, "cut_by", string(r.Cut))

	to.AddFloat64("total_ms", milliseconds(r.Total))
	duration(to, "first_token_ms", r.FirstToken)
	duration(to, "upstream_ms", r.Upstream)
	to.AddFloat64("added_ms", milliseconds(r.Added))
	number(to, "request_bytes", r.RequestBytes)
	number(to, "response_bytes", r.ResponseBytes)
	truth(to, "stream", r.Stream)
	truth(to, "shadow", r.Shadow)

	number(to, "cached_tokens", u.Cached)
	number(to, "reasoning_tokens", u.Reasoned)
	number(to, "estimated_prompt_tokens", u.EstimatedInput)
	number(to, "estimated_completion_tokens", u.EstimatedOutput)
	e.cost(to)
	e.trace(to)
	e.name(to, "client", r.Client)
	e.capture(to)
	return nil
}

func (e *line) identity(to zapcore.ObjectEncoder) {
	for _, f := range [...]struct{ key, value string }{
		{"pod", e.of.Pod}, {"namespace", e.of.Namespace}, {"service_account", e.of.ServiceAccount}, {"workload", e.of.Workload},
	} {
		if f.value != "" {
			to.AddString(f.key, f.value)
		}
	}
}

func (e *line) rule(to zapcore.ObjectEncoder) {
	e.joined = e.appendRule(e.joined[:0])
	e.join(to, "rule")
}

// appendRule gives NAMESPACE/NAME of the owner and the rule in it: demo/chat#2, or demo/chat/subscribers.
func (e *line) appendRule(b []byte) []byte {
	r := e.record
	if r.RuleOwner == (routing.Ref{}) {
		return b
	}
	b = appendRef(b, r.RuleOwner)
	if r.Rule != "" && r.Rule[0] != '#' {
		b = append(b, '/')
	}
	return append(b, r.Rule...)
}

func appendRef(b []byte, r routing.Ref) []byte {
	b = append(b, r.Namespace...)
	b = append(b, '/')
	return append(b, r.Name...)
}

func (e *line) ref(to zapcore.ObjectEncoder, key string, r routing.Ref) {
	if r != (routing.Ref{}) {
		e.joined = appendRef(e.joined[:0], r)
		e.join(to, key)
	}
}

// join adds what has been put together.
func (e *line) join(to zapcore.ObjectEncoder, key string) {
	switch {
	case len(e.joined) == 0:
	case isClean(e.joined):
		to.AddByteString(key, e.joined)
	default:
		e.name(to, key, string(e.joined))
	}
}

// name adds what is of the configuration, or one of a few words.
func (e *line) name(to zapcore.ObjectEncoder, key, value string) {
	switch {
	case value == "":
	case isClean(value):
		to.AddString(key, value)
	default:
		e.room = clean(e.room[:0], value)
		to.AddByteString(key, e.room)
	}
}

// said adds what an app or a provider may have said. Some put a key where a name belongs.
func (e *line) said(to zapcore.ObjectEncoder, key, value string) {
	if value == "" {
		return
	}
	if isClean(value) && keyIn(value) < 0 {
		to.AddString(key, value)
		return
	}
	e.room = withoutKey(clean(e.room[:0], value))
	to.AddByteString(key, e.room)
}

func number(to zapcore.ObjectEncoder, key string, n int64) {
	if n != 0 {
		to.AddInt64(key, n)
	}
}

func duration(to zapcore.ObjectEncoder, key string, d time.Duration) {
	if d != 0 {
		to.AddFloat64(key, milliseconds(d))
	}
}

func truth(to zapcore.ObjectEncoder, key string, is bool) {
	if is {
		to.AddBool(key, true)
	}
}

// milliseconds has three places after the point.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (e *line) cost(to zapcore.ObjectEncoder) {
	if cost, ok := costOf(e.record); ok {
		to.AddFloat64("cost", cost)
		e.name(to, "currency", currencyOf(e.settings))
	}
}

// costOf rounds what is beyond any price, so that a sum of binary fractions reads well. A cost that is no number of JSON is none.
func costOf(r *record.Record) (float64, bool) {
	const most, places = 1e15, 1e12
	if !r.Priced || math.IsNaN(r.Cost) || math.Abs(r.Cost) > most {
		return 0, false
	}
	if math.Abs(r.Cost) < 1e3 {
		return math.Round(r.Cost*places) / places, true
	}
	return r.Cost, true
}

func currencyOf(s *telemetry.Settings) string {
	if s.Prices.Currency == "" {
		return telemetry.DefaultCurrency
	}
	return s.Prices.Currency
}

func (e *line) trace(to zapcore.ObjectEncoder) {
	t := &e.record.Trace
	if t.IsZero() {
		return
	}
	e.room = hex.AppendEncode(e.room[:0], t.Trace[:])
	to.AddByteString("trace_id", e.room)
	e.room = hex.AppendEncode(e.room[:0], t.Span[:])
	to.AddByteString("span_id", e.room)
}
