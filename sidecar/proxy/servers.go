package proxy

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

const (
	// renewal is how long a group keeps to the servers that it has just been told: in large Services, some come and go all the time.
	renewal = 20 * time.Millisecond
	// pace is how many times as long as taking them in lasted it keeps to them at least.
	pace = 50
	// renewedBy is how long at most.
	renewedBy = time.Second
)

// servers knows the groups of servers that the configuration names.
type servers struct {
	proxy    *Proxy
	members  *snapshot.Members // nil: nobody knows any
	byTarget atomic.Pointer[map[*routing.Target]*group]

	mu  sync.Mutex
	all map[groupKey]*group
}

// groupKey is what targets have in common whose calls are spread together.
type groupKey struct {
	routing.ServersID
	backendKey
	how string // the rest that makes a difference
}

// group is servers, as some targets use them.
type group struct {
	*balance.Group
	key     groupKey
	proxy   *Proxy
	log     logr.Logger
	counted *metrics.Servers
	stale   atomic.Bool  // there may be others by now
	known   atomic.Bool  // it has ever been said who they are
	next    atomic.Int64 // when to look for others at the earliest, in Unix nanoseconds
	slot    atomic.Int64 // attempts under way

	mu      sync.Mutex  // of who looks
	hide    func()      // from the metrics; nil: it is not in them
	retired bool        // no configuration has it any more
	tls     *tls.Config // that of all servers, but for sessions; nil as long as nobody needed it
}

// follow has the groups told who their servers are.
func (s *servers) follow(members *snapshot.Members) {
	s.members = members
	if members == nil {
		return
	}
	members.OnChange(func(id routing.ServersID) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for key, g := range s.all {
			if key.ServersID == id {
				g.stale.Store(true)
			}
		}
	})
}

// of gives the group of a target; nil where there is nothing to choose from, or nobody knows yet from what.
func (s *servers) of(t *routing.Target, now time.Time) *group {
	if t.Servers.Kind == "" || s.members == nil {
		return nil
	}
	var g *group
	if all := s.byTarget.Load(); all != nil {
		g = (*all)[t]
	}
	if g == nil { // a table that is no more, or not yet
		s.mu.Lock()
		g = s.find(t)
		s.mu.Unlock()
	}
	if g.stale.Load() && now.UnixNano() >= g.next.Load() {
		g.renew(s.members, now)
	}
	if !g.known.Load() {
		return nil
	}
	return g
}

// find gives the group of a target, with the lock held.
func (s *servers) find(t *routing.Target) *group {
	key := groupKeyOf(t)
	g := s.all[key]
	if g == nil {
		limits := limitsOf(&t.Policy)
		limits.AtOnce = true
		g = &group{Group: balance.New(t.Balance, limits), key: key, proxy: s.proxy, log: s.proxy.log, counted: s.proxy.metrics.Servers(nameOf(key.ServersID))}
		g.stale.Store(true)
		s.all[key] = g
	}
	return g
}

func groupKeyOf(t *routing.Target) groupKey {
	return groupKey{t.Servers, keyOf(t), fmt.Sprintf("%+v %+v", t.Balance, limitsOf(&t.Policy))}
}

// nameOf is what logs, metrics and errors call servers.
func nameOf(id routing.ServersID) string {
	name := id.Kind + " " + id.Namespace + "/" + id.Name
	if id.Port != "" {
		name += " port " + id.Port
	}
	if id.Subset != "" {
		name += " with " + id.Subset
	}
	return name
}

// retire makes the groups those of a new configuration. One of which only the policy is another keeps its servers.
func (s *servers) retire(table *routing.Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[groupKey]*routing.Target{}
	targets := map[*routing.Target]groupKey{}
	for t := range table.Targets() {
		if t.Servers.Kind != "" {
			key := groupKeyOf(t)
			used[key], targets[t] = t, key
		}
	}
	var idle []*group
	for key, g := range s.all {
		if used[key] == nil {
			idle = append(idle, g)
			delete(s.all, key)
		}
	}
	byTarget := make(map[*routing.Target]*group, len(targets))
	for t, key := range targets {
		if s.all[key] == nil {
			if i := slices.IndexFunc(idle, func(g *group) bool { return g.key.ServersID == key.ServersID && g.key.backendKey == key.backendKey }); i >= 0 {
				limits := limitsOf(&t.Policy)
				limits.AtOnce = true
				idle[i].Configure(t.Balance, limits)
				idle[i].key = key
				s.all[key] = idle[i]
				idle = slices.Delete(idle, i, i+1)
			}
		}
		byTarget[t] = s.find(t)
	}
	s.byTarget.Store(&byTarget)
	for _, g := range idle {
		g.retire()
		all, _ := g.Servers()
		g.letGo(all)
	}
}

