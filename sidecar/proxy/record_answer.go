package proxy

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
	"remora.dev/remora/sidecar/trace"
	"remora.dev/remora/sidecar/usage"
)

// asked notes what the app asks for. body is what has been taken in of the request's.
func (r *recording) asked(c *call, model []byte) {
	if r == nil {
		return
	}
	r.AskedModel = r.text(&r.last.asked, model, usage.MaxModel)
	if c.operation != nil && c.operation.JSON {
		r.capture(c.proxy, c.body, c.rest != nil)
	}
}

// counted notes what a meter has found in the answer, which may say the key for a model.
func (r *recording) counted(of record.Usage, m *usage.Meter, secret *mask) {
	if r == nil {
		return
	}
	r.Usage = of
	var all [usage.MaxModel]byte
	model := append(all[:0], m.Model()...)
	secret.over(model)
	model = model[:len(model)-secret.open(model)]
	if bytes.IndexByte(model, '\\') < 0 {
		r.ResponseModel = r.text(&r.last.answered, model, usage.MaxModel)
		return
	}
	var plain string
	if json.Unmarshal(append(append([]byte{'"'}, model...), '"'), &plain) == nil { // else it is cut off in an escape
		model = []byte(plain)
		secret.over(model) // the key may have been written with escapes
		r.ResponseModel = string(model[:len(model)-secret.open(model)])
	}
}

// passing notes, before a piece of the answer goes to the app, what it took to have it.
func (s *stream) passing(piece []byte) {
	r := s.rec
	if r == nil {
		return
	}
	if s.waited {
		r.awaited()
	} else {
		r.own()
	}
	s.waited = false
	r.ResponseBytes += int64(len(piece))
	r.answered(piece)
}

// passedOn notes that what has come went to the app, at the time that has been accounted for.
func (s *stream) passedOn(n int) {
	r := s.rec
	if r == nil {
		return
	}
	if r.Chunks = s.meter.Count(); r.FirstToken == 0 && s.begun && n > 0 && s.status < fasthttp.StatusBadRequest {
		r.FirstToken = r.upTo
	}
}

// over ends the record of an answer that becomes complete with its last n bytes.
func (s *stream) over(n int) {
	if r := s.rec; r != nil {
		s.passedOn(n)
		s.sealed(r)
	}
}

// cutOff ends the record of an answer that does not become complete. The app is told so in n bytes.
func (s *stream) cutOff(f *failure, n int) {
	if r := s.rec; r != nil {
		r.awaited()
		r.ResponseBytes += int64(n)
		r.cut(f.code, s.client)
		s.sealed(r)
	}
}

// abandoned ends the record of an answer that the app did not take.
func (s *stream) abandoned() {
	if r := s.rec; r != nil {
		r.idle()
		r.cut(routing.ClientGone, s.client)
		s.sealed(r)
	}
}

func (s *stream) sealed(r *recording) {
	if u := s.upload; u != nil {
		r.RequestBytes += u.got.Load()
	}
	s.rec = nil
	r.end()
}

// follow takes over the app's trace, or begins one. Where there is nobody to tell of it, it is the app's own business.
func (r *recording) follow(h *fasthttp.RequestHeader) {
	t := &r.settings.Traces
	if t.Endpoint == "" {
		return
	}
	var parent trace.Context
	if given := h.Peek(headerTraceparent); len(given) > 0 && len(h.PeekAll(headerTraceparent)) == 1 {
		parent, _ = trace.Parse(given)
	}
	r.Parent, r.Trace, r.anew = parent.Span, trace.Begin(parent, t.Sample), parent.IsZero()
}

const (
	headerTraceparent = "Traceparent" // as the server normalises it
	headerTracestate  = "Tracestate"
)

// tracing gives what the provider is told of the trace in the attempt in hand. anew says that what the app says of one counts for nothing.
func (r *recording) tracing() (at trace.Context, anew bool) {
	a := r.current()
	if a == nil || r.Trace.IsZero() {
		return trace.Context{}, false
	}
	at = r.Trace
	at.Span = a.Span
	return at, r.anew
}

const (
	// Most of the bytes of a stream of events frame a few letters, so that more of both is kept than will be shown.
	captureFactor = 16
	captureMost   = 64 << 10
	capturesPart  = 16 // the part of the memory for bodies that captures may take together
)

// capture keeps the beginning of the prompt, where that is wanted and this request is one of those that are drawn.
func (r *recording) capture(p *Proxy, prompt []byte, more bool) {
	s := r.settings.Capture
	if s == nil || !r.Start.Before(s.Until) || !hit(s.Sample) {
		return
	}
	size := captureSize(s)
	if p.captured.Add(int64(2*size)) > p.memory.total/capturesPart {
		p.captured.Add(int64(-2 * size))
		return
	}
	r.taken = int64(2 * size)
	r.Capture = &record.Capture{Prompt: bytes.Clone(prompt[:min(len(prompt), size)]), PromptTruncated: more || len(prompt) > size}
}

func captureSize(s *telemetry.Capture) int {
	n := s.Bytes
	if n <= 0 {
		n = telemetry.DefaultCaptureBytes
	}
	return min(captureFactor*min(n, telemetry.MaxCaptureBytes), captureMost)
}

// answered keeps the beginning of the answer, where that is wanted. Keys have been masked in it.
func (r *recording) answered(piece []byte) {
	if r == nil || r.Capture == nil || len(piece) == 0 {
		return
	}
	k := r.Capture
	room := min(captureSize(r.settings.Capture)-len(k.Answer), len(piece))
	k.Answer = append(k.Answer, piece[:room]...)
	k.AnswerTruncated = k.AnswerTruncated || room < len(piece)
}

// over gives when all of the body had been sent, if it has.
func (u *upload) over() (at time.Time, ended bool) {
	select {
	case <-u.done:
		return u.ended, u.complete
	default:
		return time.Time{}, false
	}
}

// took notes what has been taken in of the request's body, as the app sent it.
func (r *recording) took(c *call) {
	if r != nil {
		r.RequestBytes = int64(len(c.body))
	}
}

// uploaded notes what came after that, once nothing more comes.
func (r *recording) uploaded(u *upload) {
	if r != nil {
		r.RequestBytes += u.got.Load()
	}
}
