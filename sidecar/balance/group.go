package balance

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// Group is the servers that the calls of a target are spread over. Make it with New. All its methods may be called from any goroutine.
type Group struct {
	view  atomic.Pointer[view] // what Pick sees
	calls atomic.Int64         // under way
	turns atomic.Uint64        // servers that were left alone or came back, so far
	out   atomic.Int32         // those that are left alone
	due   atomic.Int64         // before which none of them is probed, in Unix nanoseconds

	written average // tokens of an answer

	mu      sync.Mutex
	balance routing.Balance
	limits  Limits
	region  string
	zone    string
	servers []*Server // sorted by place
	lost    []*Server // those that are left alone
	until   time.Time // how long they are taken though there are none any more; zero: they are there
	orders  []*order  // by tier
}

// New makes one without servers.
func New(b routing.Balance, l Limits) *Group {
	g := &Group{balance: b, limits: l}
	g.due.Store(math.MaxInt64)
	g.view.Store(&view{})
	return g
}

// Configure changes how the calls are spread. The servers stay.
func (g *Group) Configure(b routing.Balance, l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.balance, g.limits = b, l
	g.rebuild()
}

// Locate says where the caller is; empty: not known.
func (g *Group) Locate(region, zone string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.region != region || g.zone != zone {
		g.region, g.zone = region, zone
		g.rebuild()
	}
}

// Update says who the servers are now, and gives those that are none any more. Where there are none, those that there were are kept
// for routing.KeepServers.
func (g *Group) Update(servers routing.Servers, now time.Time) (gone []*Server) {
	compare := func(a, b routing.Server) int {
		return place{a.Address, a.Port}.compare(place{b.Address, b.Port})
	}
	if !slices.IsSortedFunc(servers, compare) {
		servers = slices.SortedFunc(slices.Values(servers), compare)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(servers) == 0 {
		if len(g.servers) > 0 && g.until.IsZero() {
			g.until = now.Add(routing.KeepServers)
			g.rebuild()
		}
		return nil
	}
	g.until = time.Time{}
	var born int64
	if len(g.servers) > 0 {
		born = now.UnixNano()
	}
	all := make([]*Server, 0, len(servers))
	before := g.servers
	for i := range servers {
		about := &servers[i]
		at := place{about.Address, about.Port}
		for len(before) > 0 && before[0].place().compare(at) < 0 {
			gone, before = append(gone, before[0]), before[1:]
		}
		var s *Server
		switch {
		case len(before) > 0 && before[0].place() == at:
			s, before = before[0], before[1:]
		case len(all) > 0 && all[len(all)-1].place() == at:
			continue // it is there twice
		default:
			s = &Server{Address: about.Address, Port: about.Port, born: born}
		}
		s.about = *about
		all = append(all, s)
	}
	gone = append(gone, before...)
	for _, s := range gone {
		s.gone = true
		if s.out.Load() {
			g.forget(s)
		}
	}
	g.servers = all
	g.rebuild()
	return gone
}

// Servers gives all of them, and those that are left alone. The slice must not be changed.
func (g *Group) Servers() (all []*Server, out int) { return g.view.Load().all, int(g.out.Load()) }

// Calls gives how many are under way, those at servers that are none any more included.
func (g *Group) Calls() int64 { return g.calls.Load() }

// Wrote says how many tokens a complete answer had.
func (g *Group) Wrote(tokens int64) { g.written.add(float64(tokens)) }

// Expected gives how many tokens an answer has on average, of late; 0: it is not known yet.
func (g *Group) Expected() int64 { return int64(g.written.value()) }

// answered, completed, failed and abandoned are what Calls tell.

func (g *Group) answered(c *Call) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := c.server
	unreachable := s.health.Unreachable()
	back := s.health.Answers(&c.trial, &g.limits, g.turns.Load()+1)
	if back {
		g.turns.Add(1)
		if unreachable {
			s.health.Completes(&c.trial)
		}
		if !s.gone {
			g.forget(s)
			g.refresh(s.tier)
		}
	}
	s.trouble.Store(s.health.Troubled())
	return back && !s.gone
}

func (g *Group) completed(c *Call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.server.health.Completes(&c.trial)
	c.server.trouble.Store(c.server.health.Troubled())
}

func (g *Group) failed(c *Call, f Fault, now time.Time) (length time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := c.server
	if s.gone {
		return 0
	}
	if s.health.Fails(&c.trial, f, &g.limits) && (s.health.Out() || f.unreached() && g.limits.AtOnce || g.mayLose()) {
		length = s.health.Leave(f, &g.limits, now, g.turns.Add(1))
		g.due.Store(min(g.due.Load(), s.health.until.UnixNano()))
		if !s.out.Swap(true) {
			g.lost = append(g.lost, s)
			g.out.Add(1)
			g.refresh(s.tier)
		}
	}
	s.trouble.Store(s.health.Troubled())
	return length
}

func (g *Group) abandoned(c *Call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.server.health.Abandon(&c.trial)
	g.due.Store(min(g.due.Load(), c.server.health.until.UnixNano()))
}

// mayLose tells whether one more may be left alone for its answers.
func (g *Group) mayLose() bool {
	lost, all := 1, len(g.servers)
	for _, s := range g.lost {
		if !s.health.unreachable {
			lost++
		}
	}
	return (lost == 1 || lost*100 <= g.balance.MaxEjected*all) && (len(g.servers)-len(g.lost)-1)*100 >= g.balance.MinHealthy*all
}

// forget takes a server out of those that are left alone.
func (g *Group) forget(s *Server) {
	s.out.Store(false)
	if i := slices.Index(g.lost, s); i >= 0 {
		g.lost = slices.Delete(g.lost, i, i+1)
		g.out.Add(-1)
	}
}

// probe makes a call the probe of a server that is due for one, of a tier up to the given one, or of only.
func (g *Group) probe(q *Query, tier int, only *Server) (*Server, Trial) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var found *Server
	next := int64(math.MaxInt64)
	for _, s := range g.lost {
		if found == nil && s.tier <= tier && (only == nil || s == only) && s.health.Due(q.Now) && !q.tried(s) {
			found = s
		} else if !s.health.probing {
			next = min(next, s.health.until.UnixNano())
		}
	}
	g.due.Store(next)
	t := Trial{Turn: g.turns.Load()}
	if found != nil {
		found.health.Probe(&t)
	}
	return found, t
}
