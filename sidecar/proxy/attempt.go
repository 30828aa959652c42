package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"math"
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
	defer c.proxy.ejections.abandon(&c.trial)
	for {
		if r := c.choose(); r != nil {
			return fail(r.Code, "%s", r.Message)
		}
		c.trial.hurried = c.made > 0
		if f := c.refuseOperation(otherwise); f != nil {
			return f
		}
		f, reason := c.try()
		if f == nil {
			return nil
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
		c.proxy.metrics.Retries(c.target.Provider.Namespace+"/"+c.target.Provider.Name, string(f.code)).Inc()
		if f := c.pause(reason.wait); f != nil {
			return f
		}
	}
}

// judge tells the ejections what a failed attempt says of the backend.
func (c *call) judge(f *failure) {
	switch f.code {
	case routing.ConnectFailure, routing.UntrustedCertificate, routing.UpstreamReset, routing.UpstreamInvalid, routing.FirstTokenTimeout:
		c.proxy.ejections.failed(&c.trial)
	case routing.DeadlineExceeded:
		if !c.trial.hurried {
			c.proxy.ejections.failed(&c.trial)
		}
	default:
	}
	c.proxy.ejections.abandon(&c.trial)
}

// choose draws the backend of the next attempt. The share of a backend that cannot be used goes to the next priority,
// never to another of the same. What is tried again, or moved away from an ejected backend, is nobody's share: it goes
// to those that can be used. Where all of them are ejected, the first that was drawn is used all the same.
func (c *call) choose() *routing.Refusal {
	var why *routing.Refusal
	var last struct {
		target       *routing.Target
		level, index int
		tried        uint64
	}
	nobodys := c.attempts > 0
	for ; c.level < len(c.rule.Levels); c.level, c.tried = c.level+1, 0 {
		l := &c.rule.Levels[c.level]
		for without := c.tried; ; {
			if nobodys {
				without |= l.Unusable()
			}
			i := l.Pick(rand.Uint64(), without)
			if i < 0 {
				break
			}
			b := &l.Backends[i]
			if b.Target == nil {
				if why == nil {
					why = b.Refusal
				}
				break
			}
			if c.attempts > 0 && !c.able(b.Target) {
				without |= 1 << i // its refusal is no answer to what went wrong elsewhere
				continue
			}
			if tr, ok := c.proxy.ejections.admit(b.Target); ok {
				c.tried |= 1 << i
				c.target, c.trial, c.forced = b.Target, tr, false
				return nil
			}
			if last.target == nil {
				last.target, last.level, last.index, last.tried = b.Target, c.level, i, c.tried
			}
			without |= 1 << i
			nobodys = true
		}
	}
	if last.target == nil {
		return why
	}
	c.level, c.tried = last.level, last.tried|1<<last.index
	c.target, c.trial, c.forced = last.target, c.proxy.ejections.force(last.target), true
	return nil
}

// others tells whether a backend is left that has not been tried. Those that are ejected count where all are.
func (c *call) others() bool {
	for i, tried := c.level, c.tried; i < len(c.rule.Levels); i, tried = i+1, 0 {
		l := &c.rule.Levels[i]
		for j := range l.Backends {
			b := &l.Backends[j]
			if b.Target != nil && b.Weight > 0 && tried&(1<<j) == 0 && c.able(b.Target) && (c.forced || c.proxy.ejections.free(b.Target)) {
				return true
			}
		}
	}
	return false
}

// refuseOperation keeps everything but inference away from a provider that a key is sent to.
func (c *call) refuseOperation(otherwise *routing.Operation) *failure {
	switch {
	case c.able(c.target):
		return nil
	case c.operation != nil:
		return fail(routing.OperationNotFound, "where %s has %s is not known, since its spec.path does not end in /chat/completions", c.target.Provider, c.operation.Suffix)
	case otherwise != nil:
		return fail(routing.MethodNotAllowed, "%s %s is not an inference operation, and only those go to a provider with a key: use %s", c.ctx.Method(), c.path, otherwise.Method)
	}
	return fail(routing.OperationNotFound, "%s is not an inference operation, and only those go to a provider with a key: call / or /v1/chat/completions, for example", c.path)
}

