package proxy

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unique"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/telemetry"
)

// recording is the record of a request in the making. It belongs to whoever carries out the request: the call, then the stream or the
// WebSocket that comes of it, of which exactly one ends it. A nil one is that nobody wants to know, and costs nothing.
type recording struct {
	record.Record
	proxy    *Proxy
	settings *telemetry.Settings
	upTo     time.Duration // since Start: so much of the time has been laid to somebody's account
	attempt  time.Duration // since Start: when the current attempt began
	anew     bool          // the trace begins here
	taken    int64         // of what captures may take together
	last     spoken
}

// spoken is what the record before had. Most often the next one has the same, which then is not made again. They are strings of their own:
// who is told of a record may keep them.
type spoken struct{ method, host, path, client, asked, answered string }

var recordings = sync.Pool{New: func() any { return new(recording) }}

const (
	maxRecordedName = 256 // of a host that the configuration does not name
	maxRecordedPath = 512
	keptAttempts    = 32 // of a slice that is used again
)

// text gives b as a string of valid UTF-8, which was made for an earlier record where it is the same.
func (r *recording) text(last *string, b []byte, most int) string {
	if len(b) > most {
		b = b[:most]
	}
	if *last != string(b) {
		*last = string(b)
		if !utf8.Valid(b) {
			*last = strings.ToValidUTF8(*last, "\uFFFD")
		}
	}
	return *last
}

// begin begins the record of a call. host is nil where it is for none, which only a gateway's record can be.
func (c *call) begin(host *routing.Host, start time.Time) {
	p := c.proxy
	if p.tell == nil {
		return
	}
	r := recordings.Get().(*recording)
	r.proxy, r.settings, r.Start = p, p.store.Load().Telemetry, start
	r.Method = r.text(&r.last.method, c.ctx.Method(), maxRecordedName)
	r.Path = r.text(&r.last.path, c.path, maxRecordedPath)
	if c.client.public != nil {
		r.Client = r.text(&r.last.client, c.client.address(), maxRecordedName)
	}
	if c.rec = r; host == nil {
		r.Host = r.text(&r.last.host, hostOf(c.authority), maxRecordedName)
	} else {
		r.Host = host.Name
	}
	p.inFlight.Add(1)
	r.follow(&c.ctx.Request.Header)
}

// beginShadow begins the record of a copy of a call.
func (c *call) beginShadow(of *recording) {
	if of == nil {
		return
	}
	r := recordings.Get().(*recording)
	r.proxy, r.settings, r.Start = of.proxy, of.settings, time.Now()
	r.Method, r.Host, r.Path, r.Client, r.AskedModel = of.Method, of.Host, of.Path, of.Client, of.AskedModel
	r.Shadow, r.RequestBytes = true, of.RequestBytes
	if !of.Trace.IsZero() {
		r.Parent, r.Trace, r.anew = of.Trace.Span, of.Trace.Child(), of.anew
	}
	r.proxy.inFlight.Add(1)
	c.rec = r
}

// identify begins the record of a call that failed so early that nobody has looked who it is for. It does nothing where that cannot be
// known, or nobody's configuration has the host.
func (c *call) identify(start time.Time) {
	if c.proxy.tell == nil || c.rec != nil {
		return
	}
	if len(c.authority) == 0 {
		if _, f := c.parse(); f != nil && len(c.authority) == 0 {
			return
		}
	}
	if host := c.expected(); host != nil {
		c.begin(host, start)
	}
}

// conclude ends the record of a call whose answer is here as a whole, or which gets none; f says why.
func (c *call) conclude(f *failure) {
	r := c.rec
	if r == nil {
		return
	}
	c.rec = nil
	r.describe(c)
	resp := &c.ctx.Response
	if !resp.IsBodyStream() && !c.ctx.IsHead() {
		r.ResponseBytes = int64(len(resp.Body()))
	}
	r.own()
	switch r.Status = resp.StatusCode(); {
	case f != nil && f.code == routing.ClientGone:
		r.Status, r.ResponseBytes = 0, 0
		r.cut(f.code, c.client)
	case f != nil:
		r.Status, r.Code, r.Stream = f.status(), f.code, false
	case len(r.Attempts) == 0: // the rule has answered
	case r.Status >= fasthttp.StatusBadRequest:
		r.Code = routing.UpstreamRefusal
	case r.ResponseBytes > 0:
		r.FirstToken = r.upTo
	}
	r.end()
}

