package proxy

import (
	"errors"
	"net"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/routing"
)

// attempt sends the request to one backend after the other until there is an answer to deliver.
// otherwise is what the path means with another method.
func (c *call) attempt(otherwise *routing.Operation) *failure {
	defer c.proxy.ejections.abandon(&c.trial)
	for moved := false; ; {
		if !moved {
			if r := c.choose(); r != nil {
				return fail(r.Code, "%s", r.Message)
			}
		}
		c.trial.hurried = c.made > 0
		if f := c.refuseOperation(otherwise); f != nil {
			return f
		}
		if f := c.refuseCaller(); f != nil {
			return f
		}
		c.chooseKey()
		f, reason := c.enter(), retryReason{}
		if f == nil {
			f, reason = c.try()
			if f != nil {
				c.rec.failed(f.code)
			}
		}
		if f == nil {
			return nil
		}
		if moved = c.move(f); moved {
			continue
		}
		c.judge(f)
		if !reason.granted {
			reason = c.again(reason)
		}
		if !reason.granted {
			return f
		}
		// What the next attempt makes good, nobody else tells of.
		c.proxy.log.Info("attempt failed, another follows", c.details(f)...)
		c.proxy.metrics.Retries(c.target.Provider.Path(), string(f.code)).Inc()
		if f := c.pause(reason.wait); f != nil {
			return f
		}
	}
}

// judge tells the ejections what a failed attempt says of the backend.
func (c *call) judge(f *failure) {
	switch f.code {
	case routing.ConnectFailure:
		fault := balance.Refused
		if isTimeout(f.cause) {
			fault = balance.Silent
		}
		c.proxy.ejections.failed(&c.trial, fault)
	case routing.UntrustedCertificate, routing.UpstreamReset, routing.UpstreamInvalid, routing.FirstTokenTimeout:
		c.proxy.ejections.failed(&c.trial, balance.Gateway)
	case routing.DeadlineExceeded:
		if !c.trial.hurried {
			c.proxy.ejections.failed(&c.trial, balance.Gateway)
		}
	default:
	}
	c.leave()
}

// late tells whether the rule's time for the whole request is over.
func (c *call) late() bool { return !c.deadline.IsZero() && !time.Now().Before(c.deadline) }

func (c *call) overdue() *failure {
	return fail(routing.DeadlineExceeded, "no answer within the %s that the rule allows: raise timeouts.request, or ask for less", c.rule.Timeouts.Request)
}

// upstreamPath is the path at the current target.
func (c *call) upstreamPath() string { return c.rule.PathAt(c.target, c.operation, c.model, c.path) }

// try makes one attempt with the current target. Without a failure, the answer is on its way.
func (c *call) try() (*failure, retryReason) {
	c.made++
	c.rec.try(c)
	t := c.target
	retries := &c.rule.Retries
	var body segments
	if c.edited() {
		c.asked = c.asks(t)
		body = splice(c.body, &c.document, edits{model: t.JSONModel, stream: t.Stream, usage: c.asked})
	} else {
		body.add(c.body)
	}
	out := outgoing{
		method: c.ctx.Method(), path: c.upstreamPath(), query: c.query, authority: c.upstreamAuthority(),
		target: t, operation: c.shown(), length: body.size,
	}
	c.prepare(&out)
	out.trace, out.anew = c.rec.tracing()
	if body.size == 0 && (c.ctx.IsGet() || c.ctx.IsHead()) {
		out.length = -2
	}
	c.frame(&out, &body)
	if f := c.compose(&out); f != nil {
		return f, c.afterRevoked(f)
	}
	pool := c.pool()
	// What is not sent again unasked (see unserved) must not meet a connection that the provider is just closing.
	for fresh := c.once || c.operation != nil && (c.operation.Form || c.operation.Upgrade); ; fresh = true {
		conn, f := pool.get(c.client, fresh, c.deadline, &t.Policy)
		if f != nil {
			c.rec.unconnected(f)
			if f.code == routing.DeadlineExceeded {
				c.trial.hurried = true // the queue had it
			} else if f.code == routing.ConnectFailure && c.late() {
				f = c.overdue()
			}
			// A backend that took all of its time, or whose name does not exist, will do so again.
			var dns *net.DNSError
			same := f.code == routing.ConnectFailure && !isTimeout(f.cause) && (!errors.As(f.cause, &dns) || !dns.IsNotFound)
			return f, retryReason{allowed: f.code != routing.ClientGone && retries.ConnectFailure, same: same}
		}
		for !c.board(conn) { // while it waited for the connection
			if f := c.compose(&out); f != nil {
				conn.release()
				return f, c.afterRevoked(f)
			}
		}
		f, reason, stale := c.exchange(conn, &body)
		if stale && !fresh {
			continue // the provider was closing the connection, and has done nothing about the request
		}
		return f, reason
	}
}

