package proxy

import (
	"time"

	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
)

// The time of a request is laid to accounts as it passes: to Remora's own (Added), to the provider's (Upstream), or to that of nobody who
// could be blamed, such as an app that reads slowly, a wait for a free connection, and a pause between attempts. The clock is read only
// where an account ends, three times in a request that goes well; sending is the provider's time, as it would be without Remora.

func (r *recording) lap() time.Duration {
	now := time.Since(r.Start)
	passed := now - r.upTo
	r.upTo = now
	return passed
}

// own says that what has passed was Remora's.
func (r *recording) own() {
	if r != nil {
		r.Added += r.lap()
	}
}

// awaited says that what has passed was the provider's.
func (r *recording) awaited() {
	if r != nil {
		r.Upstream += r.lap()
	}
}

// idle says that what has passed was nobody's.
func (r *recording) idle() {
	if r != nil {
		r.lap()
	}
}

// try begins an attempt at the target of the moment.
func (r *recording) try(c *call) {
	if r == nil {
		return
	}
	r.own()
	r.attempt = r.upTo
	a := record.Attempt{Start: r.Start.Add(r.upTo), Provider: c.target.Provider, Model: r.AskedModel}
	if c.edited() && c.target.Model != "" {
		a.Model = c.target.Model
	}
	if !r.Trace.IsZero() {
		a.Span = r.Trace.Child().Span
	}
	r.Attempts = append(r.Attempts, a)
}

// current gives the attempt in hand; nil where nobody wants to know.
func (r *recording) current() *record.Attempt {
	if r == nil || len(r.Attempts) == 0 {
		return nil
	}
	return &r.Attempts[len(r.Attempts)-1]
}

// unconnected says that an attempt got no connection.
func (r *recording) unconnected(f *failure) {
	switch f.code {
	case routing.Overloaded, routing.DeadlineExceeded, routing.ClientGone:
		r.idle() // it waited for a free one
	default:
		r.awaited()
	}
}

// boarded says that the request is about to be sent on a connection, at conn.asked. What it took to make a new one was the provider's.
func (r *recording) boarded(c *call, conn *upConn) {
	a := r.current()
	if a == nil {
		return
	}
	at := conn.asked.Sub(r.Start)
	if passed := at - r.upTo - conn.waited; conn.reused {
		r.Added += passed
	} else {
		r.Upstream += passed
	}
	r.upTo, conn.waited = at, 0
	a.Server, a.Reused = conn.server(), conn.reused
	if c.target.Keyed() {
		a.Key = c.key.of.id.Name
	}
}

// heard says that the head of the answer is here, or that none comes. As long as the app was still sending, nobody else was waited for.
func (r *recording) heard(c *call, err error) {
	a := r.current()
	if a == nil {
		return
	}
	if u := c.upload; u != nil {
		if ended, over := u.over(); !over {
			r.idle()
		} else if at := ended.Sub(r.Start); at > r.upTo {
			r.upTo = at
		}
	}
	r.awaited()
	if err == nil {
		a.FirstByte, a.Status = r.upTo-r.attempt, c.ctx.Response.StatusCode()
		r.Stream = isEvents(&c.ctx.Response.Header)
	}
}

// failed says why an attempt has failed that another may follow.
func (r *recording) failed(code routing.Code) {
	if a := r.current(); a != nil && a.Code == "" {
		a.Code = code
		r.own()
		r.ended(a)
	}
}

// ended is for the attempt in hand, at the time that has been accounted for.
func (r *recording) ended(a *record.Attempt) {
	if a.Duration == 0 {
		a.Duration = r.upTo - r.attempt
	}
}
