package routing

import (
	"slices"
)

// virtualRules gives the rules of a VirtualService for who executes it: one for each match that can hold there, since a match decides
// what of a path is rewritten.
func (c *compiler) virtualRules(v *virtual, w *where) (rules []*Rule) {
	for i, r := range v.routes {
		var levels []Level
		var action *Action
		add := func(m *virtualMatch) {
			rule := &Rule{
				Name: r.name, Owner: v.object, number: i + 1, Timeouts: r.timeouts, Retries: r.retries, MaxBody: DefaultMaxBody, Matched: len("/"),
			}
			var refusal *Refusal
			if m != nil {
				if !m.always() {
					rule.matches = []match{m.match}
				}
				rule.Name, rule.Matched, refusal = ruleName(r.name, m.name), m.taken, m.refusal
			}
			if refusal != nil {
				rule.Levels = []Level{refusing(refusal)}
				rules = append(rules, rule)
				return
			}
			if levels == nil {
				levels, action = c.virtualLevels(v, r), c.virtualAction(v, r)
			}
			rule.Levels, rule.Action = levels, action
			rules = append(rules, rule)
		}
		if len(r.matches) == 0 {
			add(nil)
		}
		for j := range r.matches {
			if m := &r.matches[j]; m.possible(w) {
				if w.labels == nil && len(m.labels) > 0 && len(m.gateways) == 0 && !m.mesh {
					shown := *m
					shown.match.labels, m = m.labels, &shown
				}
				add(m)
			}
		}
	}
	return rules
}

// refusing is a level that answers every call with the reason why it cannot be served.
func refusing(r *Refusal) Level {
	return Level{Backends: []Backend{{Weight: 1, Refusal: r}}, total: 1}
}

func (c *compiler) virtualLevels(v *virtual, r *virtualRoute) []Level {
	if r.answers && r.refusal == nil {
		return []Level{}
	}
	return []Level{c.virtualLevel(v, r.backends, r.refusal)}
}

func (c *compiler) virtualLevel(v *virtual, backends []virtualBackend, refusal *Refusal) (l Level) {
	if refusal != nil {
		return refusing(refusal)
	}
	for i := range backends {
		d := &backends[i]
		b := Backend{Weight: d.weight, Headers: d.headers}
		b.Target, b.Refusal = c.destination(v.object.Namespace, &d.destination, "")
		l.Backends, l.total = append(l.Backends, b), l.total+uint64(b.Weight)
	}
	return l
}

func (c *compiler) virtualAction(v *virtual, r *virtualRoute) *Action {
	if r.action == nil || r.refusal != nil || len(r.mirrors) == 0 {
		if r.refusal != nil {
			return nil
		}
		return r.action
	}
	a := *r.action
	for i := range r.mirrors {
		m := Mirror{Share: r.mirrors[i].share}
		d := &r.mirrors[i].destination
		m.Target, m.Refusal = c.destination(v.object.Namespace, d, "")
		a.Mirrors = append(a.Mirrors, m)
	}
	return &a
}

// judgeVirtualReferences looks at what VirtualServices say of Services and Gateways.
func (c *compiler) judgeVirtualReferences() {
	for _, v := range c.virtuals {
		c.judgeBindings(v)
		if c.in.Services == nil {
			continue
		}
		for _, r := range v.routes {
			for i := range r.backends {
				v.unresolved(r.backends[i].field, c.refusalOf(v, &r.backends[i]))
			}
			for i := range r.mirrors {
				_, refusal := c.destination(v.object.Namespace, &r.mirrors[i].destination, "")
				v.unresolved(r.mirrors[i].field, refusal)
			}
		}
		for _, r := range v.tls {
			for i := range r.backends {
				v.unresolved(r.backends[i].field, c.refusalOf(v, &r.backends[i]))
			}
		}
		v.judgeOrder()
	}
}

func (c *compiler) refusalOf(v *virtual, b *virtualBackend) *Refusal {
	_, refusal := c.destination(v.object.Namespace, &b.destination, "")
	return refusal
}

func (v *virtual) unresolved(field string, r *Refusal) {
	if r != nil && !v.hasInvalid(field+".host") {
		v.add(Unresolved, r.Code, field, "%s; until then the calls that need it fail", r.Message)
	}
}

// judgeBindings looks at the Gateways that a VirtualService names, and whether they have its hosts.
func (c *compiler) judgeBindings(v *virtual) {
	if c.in.Services == nil && len(c.gateways) == 0 {
		return // it is not known which there are
	}
	for _, ref := range v.bound {
		g := c.gatewayNamed(ref)
		if g == nil {
			v.add(Unresolved, GatewayNotFound, "spec.gateways", "%s does not exist: create it, or write NAMESPACE/NAME if it is in another namespace", ref)
			continue
		}
		if len(v.routes) == 0 {
			continue
		}
		served := func(host string) bool {
			return slices.ContainsFunc(g.servers, func(s *gatewayServer) bool { return len(s.admits(v.object.Namespace, host, s.hosts)) > 0 })
		}
		for _, host := range v.hosts {
			if !served(host) && (!v.mesh || !slices.ContainsFunc(v.hosts, served)) { // some of its hosts may be for the sidecars
				v.warn(HostNotServed, "spec.hosts", "%q is of no server of %s, so that nobody reaches it there: add it to the hosts of a server, or correct it", host, ref)
			}
		}
	}
}

// judgeOrder warns about routes that can never match because an earlier one takes every call.
func (v *virtual) judgeOrder() {
	first := -1
	for i, r := range v.routes {
		if first >= 0 {
			v.warn(RuleNeverMatches, r.field, "can never match: %s takes every call before it; change their order or their matches", v.routes[first].field)
		} else if len(r.matches) == 0 || slices.ContainsFunc(r.matches, func(m virtualMatch) bool { return m.takesAll() }) {
			first = i
		}
	}
}

func (m *virtualMatch) takesAll() bool {
	return m.refusal == nil && !m.mesh && m.port == 0 && m.scheme == nil && len(m.labels)+len(m.gateways) == 0 && m.namespace == "" && m.everyPath()
}

// everyPath tells whether it holds for every request that names a path.
func (m *match) everyPath() bool {
	if m.uri != nil && m.uri.kind == "prefix" && (m.uri.value == "/" || m.uri.value == "") {
		rest := *m
		rest.uri = nil
		return rest.always()
	}
	return m.always()
}

// String names a server as problems do.