// exchange sends the request on a connection and reads the head of the answer. stale says that a reused
// connection ended before anything of the answer came.
func (c *call) exchange(conn *upConn, body *segments) (f *failure, reason retryReason, stale bool) {
	retries, limits := &c.rule.Retries, &c.rule.Timeouts
	if !c.client.attach(conn) {
		conn.release()
		return fail(routing.ClientGone, "the app has left"), retryReason{}, false
	}
	var firstBy time.Time
	conn.asked = time.Now()
	c.rec.boarded(c, conn)
	if limits.FirstToken > 0 {
		firstBy = conn.asked.Add(limits.FirstToken)
	}
	conn.endBy(earlier(firstBy, c.deadline))
	if !c.deadline.IsZero() && c.deadline.Sub(conn.asked) < limits.Request/2 {
		c.trial.hurried = true // the wait for the connection had most of it
	}
	lost := func(err error) (*failure, retryReason, bool) {
		c.client.attach(nil)
		stale := conn.reused && !conn.revoked.Load() && conn.br.Buffered() == 0 && !isTimeout(err) && !c.client.left() && (conn.unserved(c.operation) || c.safe() && conn.justAsked())
		f := c.lost(conn, err)
		conn.discard()
		if c.target.Keyed() && !stale {
			c.key.of.counted.Answered(0)
		}
		return f, retryReason{allowed: c.retries(f), same: true}, stale
	}
	c.sent = true
	resp := &c.ctx.Response
	err := c.deliver(conn, body, &firstBy)
	c.rec.heard(c, err)
	if err != nil {
		return lost(err)
	}
	status := resp.StatusCode()
	if c.refusesKey(&resp.Header) {
		f, reason := c.withOtherKey(conn)
		return f, reason, false
	}
	if status == fasthttp.StatusSwitchingProtocols {
		return c.join(conn), retryReason{}, false
	}
	if c.asked && refusesAsking(status) {
		f, reason := c.withoutAsking(conn)
		return f, reason, false
	}
	if status >= fasthttp.StatusInternalServerError {
		fault := balance.Failing
		if status >= fasthttp.StatusBadGateway && status <= fasthttp.StatusGatewayTimeout {
			fault = balance.Gateway
		}
		c.proxy.ejections.failed(&c.trial, fault)
	}
	if reason := c.retryStatus(&resp.Header); reason.granted {
		c.proxy.ejections.completed(&c.trial) // 429: it is busy, not broken
		c.client.attach(nil)
		conn.leave(&resp.Header)
		return fail(routing.UpstreamRefusal, "the provider answered %d", status), reason, false
	}
	s := c.newStream(conn, firstBy)
	c.stick()
	if s != nil && retries.FirstToken && c.attempts < retries.Attempts && !c.once {
		// Nothing may reach the app yet: the next backend may be faster.
		if err := s.awaitFirst(); err != nil {
			f := s.failure(err)
			c.rec.awaited()
			_ = s.Close()
			return f, retryReason{allowed: c.retries(f), same: true}, false
		}
	}
	if c.persisted() && clientsRetry(status) {
		resp.Header.Set(headerShouldRetry, "false")
	}
	if s == nil {
		c.proxy.ejections.completed(&c.trial)
		return nil, retryReason{}, false
	}
	s.trial, s.promise, c.trial = c.trial, c.promise, trial{}
	if s.begun {
		c.proxy.ejections.answered(&s.trial)
	}
	s.start(c)
	s.rec = c.handOver()
	return nil, retryReason{}, false
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
