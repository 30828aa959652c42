package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

const (
	maxRetryAfter = 5 * time.Second // a longer wait is the app's to decide about
	firstBackoff  = 50 * time.Millisecond
	maxBackoff    = time.Second
)

// attempt sends the request to one backend after the other until there is an answer to deliver.
// otherwise is what the path means with another method.
func (c *call) attempt(otherwise *routing.Operation) *failure {
	for {
		if r := c.choose(); r != nil {
			return fail(r.Code, "%s", r.Message)
		}
		if f := c.refuseOperation(otherwise); f != nil {
			return f
		}
		f, reason := c.try()
		if f == nil {
			return nil
		}
		wait, ok := c.again(reason)
		if !ok {
			return f
		}
		// What the next attempt makes good, nobody else tells of.
		c.proxy.log.Info("attempt failed, another follows", c.details(f)...)
		if f := c.pause(wait); f != nil {
			return f
		}
	}
}

// choose draws the backend of the next attempt. The share of a backend that cannot be used goes to the
// next priority, never to another of the same. What is tried again is nobody's share: it goes to those
// that can be used.
func (c *call) choose() *routing.Refusal {
	var why *routing.Refusal
	for ; c.level < len(c.rule.Levels); c.level, c.tried = c.level+1, 0 {
		l := &c.rule.Levels[c.level]
		if c.attempts > 0 {
			c.tried |= l.Unusable()
		}
		i := l.Pick(rand.Uint64(), c.tried)
		if i < 0 {
			continue
		}
		b := &l.Backends[i]
		if b.Target != nil {
			c.tried |= 1 << i
			c.target = b.Target
			return nil
		}
		if why == nil {
			why = b.Refusal
		}
	}
	return why
}

// others tells whether a backend is left that has not been tried.
func (c *call) others() bool {
	for i, tried := c.level, c.tried; i < len(c.rule.Levels); i, tried = i+1, 0 {
		l := &c.rule.Levels[i]
		for j := range l.Backends {
			if b := &l.Backends[j]; b.Target != nil && b.Weight > 0 && tried&(1<<j) == 0 {
				return true
			}
		}
	}
	return false
}

// refuseOperation keeps everything but inference away from a provider that a key is sent to.
func (c *call) refuseOperation(otherwise *routing.Operation) *failure {
	switch {
	case c.operation != nil:
		if _, ok := c.target.PathFor(c.operation, c.model); !ok && !c.target.Key.IsZero() {
			return fail(routing.OperationNotFound, "where %s has %s is not known, since its spec.path does not end in /chat/completions", c.target.Provider, c.operation.Suffix)
		}
		return nil
	case c.target.Key.IsZero():
		return nil
	case otherwise != nil:
		return fail(routing.MethodNotAllowed, "%s %s is not an inference operation, and only those go to a provider with a key: use %s", c.ctx.Method(), c.path, otherwise.Method)
	}
	return fail(routing.OperationNotFound, "%s is not an inference operation, and only those go to a provider with a key: call / or /v1/chat/completions, for example", c.path)
}

// retryReason is why an attempt may be followed by another.
type retryReason struct {
	allowed bool          // the rule wants it
	same    bool          // it makes sense to ask the same backend again
	wait    time.Duration // that the provider asked for
}

// again prepares the next attempt, or says that there is none.
func (c *call) again(r retryReason) (wait time.Duration, ok bool) {
	if !r.allowed || c.attempts >= c.rule.Retries.Attempts {
		return 0, false
	}
	if c.others() {
		c.attempts++
		return 0, true
	}
	if !r.same {
		return 0, false
	}
	c.level, c.tried = 0, 0
	wait = r.wait
	if wait == 0 {
		wait = min(firstBackoff<<c.attempts, maxBackoff)
		wait = wait/2 + rand.N(wait)
	}
	c.attempts++
	return wait, true
}

// waiting is what a departing app does to a pause.
type waiting chan struct{}

func (w waiting) abort() { close(w) }

func (c *call) pause(d time.Duration) *failure {
	if d == 0 {
		return nil
	}
	if !c.deadline.IsZero() && time.Until(c.deadline) < d {
		return c.overdue()
	}
	w := make(waiting)
	if !c.client.attach(w) {
		return fail(routing.ClientGone, "the app has left")
	}
	defer c.client.attach(nil)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w:
		return fail(routing.ClientGone, "the app has left")
	case <-t.C:
		return nil
	}
}

// late tells whether the rule's time for the whole request is over.
func (c *call) late() bool { return !c.deadline.IsZero() && !time.Now().Before(c.deadline) }

func (c *call) overdue() *failure {
	return fail(routing.DeadlineExceeded, "no answer within the %s that the rule allows (timeouts.request)", c.rule.Timeouts.Request)
}

// upstreamPath is the path at the current target; the app's own where the table has none for it.
func (c *call) upstreamPath() string {
	if c.operation != nil {
		if path, ok := c.target.PathFor(c.operation, c.model); ok {
			return path
		}
	}
	return cmp.Or(string(c.path), "/")
}