// able tells whether a request may go to a target.
func (c *call) able(t *routing.Target) bool {
	if c.operation == nil || t.Key.IsZero() {
		return t.Key.IsZero()
	}
	_, ok := t.PathFor(c.operation, c.model)
	return ok
}

// retryReason is why an attempt may be followed by another.
type retryReason struct {
	allowed bool          // the rule wants it
	same    bool          // it makes sense to ask the same backend again
	wait    time.Duration // that the provider asked for; of a granted one: before the next attempt
	granted bool          // the next attempt is prepared
}

// again prepares the next attempt, if there is to be one.
func (c *call) again(r retryReason) retryReason {
	if !r.allowed || c.attempts >= c.rule.Retries.Attempts || c.once && c.sent {
		return r
	}
	others := c.others()
	switch {
	case others:
		r.wait = 0
	case !r.same:
		return r
	case r.wait == 0:
		r.wait = min(firstBackoff<<c.attempts, maxBackoff)
		r.wait = r.wait/2 + rand.N(r.wait)
	}
	if !c.deadline.IsZero() && time.Until(c.deadline) <= r.wait {
		return r
	}
	if !c.budget.take() {
		c.withheld = true
		c.proxy.metrics.RetriesWithheld(c.target.Provider.Namespace + "/" + c.target.Provider.Name).Inc()
		return r
	}
	if !others {
		c.level, c.tried = 0, 0
	}
	c.attempts++
	r.granted = true
	return r
}

// waiting is what a departing app does to a pause.
type waiting chan struct{}

func (w waiting) abort() { close(w) }

