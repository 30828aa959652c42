package metrics

import (
	"iter"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// How long series stay that nothing is added to.
const (
	retiredTime = time.Hour      // those of a provider that the configuration does not have any more
	guestTime   = 24 * time.Hour // those of a model that is not from the configuration
	sweepTime   = time.Minute    // from one look to the next
)

// Keep has the series of the providers that it gives stay, however long ago their last request is. Without it, those of all stay.
func (s *Set) Keep(providers func() iter.Seq[routing.Ref]) {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.kept = providers
}

// sweep forgets what nobody will add to. Who reads the metrics has it done: where nobody does, nobody minds.
func (c *calls) sweep() {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.swept) < sweepTime {
		return
	}
	c.swept = now
	gone := c.retired()
	late := func(used int64, after time.Duration) bool { return now.Unix()-used >= int64(after/time.Second) }
	for k, of := range c.all {
		used := of.used.Load()
		guest := c.asked.guest[k.request] || c.told.guest[k.response]
		if late(used, guestTime) && guest || late(used, retiredTime) && gone(k.provider) {
			c.forget(k, of)
		}
	}
	for k, p := range c.costs {
		if late(p.used.Load(), retiredTime) && (gone(k.provider) || c.asked.used[k.model] == 0) {
			delete(c.costs, k)
			c.sets--
		}
	}
	for k, a := range c.asm {
		if late(a.used.Load(), retiredTime) && (gone(a.provider) || c.asked.used[k.model] == 0) {
			delete(c.asm, k)
			c.sets--
		}
	}
	for k, f := range c.fallbacks {
		if late(f.used.Load(), retiredTime) && gone(k) {
			delete(c.fallbacks, k)
		}
	}
	for _, of := range c.all { // they may have at hand what has just gone
		if p := of.cost.Load(); p != nil && c.costs[p.key] != p {
			of.cost.Store(nil)
		}
		if a := of.asm.Load(); a != nil && c.asm[a.key] != a {
			of.asm.Store(nil)
		}
	}
}

// retired tells which providers the configuration does not have any more. What never had one is not theirs.
func (c *calls) retired() func(routing.Ref) bool {
	if c.kept == nil {
		return func(routing.Ref) bool { return false }
	}
	kept := map[routing.Ref]bool{{}: true, beyond.provider: true}
	for p := range c.kept() {
		p.Kind = ""
		kept[p] = true
	}
	return func(p routing.Ref) bool { return !kept[p] }
}

func (c *calls) forget(k labels, of *series) {
	delete(c.all, k)
	c.sets--
	c.sets -= max(len(of.ended())-1, 0)
	c.asked.leave(k.request)
	if k.response != k.request {
		c.told.leave(k.response)
	}
	m := perModel{k.provider, k.request}
	if of.parts.users--; of.parts.users <= 0 {
		delete(c.parts, m)
	}
}
