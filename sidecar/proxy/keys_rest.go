package proxy

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// How long a key rests. What the provider asks for in Retry-After goes before the rest of it.
const (
	limitedRest = 10 * time.Second // the first time, after 429
	refusedRest = time.Minute      // the first time, after 401 and 403
	maxRest     = 5 * time.Minute  // it is doubled up to here
	longestRest = time.Hour        // of what a provider may ask for
	probeTime   = time.Second      // between the calls that try a key after its rest
)

// rests is what is known of keys that providers refused.
type rests struct {
	troubled atomic.Int32  // keys that were refused since they were last accepted
	turns    atomic.Uint64 // rests so far

	mu sync.Mutex // of every rest
}

// rest is how a key is doing. The zero rest is that of one that never was refused.
type rest struct {
	times     int       // in a row
	until     time.Time // before which it is left alone
	probed    time.Time // when a call last tried whether it is accepted again
	turn      uint64    // of its beginning: requests that were sent before say nothing of what came after
	forgotten bool
}

// leave tells whether a key is to be left alone. After its rest, calls that can be sent again try it one after the other.
func (r *rest) leave(now time.Time, once bool) bool {
	return now.Before(r.until) || r.times > 0 && (once || now.Sub(r.probed) < probeTime)
}

// pick draws one of a target's keys by weight, but none of without; -1 where none is left. Where all of them rest, it is the
// one whose rest ends first. once says that the call cannot be sent again.
func (k *keyring) pick(t *routing.Target, without uint64, once bool) (i int, rests bool) {
	if len(t.Keys) == 1 && without == 0 {
		return 0, false
	}
	if k.rests.troubled.Load() == 0 {
		return draw(t, without), false
	}
	all := k.current().all
	k.rests.mu.Lock()
	defer k.rests.mu.Unlock()
	now := k.now()
	var known [64]*rest
	free, first := without, -1
	for i := range t.Keys {
		if c := all[credentialID(t, i)]; c != nil {
			if v := c.current.Load(); v != nil {
				known[i] = v.rest
			}
		}
		r := known[i]
		if without&(1<<i) != 0 || t.Keys[i].Weight == 0 || r == nil || !r.leave(now, once) {
			continue
		}
		free |= 1 << i
		if first < 0 || r.until.Before(known[first].until) {
			first = i
		}
	}
	if i = draw(t, free); i < 0 {
		return first, first >= 0
	}
	if r := known[i]; r != nil && r.times > 0 {
		r.probed = now
	}
	return i, false
}

func draw(t *routing.Target, without uint64) int {
	total := uint64(0)
	for i := range t.Keys {
		if without&(1<<i) == 0 {
			total += uint64(t.Keys[i].Weight)
		}
	}
	if total == 0 {
		return -1
	}
	n := rand.Uint64N(total)
	for i := range t.Keys {
		if without&(1<<i) != 0 {
			continue
		}
		w := uint64(t.Keys[i].Weight)
		if n < w {
			return i
		}
		n -= w
	}
	return -1
}

// refusesKey tells whether a status says something of the key that was sent.
func refusesKey(status int) bool {
	return status == fasthttp.StatusUnauthorized || status == fasthttp.StatusForbidden || status == fasthttp.StatusTooManyRequests
}

// refused lets a key rest. turn is that of the request's beginning.
func (k *keyring) refused(c *namedKey, v *keyValue, turn uint64, h *fasthttp.ResponseHeader) {
	wait, said := retryAfter(h)
	wait = min(max(wait, firstBackoff), longestRest)
	k.rests.mu.Lock()
	defer k.rests.mu.Unlock()
	r, now := v.rest, k.now()
	switch {
	case r.forgotten || turn < r.turn:
		return // it is known already
	case now.Before(r.until): // it was used all the same
		if until := now.Add(wait); said && until.After(r.until) {
			r.until = until
		}
		return
	}
	if !said {
		wait = limitedRest
		if h.StatusCode() != fasthttp.StatusTooManyRequests {
			wait = refusedRest
		}
		wait = min(wait<<min(r.times, 8), maxRest)
	}
	if r.times == 0 {
		k.rests.troubled.Add(1)
	}
	r.times++
	r.until, r.turn = now.Add(wait), k.rests.turns.Add(1)
	c.counted.Rested()
	k.log.Info("a provider refuses a key: it rests, while there is another", "code", routing.KeyRefused,
		"provider", c.id.Provider.String(), "key", c.id.Name, "status", h.StatusCode(), "for", wait.String())
}

// accepted ends what is known against a key.
func (s *rests) accepted(v *keyValue, turn uint64) {
	if s.troubled.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := v.rest; !r.forgotten && r.times > 0 && turn >= r.turn {
		r.times, r.until = 0, time.Time{}
		s.troubled.Add(-1)
	}
}

// forget ends the rest of a key that has another value, or is no more.
func (s *rests) forget(r *rest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !r.forgotten && r.times > 0 {
		s.troubled.Add(-1)
	}
	r.forgotten = true
}

func (k *keyring) countResting() (n int) {
	all := k.current().all
	k.rests.mu.Lock()
	defer k.rests.mu.Unlock()
	now := k.now()
	for _, c := range all {
		if v := c.current.Load(); v != nil && now.Before(v.rest.until) {
			n++
		}
	}
	return n
}