// groups gives all of them.
func (s *servers) groups() []*group {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.all))
}

// sweep has groups that nobody calls let go of servers that are none any more.
func (s *servers) sweep(now time.Time) {
	if s.members == nil {
		return
	}
	for _, g := range s.groups() {
		if g.stale.Load() {
			g.renew(s.members, now)
		} else if g.known.Load() {
			g.Locate(s.members.Here()) // which may have been found out since
		}
	}
}

// renew takes in who the servers are. While one does, others go on with those that there were.
func (g *group) renew(members *snapshot.Members, now time.Time) {
	if g.known.Load() {
		if !g.mu.TryLock() {
			return
		}
	} else {
		g.mu.Lock()
	}
	defer g.mu.Unlock()
	if g.known.Load() && !g.stale.Load() {
		return // another was first
	}
	g.stale.Store(false) // before it is read
	defer func() { g.next.Store(time.Now().Add(min(max(renewal, pace*time.Since(now)), renewedBy)).UnixNano()) }()
	all, known := members.Of(g.key.ServersID)
	if known {
		g.Locate(members.Here())
		g.letGo(g.Update(all, now))
	} // else calls that have just begun go to those that it has; their connections end as they idle
	g.known.Store(known)
	g.show(known)
}

// show has it in the metrics only as long as it is known who the servers are: not to know them is not to have none. The lock is held.
func (g *group) show(known bool) {
	switch {
	case known && g.hide == nil && !g.retired:
		g.hide = g.counted.Show(g.sizes)
	case !known && g.hide != nil:
		g.hide()
		g.hide = nil
	default:
	}
}

// retire takes it out of the metrics for good: who has just been about to look may still do so.
func (g *group) retire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.retired = true
	g.show(false)
}

// letGo retires the connections to servers that are none any more. Calls that are under way finish on theirs.
func (g *group) letGo(gone []*balance.Server) {
	for _, s := range gone {
		if e, called := s.Called(); called {
			if v, ok := g.proxy.pools.LoadAndDelete(e); ok {
				v.(*pool).retire()
			}
		}
	}
}

// sizes are what the metrics tell: of those that are ready now. Servers that are called only as there are none any more do not count,
// whether or not anybody calls them.
func (g *group) sizes() (all, out, calls int) {
	calls = int(g.Calls())
	if ready, _ := g.proxy.servers.members.Of(g.key.ServersID); len(ready) == 0 {
		return 0, 0, calls
	}
	servers, left := g.Servers()
	return len(servers), left, calls
}

// pool gives the connections to a server.
func (g *group) pool(s *balance.Server) *pool {
	e := s.Endpoint(g.key.endpoint)
	if v, ok := g.proxy.pools.Load(e); ok {
		return v.(*pool)
	}
	v, _ := g.proxy.pools.LoadOrStore(e, newServerPool(e.Value(), g.proxy.upstreams, g.secured()))
	return v.(*pool)
}

// secured gives what connections with TLS have in common: certificates are parsed once for all servers.
func (g *group) secured() *tls.Config {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.key.endpoint.Value(); g.tls == nil && e.TLS {
		g.tls = clientTLS(e, g.proxy.upstreams.trusted)
	}
	return g.tls
}

// leaves and returns tell of servers that are left alone and those that come back.

func (g *group) leaves(s *balance.Server, f balance.Fault, length time.Duration) {
	what := "a server fails again and again: it is left alone where there is another"
	if f == balance.Refused || f == balance.Silent {
		what = "a server cannot be reached: it is left alone where there is another"
	}
	g.counted.Left.Inc()
	g.log.Info(what, "code", routing.BackendEjected, "servers", nameOf(g.key.ServersID), "upstream", placeOf(s), "for", length.String())
}

func (g *group) returns(s *balance.Server) {
	g.log.Info("a server that was left alone answers again", "code", routing.BackendEjected, "servers", nameOf(g.key.ServersID), "upstream", placeOf(s))
}

func placeOf(s *balance.Server) string {
	return addressOf(routing.Endpoint{Host: s.Address, Port: s.Port})
}
