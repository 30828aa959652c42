package balance

import (
	"time"

	"remora.dev/remora/sidecar/routing"
)

// view is the servers as one Pick sees them. It does not change, but for what is atomic.
type view struct {
	policy routing.BalancePolicy
	slow   routing.SlowStart
	all    []*Server
	sets   []set     // by tier: the nearer first; the last is that of servers which are about to end
	upTo   []float64 // up to which share of the calls begin at each set; nil: all at the first that has a server
	warm   int64     // until when some are new, in Unix nanoseconds
	until  time.Time // after which there are none; zero: no such time
}

// set is servers that are equally near.
type set struct {
	all   []*Server
	able  []*Server // those that are not left alone
	order *order
	hash  hasher // of all; nil: the policy has no use for it
}

// hasher finds servers by hashes. It has a number of places, in each of which is a server.
type hasher interface {
	count() int
	// begin gives the place of a hash; after the last comes the first.
	begin(hash uint64) int
	at(place int) *Server
	// with gives the same for other servers.
	with(servers []*Server) hasher
	// suits tells whether it is what a Balance asks for.
	suits(b *routing.Balance) bool
}

// rebuild makes a view of what there is, with the lock held.
func (g *Group) rebuild() {
	before := g.view.Load()
	b := &g.balance
	v := &view{policy: b.Policy, slow: b.SlowStart, all: g.servers, until: g.until}
	place := g.placing()
	v.sets = make([]set, place.tiers())
	for len(g.orders) < len(v.sets) {
		g.orders = append(g.orders, &order{})
	}
	counts := make([]int, len(v.sets))
	for _, s := range g.servers {
		s.tier = place.of(&s.about)
		counts[s.tier]++
		if s.born > 0 && b.SlowStart.WindowSeconds > 0 {
			v.warm = max(v.warm, s.born+int64(b.SlowStart.WindowSeconds*1e9))
		}
	}
	for i, n := range counts {
		v.sets[i] = set{all: make([]*Server, 0, n), order: g.orders[i]}
	}
	for _, s := range g.servers {
		one := &v.sets[s.tier]
		one.all = append(one.all, s)
	}
	for i := range v.sets {
		one := &v.sets[i]
		g.able(one)
		if b.Policy != routing.ConsistentHash || len(one.all) == 0 {
			continue
		}
		if i < len(before.sets) && before.sets[i].hash != nil && before.sets[i].hash.suits(b) {
			one.hash = before.sets[i].hash.with(one.all)
		} else {
			one.hash = newHasher(b).with(one.all)
		}
	}
	v.upTo = place.shares(v.sets)
	g.view.Store(v)
}

// refresh makes a view in which one tier has lost or regained a server, with the lock held.
func (g *Group) refresh(tier int) {
	v := *g.view.Load()
	v.sets = append([]set(nil), v.sets...)
	g.able(&v.sets[tier])
	place := g.placing()
	v.upTo = place.shares(v.sets)
	g.view.Store(&v)
}

// able finds those of a set that take calls. Where too few would be left, that is all that can be reached.
func (g *Group) able(one *set) {
	one.able = one.all
	if len(g.lost) == 0 {
		return
	}
	few := (len(g.servers)-len(g.lost))*100 < g.balance.MinHealthy*len(g.servers)
	one.able = make([]*Server, 0, len(one.all))
	for _, s := range one.all {
		if !s.health.out || few && !s.health.unreachable {
			one.able = append(one.able, s)
		}
	}
}
