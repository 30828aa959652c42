package proxy

import (
	"math/rand/v2"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/routing"
)

// choose draws the backend of the next attempt. The share of a backend that cannot be used goes to the next priority,
// never to another of the same. What is tried again, or moved away from an ejected backend, is nobody's share: it goes
// to those that can be used. Where all of them are ejected, the first that was drawn is used all the same.
func (c *call) choose() *routing.Refusal {
	if c.attempts > 0 && c.stay() {
		return nil
	}
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
			if c.attempts > 0 && (!c.able(b.Target) || !c.admitted(b.Target)) {
				without |= 1 << i // its refusal is no answer to what went wrong elsewhere
				continue
			}
			tr, r := c.admit(b.Target, gently)
			if r == balance.Picked {
				c.tried |= 1 << i
				c.backend, c.target, c.trial, c.forced = b, b.Target, tr, false
				return nil
			}
			if r == balance.Missing {
				if why == nil {
					why = c.missing(b.Target)
				}
				if nobodys {
					without |= 1 << i
					continue
				}
				break
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
	tr, r := c.admit(last.target, byForce)
	if r != balance.Picked { // the last of its servers has just gone
		return c.missing(last.target)
	}
	c.level, c.tried = last.level, last.tried|1<<last.index
	c.backend = &c.rule.Levels[last.level].Backends[last.index]
	c.target, c.trial, c.forced = last.target, tr, true
	return nil
}

// others tells whether a backend is left that has not been tried. Those that are ejected count where all are.
func (c *call) others() bool {
	if c.target.Servers.Kind != "" && c.group(c.target) != nil && c.free(c.target) {
		return true
	}
	for i, tried := c.level, c.tried; i < len(c.rule.Levels); i, tried = i+1, 0 {
		l := &c.rule.Levels[i]
		for j := range l.Backends {
			b := &l.Backends[j]
			if b.Target != nil && b.Weight > 0 && tried&(1<<j) == 0 && c.able(b.Target) && c.admitted(b.Target) && (c.forced || c.free(b.Target)) {
				return true
			}
		}
	}
	return false
}

// refuseOperation keeps everything but inference away from a provider that a key is sent to.
func (c *call) refuseOperation(otherwise *routing.Operation) *failure {
	if c.able(c.target) {
		return nil
	}
	r := c.target.RefusalOf(c.operation, otherwise, c.ctx.Method(), c.path)
	return fail(r.Code, "%s", r.Message)
}

// able tells whether a request may go to a target.
func (c *call) able(t *routing.Target) bool { return t.Takes(c.operation, c.model) }
