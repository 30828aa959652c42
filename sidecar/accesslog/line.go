package accesslog

import (
	"bytes"
	"encoding/hex"
	"math"
	"strconv"
	"time"

	"go.uber.org/zap"
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
	out      []byte           // the line
	escaper  zapcore.Encoder  // of values that cannot be written as they are
	field    [1]zapcore.Field // what it is handed
	joined   []byte           // a value that is put together
	room     []byte           // a value that is cleaned
	people   []byte
	texts    texts
}

// fields adds them. What is not known, and what did not happen, is left out. Most values are clean and most keys are constants: written as they
// are, a line takes a third of the time that an encoder needs to look at each byte of them.
func (e *line) fields() {
	r, u := e.record, &e.record.Usage
	// What ASM has, by the names that it has there.
	e.said("request_model", r.RequestModel)
	if u.Reported {
		e.integer("request_prompt_tokens", u.Input)
		e.integer("request_completion_tokens", u.Output)
	}
	e.identity()

	e.said("host", r.Host)
	e.rule()
	e.ref("provider", r.Provider)
	e.name("server", r.Server)
	e.name("key", r.Key)
	e.name("operation", r.Operation)
	e.said("asked_model", r.AskedModel)
	e.said("response_model", r.ResponseModel)

	e.number("status", int64(r.Status))
	e.name("code", string(r.Code))
	e.number("retries", int64(r.Retries))
	e.number("fallbacks", int64(r.Fallbacks))
	e.name("cut_by", string(r.Cut))

	e.milliseconds("total_ms", r.Total)
	e.duration("first_token_ms", r.FirstToken)
	e.duration("upstream_ms", r.Upstream)
	e.milliseconds("added_ms", r.Added)
	e.number("request_bytes", r.RequestBytes)
	e.number("response_bytes", r.ResponseBytes)
	e.truth("stream", r.Stream)
	e.truth("shadow", r.Shadow)

	e.number("cached_tokens", u.Cached)
	e.number("reasoning_tokens", u.Reasoned)
	e.number("estimated_prompt_tokens", u.EstimatedInput)
	e.number("estimated_completion_tokens", u.EstimatedOutput)
	e.cost()
	e.trace()
	e.name("client", r.Client)
	e.capture()
}

func (e *line) identity() {
	e.name("pod", e.of.Pod)
	e.name("namespace", e.of.Namespace)
	e.name("service_account", e.of.ServiceAccount)
	e.name("workload", e.of.Workload)
}

func (e *line) rule() {
	e.joined = e.appendRule(e.joined[:0])
	e.join("rule")
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

func (e *line) ref(key string, r routing.Ref) {
	if r != (routing.Ref{}) {
		e.joined = appendRef(e.joined[:0], r)
		e.join(key)
	}
}

// join adds what has been put together.
func (e *line) join(key string) {
	switch {
	case len(e.joined) == 0:
	case isClean(e.joined):
		e.plain(key, e.joined)
	default:
		e.name(key, string(e.joined))
	}
}

// name adds what is of the configuration, or one of a few words.
func (e *line) name(key, value string) {
	switch {
	case value == "":
	case isClean(value):
		e.key(key)
		e.out = append(append(append(e.out, '"'), value...), '"')
	default:
		e.room = clean(e.room[:0], value)
		e.escaped(key, e.room)
	}
}

// said adds what an app or a provider may have said. Some put a key where a name belongs.
func (e *line) said(key, value string) {
	if keyIn(value) < 0 {
		e.name(key, value)
		return
	}
	e.room = withoutKey(clean(e.room[:0], value))
	e.escaped(key, e.room)
}

func (e *line) key(key string) {
	e.out = append(append(append(e.out, `,"`...), key...), `":`...)
}

// plain adds what has nothing to be escaped.
func (e *line) plain(key string, value []byte) {
	e.key(key)
	e.out = append(append(append(e.out, '"'), value...), '"')
}

// escaped adds any text.
func (e *line) escaped(key string, value []byte) {
	e.field[0] = zap.ByteString(key, value)
	if b, err := e.escaper.EncodeEntry(zapcore.Entry{}, e.field[:]); err == nil { // an object of that one field
		e.out = append(append(e.out, ','), b.Bytes()[1:b.Len()-1]...)
		b.Free()
	}
	e.field[0] = zapcore.Field{}
}

func (e *line) integer(key string, n int64) {
	e.key(key)
	e.out = strconv.AppendInt(e.out, n, 10)
}

func (e *line) number(key string, n int64) {
	if n != 0 {
		e.integer(key, n)
	}
}

func (e *line) duration(key string, d time.Duration) {
	if d != 0 {
		e.milliseconds(key, d)
	}
}

func (e *line) truth(key string, is bool) {
	if is {
		e.key(key)
		e.out = append(e.out, "true"...)
	}
}

// milliseconds has at most three places after the point.
func (e *line) milliseconds(key string, d time.Duration) {
	e.key(key)
	e.out = appendMilliseconds(e.out, d)
}

func appendMilliseconds(b []byte, d time.Duration) []byte {
	us := d.Microseconds()
	if us < 0 {
		b, us = append(b, '-'), -us
	}
	b = strconv.AppendInt(b, us/1000, 10)
	if us %= 1000; us == 0 {
		return b
	}
	b = append(b, '.', byte('0'+us/100), byte('0'+us/10%10), byte('0'+us%10))
	return bytes.TrimRight(b, "0") // there is another figure, and a point before it
}

func (e *line) cost() {
	if cost, ok := costOf(e.record); ok {
		e.key("cost")
		e.out = strconv.AppendFloat(e.out, cost, 'f', -1, 64)
		e.name("currency", currencyOf(e.settings))
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

func (e *line) trace() {
	t := &e.record.Trace
	if t.IsZero() {
		return
	}
	e.room = hex.AppendEncode(e.room[:0], t.Trace[:])
	e.plain("trace_id", e.room)
	e.room = hex.AppendEncode(e.room[:0], t.Span[:])
	e.plain("span_id", e.room)
}
