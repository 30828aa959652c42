package routing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// claim is a VirtualService or an LLMRoute that has a host at a port of a gateway.
type claim struct {
	virtual *virtual // exactly one of these two is set
	route   *object
	where   *where
}

func (k *claim) order() (int64, Ref) {
	if k.virtual != nil {
		return k.virtual.age, k.virtual.object
	}
	return k.route.age, k.route.object
}

// claims are those of the hosts of one table.
type claims map[string][]*claim

func (all claims) add(host string, k *claim) {
	for _, known := range all[host] {
		if known.virtual == k.virtual && known.route == k.route { // by another Gateway on the same port
			merged := *known.where
			merged.gateways = append(slices.Clone(merged.gateways), k.where.gateways...)
			known.where = &merged
			return
		}
	}
	own := *k
	all[host] = append(all[host], &own)
}

// edge is what a gateway's listeners are made of.
type edge struct {
	*compiler
	virtuals map[Ref][]*virtual // by the Gateway that they are bound to, the oldest first
	routes   map[Ref][]*object
	ports    map[uint16]*Listener
	plain    map[uint16]claims
	rules    map[ruled][]*Rule
}

// ruled is what rules are of, which all hosts of a VirtualService share.
type ruled struct {
	virtual *virtual
	where   *where
}

// listen makes the listeners of a gateway.
func (c *compiler) listen(t *Table) {
	e := edge{c, map[Ref][]*virtual{}, map[Ref][]*object{}, map[uint16]*Listener{}, map[uint16]claims{}, map[ruled][]*Rule{}}
	for _, v := range c.virtuals {
		if v.visible(c.workload.Namespace) {
			for _, ref := range v.bound {
				e.virtuals[ref] = append(e.virtuals[ref], v)
			}
		}
	}
	for _, o := range c.routes {
		if o.runs() {
			refs, _ := gatewayRefs(o.route.Spec.Gateways, o.object.Namespace)
			for _, ref := range refs {
				e.routes[ref] = append(e.routes[ref], o)
			}
		}
	}
	selected := slices.DeleteFunc(slices.Clone(c.gateways), func(g *gateway) bool { return !subset(g.source.Spec.Selector, c.workload.Labels) })
	lost := map[*gatewayServer]map[int]bool{}
	for _, k := range settleEdge(selected) {
		if lost[k.loser] == nil {
			lost[k.loser] = map[int]bool{}
		}
		if !k.merged {
			lost[k.loser][k.host] = true
		}
	}
	for _, g := range selected {
		g.used = true
		for _, v := range e.virtuals[g.object] {
			v.used = true
		}
		for _, o := range e.routes[g.object] {
			o.used = true
		}
		for _, s := range g.servers {
			if !lost[s][-1] {
				e.serve(s, lost[s])
			}
		}
	}
	for port, l := range e.ports {
		if !l.TLS {
			hosts := e.hosts(e.plain[port])
			for _, s := range l.Servers {
				s.hosts = hosts
			}
		}
	}
	for _, port := range slices.Sorted(maps.Keys(e.ports)) {
		t.listeners = append(t.listeners, e.ports[port])
	}
}

// serve adds a server to the listener of its port.
func (e *edge) serve(s *gatewayServer, lost map[int]bool) {
	var hosts []gatewayHost
	for i, h := range s.hosts {
		if !lost[i] {
			hosts = append(hosts, h)
		}
	}
	if len(hosts) == 0 {
		return
	}
	l := e.ports[s.port]
	if l == nil {
		l = &Listener{Port: s.port, TLS: s.tls}
		e.ports[s.port], e.plain[s.port] = l, claims{}
	}
	out := &EdgeServer{Gateway: s.of.object, Name: s.name, Refusal: s.refusal, Passthrough: s.passthrough}
	for _, h := range hosts {
		if !slices.Contains(out.Hosts, h.host) {
			out.Hosts = append(out.Hosts, h.host)
		}
		l.byHost.put(h.host, out)
	}
	l.Servers = append(l.Servers, out)
	w := e.sidecar()
	w.gateways, w.port = []Ref{s.of.object}, s.port
	all := e.plain[s.port]
	switch {
	case s.passthrough:
		for _, v := range e.virtuals[s.of.object] {
			e.passThrough(v, s, out, w)
		}
		return
	case s.tls:
		w.scheme, all = "https", claims{}
		if s.refusal == nil {
			e.endTLS(s, out)
		}
	default:
		out.ToHTTPS = s.settings != nil && s.settings.HTTPSRedirect
	}
	for _, v := range e.virtuals[s.of.object] {
		if len(v.routes) == 0 {
			continue
		}
		for _, host := range v.hosts {
			for _, name := range s.admits(v.object.Namespace, host, hosts) {
				all.add(name, &claim{virtual: v, where: w})
			}
		}
	}
	for _, o := range e.routes[s.of.object] {
		for _, name := range s.admits(o.object.Namespace, strings.ToLower(o.host), hosts) {
			all.add(name, &claim{route: o, where: w})
		}
	}
	if s.tls {
		out.hosts = e.hosts(all)
	}
}

