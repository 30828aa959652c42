package proxy

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
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
		c.proxy.metrics.RetriesWithheld(c.target.Provider.Path()).Inc()
		return r
	}
	if !others {
		c.level, c.tried, c.visited = 0, 0, c.visited[:0]
	}
	c.attempts++
	r.granted = true
	return r
}

// safe tells whether a request asks for nothing to be done, so that HTTP lets it be sent again unasked (RFC 9110, section 9.2.2).
func (c *call) safe() bool {
	h := &c.ctx.Request.Header
	return (h.IsGet() || h.IsHead() || h.IsOptions()) && len(c.body) == 0 && !c.once && !c.websocket
}

// waiting is what a departing app does to a pause.
type waiting chan struct{}

func (w waiting) abort() { close(w) }

func (c *call) pause(d time.Duration) *failure {
	if d == 0 {
		return nil
	}
	c.rec.own()
	defer c.rec.idle()
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
