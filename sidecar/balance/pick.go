package balance

import (
	"slices"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// Query is what a call is like.
type Query struct {
	Now    time.Time
	Draw   uint64 // a random number
	Hash   uint64 // of what calls have in common that are to go to the same server; see Hashed
	Tokens int64  // that it has still to have read and written, as estimated
	Hashed bool
	// Force has the call go to a server that is left alone where all are.
	Force bool
	Tried []*Server // where it has been already
}

func (q *Query) tried(s *Server) bool { return slices.Contains(q.Tried, s) }

// Result says whether a call goes to a server.
type Result uint8

// The results.
const (
	Picked  Result = iota
	Missing        // there is no server
	Left           // all that it has not been at are left alone
	Spent          // it has been at all of them
)

// Pick chooses the server of a call, which is under way from now on: End has to be called.
func (g *Group) Pick(q *Query) (Call, Result) {
	v := g.view.Load()
	if len(v.all) == 0 || !v.until.IsZero() && q.Now.After(v.until) {
		return Call{}, Missing
	}
	r := chance(q.Draw)
	hashed := q.Hashed && v.policy == routing.ConsistentHash
	if hashed {
		r = chance(q.Hash) // the same set for the same calls
	}
	first := v.begin(&r)
	trial := Trial{Turn: g.turns.Load()}
	now := q.Now.UnixNano()
	due := g.due.Load() <= now
	if due && !hashed {
		if s, t := g.probe(q, max(first, 0), nil); s != nil {
			return g.call(s, q, t), Picked
		}
	}
	p := picker{g: g, v: v, q: *q, r: r, now: now, hashed: hashed, due: due, trial: trial}
	s := p.from(first, false)
	for i := 0; s == nil && i < len(v.sets); i++ {
		if i != first {
			s = p.from(i, false)
		}
	}
	if s == nil {
		if slices.ContainsFunc(v.all, func(s *Server) bool { return !q.tried(s) }) {
			if !q.Force {
				return Call{}, Left
			}
			for i := 0; s == nil && i < len(v.sets); i++ {
				s = p.from(i, true)
			}
		}
		if s == nil {
			return Call{}, Spent
		}
	}
	return g.call(s, q, p.trial), Picked
}

// Free tells whether Pick would find a server that is not left alone.
func (g *Group) Free(q *Query) bool {
	v := g.view.Load()
	if len(v.all) == 0 || !v.until.IsZero() && q.Now.After(v.until) {
		return false
	}
	if g.due.Load() <= q.Now.UnixNano() && g.anyDue(q) {
		return true
	}
	for i := range v.sets {
		if slices.ContainsFunc(v.sets[i].able, func(s *Server) bool { return !q.tried(s) }) {
			return true
		}
	}
	return false
}

func (g *Group) anyDue(q *Query) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.lost, func(s *Server) bool { return s.health.Due(q.Now) && !q.tried(s) })
}

func (g *Group) call(s *Server, q *Query, t Trial) Call {
	g.calls.Add(1)
	s.calls.Add(1)
	s.tokens.Add(q.Tokens)
	return Call{group: g, server: s, tokens: q.Tokens, trial: t}
}

// begin draws the set that a call begins at.
func (v *view) begin(r *chance) int {
	if v.upTo == nil {
		return 0
	}
	at := r.share()
	for i, end := range v.upTo {
		if at < end {
			return i
		}
	}
	return 0
}

// picker is one Pick.
type picker struct {
	g      *Group
	v      *view
	q      Query // a copy, so that the caller's need not be on the heap
	r      chance
	now    int64
	hashed bool
	due    bool // some server may be due for a probe
	trial  Trial
}

// from chooses one of a set; nil: none of it will do. forced: also of those that are left alone.
func (p *picker) from(tier int, forced bool) *Server {
	one := &p.v.sets[tier]
	among := one.able
	if forced {
		among = one.all
	}
	if p.hashed {
		return p.byHash(tier, len(among), forced)
	}
	if len(among) == 0 {
		return nil
	}
	warming := p.now < p.v.warm
	switch p.v.policy {
	case routing.RoundRobin:
		if warming {
			return one.order.next(p, among)
		}
		return one.order.turn(p, among)
	case routing.LeastRequest, routing.LeastTokens:
		return p.least(among, warming)
	default:
		return p.draw(among, warming, nil)
	}
}

// draws is how often a server is drawn that will not do, before the next best is taken.
const draws = 16

// draw takes one by chance, but not other, and new ones more seldom.
func (p *picker) draw(among []*Server, warming bool, other *Server) *Server {
	for range draws {
		s := among[p.r.below(len(among))]
		if s != other && !p.q.tried(s) && (!warming || p.r.share() < p.v.weight(s, p.now)) {
			return s
		}
		if len(among) == 1 {
			break
		}
	}
	begin := p.r.below(len(among))
	for i := range among {
		if s := among[(begin+i)%len(among)]; s != other && !p.q.tried(s) {
			return s
		}
	}
	return nil
}

// least draws two and takes the one with less to do.
func (p *picker) least(among []*Server, warming bool) *Server {
	a := p.draw(among, warming, nil)
	if a == nil || len(among) == 1 {
		return a
	}
	b := p.draw(among, warming, a)
	if b == nil {
		return a
	}
	if p.v.policy == routing.LeastTokens {
		if ta, tb := p.load(&a.tokens, a, warming), p.load(&b.tokens, b, warming); ta != tb {
			if tb < ta {
				return b
			}
			return a
		}
	}
	if p.load(&b.calls, b, warming) < p.load(&a.calls, a, warming) {
		return b
	}
	return a
}
