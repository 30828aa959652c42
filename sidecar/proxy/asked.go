package proxy

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

const (
	maxRefusals    = 1024
	refusalExpires = time.Hour
)

// refusals remembers which models refuse to be asked for usage.
type refusals struct {
	count atomic.Int32 // most often there are none, and no lock is needed to know it
	mu    sync.RWMutex
	until map[refusal]time.Time
}

type refusal struct {
	endpoint unique.Handle[routing.Endpoint]
	path     string
	model    string
}

func (r *refusals) add(of refusal, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until == nil {
		r.until = map[refusal]time.Time{}
	}
	for other, until := range r.until {
		// Apps name models as they like. Forgetting one costs a request.
		if len(r.until) < maxRefusals {
			break
		}
		if delete(r.until, other); until.After(now) {
			break
		}
	}
	r.until[of] = now.Add(refusalExpires)
	r.count.Store(int32(len(r.until)))
}

// asks tells whether the app's stream is to be asked for usage although the app does not.
func (c *call) asks(t *routing.Target) bool {
	if c.operation == nil || !c.operation.AskUsage || c.unasked || !c.document.canAsk(c.body) || !c.document.streamed(c.body, t.Stream) {
		return false
	}
	r := &c.proxy.refusals
	if r.count.Load() == 0 {
		return true
	}
	r.mu.RLock()
	var until time.Time
	if t.JSONModel != nil {
		until = r.until[refusal{t.Endpoint, t.Path, t.Model}]
	} else {
		until = r.until[refusal{t.Endpoint, t.Path, string(c.document.modelValue)}]
	}
	r.mu.RUnlock()
	return until.IsZero() || time.Now().After(until)
}

// canAsk tells whether the app has not asked for usage, and its stream_options are such that it can be done for it.
func (d *document) canAsk(text []byte) bool {
	if d.optionsOdd {
		return false
	}
	if !d.usage.present() {
		return true
	}
	said := string(text[d.usage.from:d.usage.to])
	return said == "false" || said == "null"
}

// streamed tells whether the answer is to be a stream; preset is what holds where the app does not say.
func (d *document) streamed(text []byte, preset bool) bool {
	if !d.stream.present() {
		return preset
	}
	return bytes.Equal(text[d.stream.from:d.stream.to], jsonTrue)
}

// refusesAsking tells whether an answer may be due to the request for usage.
func refusesAsking(status int) bool {
	return status == fasthttp.StatusBadRequest || status == fasthttp.StatusUnprocessableEntity
}

// withoutAsking sends the request again, as the app wrote it. If that helps, this provider is not asked any more for a while.
func (c *call) withoutAsking(conn *upConn) (*failure, retryReason) {
	c.client.attach(nil)
	conn.leave(&c.ctx.Response.Header)
	t := c.target
	c.unasked = true
	c.rec.failed(routing.UpstreamRefusal)
	c.made-- // for the app it is the same attempt
	f, reason := c.try()
	c.unasked = false
	if f == nil && c.ctx.Response.StatusCode() < fasthttp.StatusBadRequest {
		of := refusal{t.Endpoint, t.Path, t.Model}
		if t.JSONModel == nil {
			of.model = string(c.document.modelValue)
		}
		c.proxy.refusals.add(of, time.Now())
		c.proxy.log.Info("the provider does not take stream_options.include_usage: its streams are counted by estimates",
			"provider", t.Provider.String(), "model", of.model)
	}
	return f, reason
}

// leave gives a connection back whose answer is of no interest beyond its head; it ends it where the rest is not here yet.
func (c *upConn) leave(h *fasthttp.ResponseHeader) {
	length := h.ContentLength()
	if length >= 0 && length == c.br.Buffered() && persists(h) {
		_, _ = c.br.Discard(length)
		c.release()
		return
	}
	c.discard()
}
