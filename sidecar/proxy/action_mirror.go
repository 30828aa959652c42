package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

const (
	mirrorsMost = 256         // copies that are under way at the same time
	mirrorTime  = time.Minute // for a copy, where the rule has no time limit of its own
	mirrorsPart = 8           // the part of the memory for bodies that copies may have besides
)

// mirrorings bound what copies may take. What is over that is not copied: nobody waits for a copy, and a mirror that answers late or
// never costs no call anything.
type mirrorings struct {
	running, bytes atomic.Int64
}

func (m *mirrorings) begin(size, most int64) bool {
	if m.running.Add(1) > mirrorsMost {
		m.running.Add(-1)
		return false
	}
	if m.bytes.Add(size) > most {
		m.end(size)
		return false
	}
	return true
}

func (m *mirrorings) end(size int64) {
	m.bytes.Add(-size)
	m.running.Add(-1)
}

// mirrors tells whether a rule has its calls copied.
func mirrors(r *routing.Rule) bool { return r != nil && r.Action != nil && len(r.Action.Mirrors) > 0 }

// mirror sends a copy of the call to a mirror, and does not wait for it. A body that is passed on as it arrives is not kept, and so not
// copied.
func (c *call) mirror(m *routing.Mirror) {
	p := c.proxy
	if m.Target == nil || len(m.Target.UIDs) > 0 || c.websocket || !hit(m.Share) {
		return
	}
	size := int64(len(c.body)) + appHeadSize
	if c.rest != nil || !p.mirrorings.begin(size, p.memory.total/mirrorsPart) {
		p.metrics.MirrorsDropped(m.Target.Provider.Path()).Inc()
		return
	}
	copied := c.copyFor(m)
	go func() {
		defer p.mirrorings.end(size)
		defer copied.lose()
		f := copied.attempt(nil)
		copied.conclude(f)
		if f != nil {
			p.metrics.Failures(string(f.code)).Inc()
			p.log.V(1).Info("mirrored call failed", copied.details(f)...)
			return
		}
		_ = copied.ctx.Response.BodyWriteTo(io.Discard) // a stream says by itself why it ended
	}()
}

// copyFor makes a call of its own, that shares nothing with this one.
func (c *call) copyFor(m *routing.Mirror) *call {
	ghost := &clientConn{TCPConn: new(net.TCPConn), departures: c.proxy.departures}
	if u := c.client.public; u != nil {
		ghost.public = &public{door: u.door, tls: u.tls, from: bytes.Clone(c.client.address()), met: true}
	}
	ctx := &fasthttp.RequestCtx{}
	ctx.Init2(ghost, quiet{}, false)
	c.ctx.Request.Header.CopyTo(&ctx.Request.Header)
	n := &call{
		proxy: c.proxy, ctx: ctx, client: ghost, authority: bytes.Clone(c.authority), path: bytes.Clone(c.path), query: bytes.Clone(c.query),
		rule: m.Alone(c.rule), plain: c.plain, shadow: true, operation: c.operation, model: c.model, read: true, body: bytes.Clone(c.body),
		budget: &retryBudget{now: time.Now},
	}
	if n.rule.Timeouts.Request == 0 {
		n.rule.Timeouts.Request = mirrorTime
	}
	n.deadline = time.Now().Add(n.rule.Timeouts.Request)
	if n.operation != nil && n.operation.JSON && !n.plain {
		n.document, _ = scan(n.body) // it has been read once already
	}
	n.beginShadow(c.rec)
	return n
}

// lose ends a copy. That one fails must not end the process.
func (c *call) lose() {
	if v := recover(); v != nil {
		c.proxy.log.Error(fmt.Errorf("%v", v), "fault of the sidecar: please report it", "code", routing.InternalError, "stack", string(debug.Stack()))
		c.client.depart()
		c.proxy.ejections.abandon(&c.trial)
		c.reclaim()
		c.conclude(fail(routing.InternalError, "the sidecar failed at a copy"))
	}
	_ = c.ctx.Response.CloseBodyStream()
}

// shadowed marks an authority as that of a copy, as Istio does.
func shadowed(authority string) string {
	host := string(hostOf([]byte(authority)))
	return host + "-shadow" + authority[len(host):]
}