// handOver gives the record to what brings the answer, whose head has come.
func (c *call) handOver() *recording {
	r := c.rec
	if r == nil {
		return nil
	}
	c.rec = nil
	r.describe(c)
	if r.Status = c.ctx.Response.StatusCode(); r.Status >= fasthttp.StatusBadRequest {
		r.Code = routing.UpstreamRefusal
	}
	return r
}

// reclaim takes the record back from an answer that is not brought any more, as the proxy failed.
func (c *call) reclaim() {
	if s, ok := c.ctx.Response.BodyStream().(*stream); ok && c.rec == nil {
		c.rec, s.rec = s.rec, nil
	}
}

// describe notes what is known of a call.
func (r *recording) describe(c *call) {
	if rule := c.rule; rule != nil {
		r.RuleOwner, r.Rule = rule.Owner, rule.Label()
	}
	r.Operation = "other"
	if o := c.operation; o != nil {
		r.Operation, r.Inference = o.Name, o.Name != "models"
	}
	r.RequestModel = r.AskedModel
	if t := c.target; t != nil {
		r.Provider, r.Endpoint = t.Provider, c.proxy.endpoints.of(t.Endpoint)
		if c.edited() && t.Model != "" {
			r.RequestModel, r.Configured = t.Model, true
		}
	}
	for i := range r.Attempts {
		if i > 0 && r.Attempts[i].Provider != r.Attempts[i-1].Provider {
			r.Fallbacks++
		}
	}
	if n := len(r.Attempts); n > 0 {
		last := &r.Attempts[n-1]
		r.Retries, r.Server, r.Key = n-1, last.Server, last.Key
	}
	r.Withheld = c.withheld
}

// cut says that the request ended before its answer was complete, and who ended it.
func (r *recording) cut(code routing.Code, client *clientConn) {
	r.Code = code
	switch code {
	case routing.ClientGone:
		if r.Cut = record.App; client.evicted.Load() {
			r.Code, r.Cut = routing.ShuttingDown, record.Remora
		}
	case routing.UpstreamReset, routing.UpstreamInvalid, routing.FirstTokenTimeout, routing.IdleTimeout:
		r.Cut = record.Provider
	case routing.RequestTimeout, routing.InvalidRequest: // of a body that was still on its way
		r.Cut = record.App
	default:
		r.Cut = record.Remora
	}
}

// end tells of the request. It is over at the time that has been accounted for, and the record is not to be touched any more.
func (r *recording) end() {
	r.Total = r.upTo
	if n := len(r.Attempts); n > 0 {
		r.ended(&r.Attempts[n-1])
	}
	p := r.proxy
	p.inFlight.Add(-1)
	defer r.release()
	defer p.surviveTelling()
	p.tell(&r.Record, r.settings)
}

// surviveTelling keeps those who are told from ending requests.
func (p *Proxy) surviveTelling() {
	if v := recover(); v != nil {
		p.log.Error(fmt.Errorf("%v", v), "fault of the sidecar: please report it", "code", routing.InternalError, "stack", string(debug.Stack()))
	}
}

// release keeps what the next record can use.
func (r *recording) release() {
	r.proxy.captured.Add(-r.taken)
	attempts := r.Attempts[:0]
	if clear(r.Attempts); cap(attempts) > keptAttempts {
		attempts = nil
	}
	*r = recording{last: r.last, Record: record.Record{Attempts: attempts}}
	recordings.Put(r)
}

// isFor says which host the request is for, where that is found out late.
func (r *recording) isFor(host *routing.Host) {
	if r != nil {
		r.Host = host.Name
	}
}

// addressBook has the addresses of endpoints as they are written, so that no request makes its own.
type addressBook struct{ all sync.Map } // unique.Handle[routing.Endpoint] → string

func (a *addressBook) of(e unique.Handle[routing.Endpoint]) string {
	if v, ok := a.all.Load(e); ok {
		return v.(string)
	}
	address := addressOf(e.Value())
	a.all.Store(e, address)
	return address
}

// forget is for another configuration, which may not have them.
func (a *addressBook) forget() { a.all.Clear() }