// admits gives what of a host of an object of that namespace a server's hosts have: the narrower of the two each time. A short name
// stands for its longer forms.
func (s *gatewayServer) admits(namespace, host string, hosts []gatewayHost) (names []string) {
	written := []string{host}
	if !strings.Contains(host, "*") {
		written = forms(host, namespace)
	}
	for _, h := range hosts {
		if h.namespace != "" && h.namespace != namespace {
			continue
		}
		for _, name := range written {
			if narrow, ok := common(h.host, name); ok && !slices.Contains(names, narrow) {
				names = append(names, narrow)
			}
		}
	}
	return names
}

// hosts makes the table of hosts that were claimed.
func (e *edge) hosts(all claims) (t hostTable[*Host]) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		claimed := all[name]
		slices.SortFunc(claimed, func(a, b *claim) int {
			ageA, refA := a.order()
			ageB, refB := b.order()
			return cmp.Or(cmp.Compare(ageA, ageB), cmp.Compare(refA.Kind, refB.Kind), cmp.Compare(refA.Name, refB.Name), cmp.Compare(refA.Namespace, refB.Namespace))
		})
		t.put(name, e.host(name, claimed))
	}
	return t
}

// host makes a host of those who claim it: of the VirtualServices together, or of the one LLMRoute. The oldest decides which.
func (e *edge) host(name string, claimed []*claim) *Host {
	first := claimed[0]
	_, winner := first.order()
	h := &Host{Name: name, Plain: true, paths: e.plainPaths()}
	if first.route != nil {
		routed := *e.routeHost(first.route, first.where)
		h = &routed
		h.Name = name
	}
	var last []*Rule
	for _, k := range claimed {
		switch {
		case k.route != nil && k != first && first.route != nil: // see settleEdgeRoutes
		case k.route != nil && k != first:
			k.route.conflictOnce("spec.host", "%q at port %d is that of %s, which is older or comes first: this one is not used there", name, k.where.port, winner)
		case k.route != nil:
		case first.route != nil:
			k.virtual.conflictOnce("spec.hosts", "%q at port %d is that of %s, which is older or comes first: this one is not used there", name, k.where.port, winner)
		default:
			for _, rule := range e.rulesOf(k) {
				h.MaxBody = max(h.MaxBody, rule.MaxBody)
				if len(claimed) > 1 && rule.takesAll() { // as in Istio: what others say of some calls goes first
					last = append(last, rule)
					continue
				}
				h.Rules = append(h.Rules, rule)
			}
		}
	}
	for i, rule := range last {
		if i > 0 && rule.Owner != last[0].Owner {
			k := claimed[slices.IndexFunc(claimed, func(k *claim) bool { return k.virtual != nil && k.virtual.object == rule.Owner })]
			k.virtual.conflictOnce(fmt.Sprintf("spec.http[%d]", rule.number-1), "%q at port %d: %s takes every call that nobody else takes already, and is older or comes first", name, k.where.port, last[0].Owner)
		}
	}
	h.Rules = append(h.Rules, last...)
	return h
}

func (e *edge) rulesOf(k *claim) []*Rule {
	of := ruled{k.virtual, k.where}
	rules, known := e.rules[of]
	if !known {
		rules = e.virtualRules(k.virtual, k.where)
		e.rules[of] = rules
	}
	return rules
}

func (r *Rule) takesAll() bool {
	return len(r.matches) == 0 || slices.ContainsFunc(r.matches, func(m match) bool { return m.everyPath() })
}

// conflictOnce warns of a host that another object has, unless that was said already.
func (f *findings) conflictOnce(field, format string, args ...any) {
	f.warn(HostConflict, field, format, args...)
	if last := len(f.list) - 1; slices.Contains(f.list[:last], f.list[last]) {
		f.list = f.list[:last]
	}
}