// try makes one attempt with the current target. Without a failure, the answer is on its way.
func (c *call) try() (*failure, retryReason) {
	c.made++
	t := c.target
	retries := &c.rule.Retries
	var body segments
	if c.operation != nil && c.operation.Edited {
		body = splice(c.body, &c.document, t)
	} else {
		body.add(c.body)
	}
	out := outgoing{
		method: c.ctx.Method(), path: c.upstreamPath(), query: c.query, authority: t.Authority,
		target: t, operation: c.operation, length: body.size,
	}
	if body.size == 0 && (c.ctx.IsGet() || c.ctx.IsHead()) {
		out.length = -2
	}
	var valid bool
	if c.head, valid = out.head(c.head[:0], &c.ctx.Request.Header); !valid {
		return fail(routing.InvalidRequest, "a header name has a space in it: correct the client"), retryReason{}
	}
	pool := c.proxy.pool(t.Endpoint)
	for fresh := false; ; fresh = true {
		conn, f := pool.get(c.client, fresh, c.deadline)
		if f != nil {
			if f.code == routing.ConnectFailure && c.late() {
				f = c.overdue()
			}
			// A backend that took all of its time, or whose name does not exist, will do so again.
			var dns *net.DNSError
			same := f.code == routing.ConnectFailure && !isTimeout(f.cause) && (!errors.As(f.cause, &dns) || !dns.IsNotFound)
			return f, retryReason{allowed: f.code != routing.ClientGone && retries.ConnectFailure, same: same}
		}
		f, reason, stale := c.exchange(conn, &body)
		if stale && !fresh {
			continue // nothing came back: the provider had closed the connection before it saw the request
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
	if limits.FirstToken > 0 {
		firstBy = time.Now().Add(limits.FirstToken)
	}
	conn.endBy(earlier(firstBy, c.deadline))
	lost := func(err error) (*failure, retryReason, bool) {
		c.client.attach(nil)
		stale := conn.reused && conn.br.Buffered() == 0 && !isTimeout(err) && !c.client.left()
		f := c.lost(conn, err)
		conn.discard()
		return f, retryReason{
			allowed: f.code == routing.UpstreamReset && retries.Reset || f.code == routing.FirstTokenTimeout && retries.FirstToken,
			same:    true,
		}, stale
	}
	resp := &c.ctx.Response
	if err := c.finish(conn, send(conn, &c.head, body)); err != nil {
		return lost(err)
	}
	if reason, retry := c.retryStatus(&resp.Header); retry {
		status := resp.StatusCode()
		c.client.attach(nil)
		conn.discard()
		return fail(routing.UpstreamRefusal, "the provider answered %d", status), reason, false
	}
	s := c.newStream(conn, firstBy)
	if retries.FirstToken && c.attempts < retries.Attempts && s != nil {
		// Nothing may reach the app yet: the next backend may be faster.
		if _, err := s.answer.next(); err != nil && !errors.Is(err, io.EOF) {
			f := s.failure(err)
			s.close()
			allowed := f.code == routing.FirstTokenTimeout || f.code == routing.UpstreamReset && retries.Reset
			return f, retryReason{allowed: allowed, same: true}, false
		}
	}
	if c.attempts > 0 && c.attempts >= retries.Attempts && retryable(resp.StatusCode()) {
		resp.Header.Set(headerShouldRetry, "false") // it has been tried often enough
	}
	if s != nil {
		s.start(c)
	}
	return nil, retryReason{}, false
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func retryable(status int) bool { return status == fasthttp.StatusTooManyRequests || status >= 500 }

// retryStatus decides whether an answer is to be thrown away for another attempt.
func (c *call) retryStatus(h *fasthttp.ResponseHeader) (retryReason, bool) {
	r, status := &c.rule.Retries, h.StatusCode()
	if !retryable(status) || c.attempts >= r.Attempts {
		return retryReason{}, false
	}
	if r.ServerError && status >= 500 || r.GatewayError && status >= 502 && status <= 504 {
		return retryReason{allowed: true, same: true}, true
	}
	if !r.RateLimited || status != fasthttp.StatusTooManyRequests && status != fasthttp.StatusServiceUnavailable {
		return retryReason{}, false
	}
	if c.others() {
		return retryReason{allowed: true}, true
	}
	seconds, err := strconv.Atoi(string(bytes.TrimSpace(h.Peek(fasthttp.HeaderRetryAfter))))
	if err != nil || seconds < 0 || seconds > int(maxRetryAfter/time.Second) {
		return retryReason{}, false
	}
	wait := time.Duration(seconds) * time.Second
	if !c.deadline.IsZero() && time.Until(c.deadline) < wait {
		return retryReason{}, false
	}
	return retryReason{allowed: true, same: true, wait: max(wait, firstBackoff)}, true
}
