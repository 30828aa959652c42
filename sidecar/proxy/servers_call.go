package proxy

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/routing"
)

// insistence says whether a call goes to a backend that is left alone.
type insistence bool

const (
	gently  insistence = false
	byForce insistence = true
)

// admit begins a trial at a backend or at one of its servers, unless it is to be left alone.
func (c *call) admit(t *routing.Target, how insistence) (trial, balance.Result) {
	g := c.group(t)
	if g == nil {
		if how == byForce {
			return c.proxy.ejections.force(t), balance.Picked
		}
		tr, ok := c.proxy.ejections.admit(t)
		if !ok {
			return tr, balance.Left
		}
		return tr, balance.Picked
	}
	q := c.quest(t, g)
	q.Force = how == byForce
	call, r := g.Pick(&q)
	if r == balance.Spent { // there is no other: it is the same again
		q.Tried = nil
		call, r = g.Pick(&q)
	}
	if r != balance.Picked {
		return trial{}, r
	}
	return c.at(t, g, call), r
}

// at makes a trial of a call at a server.
func (c *call) at(t *routing.Target, g *group, call balance.Call) trial {
	c.visited = append(c.visited, call.Server())
	return trial{target: t, call: call, group: g}
}

// group gives the servers of a target; nil where there is nothing to choose from.
func (c *call) group(t *routing.Target) *group {
	if t.Servers.Kind == "" {
		return nil
	}
	return c.proxy.servers.of(t, time.Now())
}

// quest is what the servers of a target are told of the call.
func (c *call) quest(t *routing.Target, g *group) balance.Query {
	q := balance.Query{Now: time.Now(), Draw: rand.Uint64(), Tried: c.visited}
	switch t.Balance.Policy {
	case routing.LeastTokens:
		c.promise = c.foresee(g)
		q.Tokens = c.promise.input + c.promise.output
	case routing.ConsistentHash:
		q.Hash, q.Hashed = c.hash(&t.Balance.Hash)
	default:
	}
	return q
}

// free tells whether a target, or a server of it where the call has not been, is not left alone.
func (c *call) free(t *routing.Target) bool {
	g := c.group(t)
	if g == nil {
		return c.proxy.ejections.free(t)
	}
	return g.Free(&balance.Query{Now: time.Now(), Tried: c.visited})
}

// stay has the next attempt go to another server of the same target, if there is one.
func (c *call) stay() bool {
	g := c.group(c.target)
	if g == nil {
		return false
	}
	q := c.quest(c.target, g)
	q.Force = c.forced
	call, r := g.Pick(&q)
	if r != balance.Picked {
		return false
	}
	c.trial = c.at(c.target, g, call)
	return true
}

// maxMoves is how many servers that cannot be reached a call gets to know beyond those that are attempts of the rule.
const maxMoves = 16

// move goes on to another server where the one that was chosen refuses connections: nothing was sent, nobody has waited, and it is no
// attempt. What may not be tried again at all is not moved either.
func (c *call) move(f *failure) bool {
	r := &c.rule.Retries
	if f.code != routing.ConnectFailure || isTimeout(f.cause) || c.trial.group == nil || !r.ConnectFailure || r.Attempts == 0 || c.moves == maxMoves || c.late() {
		return false
	}
	g, hurried := c.trial.group, c.trial.hurried
	c.judge(f)
	q := c.quest(c.target, g)
	call, result := g.Pick(&q)
	if result != balance.Picked {
		return false
	}
	c.trial = c.at(c.target, g, call)
	c.trial.hurried = hurried
	c.moves++
	c.proxy.log.Info("attempt failed, another follows", c.details(f)...)
	c.proxy.metrics.Retries(c.target.Provider.Path(), string(f.code)).Inc()
	return true
}

// missing says why a target has nobody to call.
func (c *call) missing(t *routing.Target) *routing.Refusal {
	return &routing.Refusal{Code: routing.ServersMissing, Message: nameOf(t.Servers) + " has no server that is ready: check that its pods run and are ready, and that it selects them"}
}

// pool gives the connections to where the attempt goes.
func (c *call) pool() *pool {
	if c.trial.group != nil {
		return c.trial.group.pool(c.trial.call.Server())
	}
	return c.proxy.pool(c.target.Endpoint)
}

// plainPool gives the connections to the same where TLS is the client's own business.
func (c *call) plainPool() *pool {
	e := c.target.Endpoint
	if c.trial.group != nil {
		e = c.trial.call.Server().Endpoint(e)
	}
	plain := e.Value()
	plain.TLS = false
	return c.proxy.pool(unique.Make(plain))
}

// leave ends the trial of an attempt.
func (c *call) leave() { c.proxy.ejections.abandon(&c.trial) }

// slots counts attempts under way at targets without servers that have a limit of them.
type slots struct{ all sync.Map } // backendKey → *atomic.Int64

func (s *slots) of(t *routing.Target) *atomic.Int64 {
	key := keyOf(t)
	if v, ok := s.all.Load(key); ok {
		return v.(*atomic.Int64)
	}
	v, _ := s.all.LoadOrStore(key, new(atomic.Int64))
	return v.(*atomic.Int64)
}

// retire forgets those that a new configuration has no limit for.
func (s *slots) retire(table *routing.Table) {
	used := map[backendKey]struct{}{}
	for t := range table.Targets() {
		if t.Policy.MaxRequests > 0 {
			used[keyOf(t)] = struct{}{}
		}
	}
	s.all.Range(func(key, _ any) bool {
		if _, ok := used[key.(backendKey)]; !ok {
			s.all.Delete(key)
		}
		return true
	})
}

// enter counts the attempt, and refuses it where too many are under way.
func (c *call) enter() *failure {
	most := c.target.Policy.MaxRequests
	if most == 0 {
		return nil
	}
	slot := c.proxy.slots.of(c.target)
	if c.trial.group != nil {
		slot = &c.trial.group.slot
	}
	if slot.Add(1) > int64(most) {
		slot.Add(-1)
		f := fail(routing.Overloaded, "%d requests are under way at %s, which is the limit: try again later, or raise connectionPool.http.http2MaxRequests of its trafficPolicy", most, c.target.Provider)
		f.retryAfter = 1
		return f
	}
	c.trial.slot = slot
	return nil
}