func (c *call) pause(d time.Duration) *failure {
	if d == 0 {
		return nil
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
	return fail(routing.DeadlineExceeded, "no answer within the %s that the rule allows: raise timeouts.request, or ask for less", c.rule.Timeouts.Request)
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
		c.asked = c.asks(t)
		body = splice(c.body, &c.document, edits{model: t.JSONModel, stream: t.Stream, usage: c.asked})
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
	c.frame(&out, &body)
	var valid bool
	if c.head, valid = out.head(c.head[:0], &c.ctx.Request.Header); !valid {
		return fail(routing.InvalidRequest, "a header name has a space in it: correct the client"), retryReason{}
	}
	pool := c.proxy.pool(t.Endpoint)
	// What is not sent again unasked (see unserved) must not meet a connection that the provider is just closing.
	for fresh := c.once || c.operation != nil && (c.operation.Form || c.operation.Upgrade); ; fresh = true {
		conn, f := pool.get(c.client, fresh, c.deadline, &t.Policy)
		if f != nil {
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
	if limits.FirstToken > 0 {
		firstBy = conn.asked.Add(limits.FirstToken)
	}
	conn.endBy(earlier(firstBy, c.deadline))
	if !c.deadline.IsZero() && c.deadline.Sub(conn.asked) < limits.Request/2 {
		c.trial.hurried = true // the wait for the connection had most of it
	}
	lost := func(err error) (*failure, retryReason, bool) {
		c.client.attach(nil)
		stale := conn.reused && conn.br.Buffered() == 0 && !isTimeout(err) && !c.client.left() && conn.unserved(c.operation)
		f := c.lost(conn, err)
		conn.discard()
		return f, retryReason{allowed: c.retries(f), same: true}, stale
	}
	c.sent = true
	resp := &c.ctx.Response
	if err := c.deliver(conn, body, &firstBy); err != nil {
		return lost(err)
	}
	status := resp.StatusCode()
	if status == fasthttp.StatusSwitchingProtocols {
		if f = c.join(conn); f == nil {
			c.proxy.ejections.completed(&c.trial)
		}
		return f, retryReason{}, false
	}
	if c.asked && refusesAsking(status) {
		f, reason := c.withoutAsking(conn)
		return f, reason, false
	}
	if status >= fasthttp.StatusInternalServerError {
		c.proxy.ejections.failed(&c.trial)
	}
	if reason := c.retryStatus(&resp.Header); reason.granted {
		c.proxy.ejections.completed(&c.trial) // 429: it is busy, not broken
		c.client.attach(nil)
		conn.leave(&resp.Header)
		return fail(routing.UpstreamRefusal, "the provider answered %d", status), reason, false
	}
	s := c.newStream(conn, firstBy)
	if s != nil && retries.FirstToken && c.attempts < retries.Attempts && !c.once {
		// Nothing may reach the app yet: the next backend may be faster.
		if err := s.awaitFirst(); err != nil {
			f := s.failure(err)
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
	s.trial, c.trial = c.trial, trial{}
	if s.begun {
		c.proxy.ejections.answered(&s.trial)
	}
	s.start(c)
	return nil, retryReason{}, false
}

// retries tells whether the rule wants another attempt after one that ended before anything reached the app.
func (c *call) retries(f *failure) bool {
	switch r := &c.rule.Retries; f.code {
	case routing.UpstreamReset:
		return r.Reset
	case routing.FirstTokenTimeout:
		return r.FirstToken
	case routing.UpstreamInvalid:
		return r.GatewayError || r.ServerError // the app would be told 502
	default:
		return false
	}
}

// persisted says that the sidecar has tried again by itself, or would have but for the budget: an app that does so too
// would only multiply an outage.
func (c *call) persisted() bool { return c.attempts > 0 || c.withheld }

// clientsRetry tells whether SDKs try again by themselves after an answer of this status.
func clientsRetry(status int) bool {
	return status == fasthttp.StatusRequestTimeout || status == fasthttp.StatusConflict || retryable(status)
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func retryable(status int) bool { return status == fasthttp.StatusTooManyRequests || status >= 500 }

// retryStatus decides whether an answer is to be thrown away for another attempt. If so, that attempt is granted.
func (c *call) retryStatus(h *fasthttp.ResponseHeader) (reason retryReason) {
	r, status := &c.rule.Retries, h.StatusCode()
	limited := r.RateLimited && (status == fasthttp.StatusTooManyRequests || status == fasthttp.StatusServiceUnavailable)
	failed := r.ServerError && status >= 500 || r.GatewayError && status >= 502 && status <= 504
	if !limited && !failed {
		return reason
	}
	reason.allowed = true
	wait, said := retryAfter(h)
	switch {
	case said:
		reason.wait, reason.same = max(wait, firstBackoff), wait <= maxRetryAfter
	default:
		reason.same = failed
	}
	return c.again(reason)
}

// retryAfter is how long the provider asks to wait. OpenAI's Retry-After-Ms goes first, as it does for its SDKs.
func retryAfter(h *fasthttp.ResponseHeader) (wait time.Duration, said bool) {
	if ms, ok := number(h.Peek("Retry-After-Ms")); ok {
		return time.Duration(ms) * time.Millisecond, true
	}
	value := bytes.TrimSpace(h.Peek(fasthttp.HeaderRetryAfter))
	if seconds, ok := number(value); ok {
		return time.Duration(seconds) * time.Second, true
	}
	until, err := fasthttp.ParseHTTPDate(value)
	if err != nil {
		return 0, false
	}
	// The provider's own clock is the one that counts.
	now, err := fasthttp.ParseHTTPDate(h.Peek(fasthttp.HeaderDate))
	if err != nil {
		now = time.Now()
	}
	return max(until.Sub(now), 0), true
}

// number reads a number of digits. One that is too large for a wait is as large as it can be.
func number(digits []byte) (int64, bool) {
	n, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	return int64(min(n, uint64(math.MaxInt64/time.Second))), true
}
