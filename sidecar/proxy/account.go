package proxy

import (
	"bytes"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/usage"
)

// accounts finds counters without making anything. There are as many as configurations name.
type accounts struct {
	mu  sync.Mutex // of who adds one
	all atomic.Pointer[map[account]*metrics.Calls]
}

type account struct {
	provider  routing.Ref
	model     string
	operation *routing.Operation
}

func (a *accounts) find(of account, in *metrics.Set) *metrics.Calls {
	if all := a.all.Load(); all != nil {
		if calls := (*all)[of]; calls != nil {
			return calls
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[account]*metrics.Calls{}
	if before := a.all.Load(); before != nil {
		all = maps.Clone(*before)
	}
	call := metrics.Call{Provider: of.provider.Path(), Model: of.model, Operation: "other"}
	if of.operation != nil {
		call.Operation = of.operation.Name
	}
	calls := in.Calls(call)
	all[of] = calls
	a.all.Store(&all)
	return calls
}

// account gives the counters of the call; nil where it is not for a provider.
func (c *call) account() *metrics.Calls {
	if c.target == nil {
		return nil
	}
	of := account{provider: c.target.Provider, operation: c.operation}
	if c.operation != nil && c.operation.Edited {
		of.model = c.target.Model
	}
	return c.proxy.accounts.find(of, c.proxy.metrics)
}

// form says how the answer is to be read; without one, it tells nothing of tokens.
func (c *call) form() (f usage.Form, ok bool) {
	h := &c.ctx.Response.Header
	if c.operation == nil || !c.operation.Usage || h.StatusCode() >= fasthttp.StatusBadRequest || isEncoded(h) {
		return 0, false
	}
	switch {
	case !isEvents(h):
		return usage.Whole, true
	case c.asked:
		return usage.AskedEvents, true
	}
	return usage.Events, true
}

// isEncoded tells whether the answer is in another form than it was asked for. Some providers name the one that it has.
func isEncoded(h *fasthttp.ResponseHeader) bool {
	coding := h.ContentEncoding()
	return len(coding) > 0 && !bytes.EqualFold(coding, []byte("identity"))
}

func isEvents(h *fasthttp.ResponseHeader) bool {
	return bytes.HasPrefix(h.ContentType(), []byte("text/event-stream"))
}

// countWhole counts an answer that is here as a whole, and gives what of it the app is to get.
func (c *call) countWhole(b []byte) []byte {
	calls := c.account()
	if calls == nil {
		return b
	}
	calls.Requests.Inc()
	form, ok := c.form()
	if !ok {
		return b
	}
	var m usage.Meter
	if form == usage.Whole {
		m.BeginWithoutText(form)
		m.Read(b)
		if _, ok := m.Report(); !ok {
			m.Begin(form)
			m.Read(b)
		}
	} else {
		m.Begin(form)
		n, _ := m.Pass(b)
		b = b[:m.Finish(b[:n])]
	}
	c.promise.learn(&c.trial, &m)
	var input int64
	if _, ok := m.Report(); !ok {
		input = c.estimateInput()
	}
	c.rec.counted(count(calls, &m, input, complete), &m, &c.mask)
	return b
}

func (c *call) estimateInput() int64 {
	if c.operation == nil || !c.operation.JSON {
		return 0
	}
	return usage.Request(c.body)
}

// settle counts the answer, once.
func (s *stream) settle() {
	if s.calls == nil || !s.counted {
		return
	}
	how := cutShort
	if s.complete || s.events && s.meter.Said() {
		how = complete
		s.promise.learn(&s.trial, &s.meter)
	}
	s.rec.counted(count(s.calls, &s.meter, s.input, how), &s.meter, &s.mask)
	s.counted = false
}

// end is how an answer ended.
type end uint8

const (
	complete end = iota
	cutShort
)

// count enters, and gives, what an answer took. Where the provider did not report it, or went on after its report and was cut, it is
// estimated; input is the estimate of the request.
func count(calls *metrics.Calls, m *usage.Meter, input int64, how end) record.Usage {
	r, reported := m.Report()
	u := record.Usage{Input: r.Input, Output: r.Output, Cached: r.Cached, Reasoned: r.Reasoned, Reported: reported}
	if reported {
		calls.Input.AddInt64(u.Input)
		calls.Output.AddInt64(u.Output)
		calls.Cached.AddInt64(u.Cached)
		calls.Reasoned.AddInt64(u.Reasoned)
	}
	text := m.Text()
	switch {
	case reported && (how == complete || text == 0):
		return u
	case how == complete:
		u.Unreported = true
		calls.Unreported.Inc()
	default:
		u.Estimated = true
		calls.Estimated.Inc()
	}
	if !reported {
		u.EstimatedInput = input
		calls.EstimatedInput.AddInt64(u.EstimatedInput)
	}
	u.EstimatedOutput = text
	calls.EstimatedOutput.AddInt64(u.EstimatedOutput)
	return u
}
