package routing

import (
	"cmp"
	"slices"

	"remora.dev/remora/apis/v1beta1"
)

// Compile makes of a configuration what the proxy of a workload runs, and says all that is wrong with
// it, sorted by object. It never fails as a whole: an object with an Invalid problem is left out, and
// its hosts are refused. With no workload it judges for any: every selector and label counts as met.
// The input is not changed.
func Compile(in Objects, forWorkload *Workload) (*Table, []Problem) {
	c := judged(in, false)
	c.workload = forWorkload
	c.trust()
	t := c.build()
	t.executes = c.executes()
	t.generation = t.digest()
	return t, c.problems()
}

// Judge gives the problems that Compile finds, for those who run nothing: it takes a quarter of the time.
func Judge(in Objects) []Problem { return judged(in, false).problems() }

// judged gives a compiler that knows all that is wrong with a configuration, and can build the tables
// of any workloads from it.
func judged(in Objects, presume bool) *compiler {
	c := &compiler{
		in: in, presume: presume, secrets: map[secretID]*Secret{}, brokenByHost: map[hostID]*object{}, operations: map[string]map[string]*Operation{},
	}
	c.judgeSecretNames()
	c.judge()
	c.judgeGateways()
	c.judgeEdgeConflicts()
	c.judgeVirtuals()
	c.settleHosts()
	c.settleEdgeRoutes()
	c.judgeReferences()
	c.judgeVirtualReferences()
	return c
}

// object is what both kinds have in common.
type object struct {
	findings
	age      int64  // creation time, seconds
	to       string // the namespace that it is exported to; empty: it is used in its own
	host     string
	id       hostID
	selector *v1beta1.WorkloadSelector // nil for routes
	provider *v1beta1.LLMProvider      // exactly one of these two is set
	shadowed bool                      // another one of the namespace it is exported to has its host
	route    *v1beta1.LLMRoute
	used     bool // a route: the gateway that is compiled for executes it
}

// namespace is where the object is used.
func (o *object) namespace() string { return cmp.Or(o.to, o.object.Namespace) }

// runs tells whether nothing keeps the object from running.
func (o *object) runs() bool { return !o.shadowed && o.firstInvalid() == nil }

type compiler struct {
	in        Objects
	presume   bool // that every Secret exists that is named, with what is needed of it
	workload  *Workload
	secrets   map[secretID]*Secret
	providers []*object
	routes    []*object
	// byHost finds the providers that run, by namespace and canonical host.
	byHost map[hostID][]*object
	// brokenByHost finds the first provider that does not.
	brokenByHost map[hostID]*object
	// operations are the paths of hosts, shared by all hosts that have the same ones.
	operations   map[string]map[string]*Operation
	strangers    []Problem // of objects that are neither providers nor routes
	virtuals     []*virtual
	gateways     []*gateway
	gatewayByRef map[Ref]*gateway
	meshVirtuals map[hostID]*virtual // by the Service that they are for, in sidecars
	budget       int                 // what is left of maxAllExpressions
	trusted      authorities
	// Of the cluster, once they are asked for.
	destinations *rules
	services     map[hostID]*Service
}

type hostID struct{ namespace, host string }

func newHostID(host, namespace string) hostID { return hostID{namespace, canonical(host, namespace)} }

// judge looks at every object by itself.
func (c *compiler) judge() {
	type place struct {
		object Ref
		to     string
	}
	seen := map[place]bool{}
	// Age decides, then the name: the order in which objects were found decides nothing.
	order := func(a, b *object) int { return cmp.Or(cmp.Compare(a.namespace(), b.namespace()), byAge(a, b)) }
	for i := range c.in.Unreadable {
		seen[place{c.in.Unreadable[i].Object, c.in.Unreadable[i].To}] = true
	}
	add := func(o *object) *object {
		at := place{o.object, o.to}
		if seen[at] {
			o.invalid(DuplicateObject, "metadata.name", "there is another %s: rename one of them, or remove it", o.object)
		}
		seen[at] = true
		o.id = newHostID(o.host, o.namespace())
		return o
	}
	addProvider := func(p *v1beta1.LLMProvider, to string) *object {
		o := &object{
			findings: findings{object: Ref{v1beta1.KindLLMProvider, p.Namespace, p.Name}},
			age:      p.CreationTimestamp.Unix(), host: p.Spec.Host, selector: p.Spec.WorkloadSelector, provider: p, to: to,
		}
		judgeProvider(&o.findings, p)
		return o
	}
	for i := range c.in.Providers {
		c.providers = append(c.providers, add(addProvider(&c.in.Providers[i], "")))
	}
	var exported []*object
	for i := range c.in.Exported {
		if e := &c.in.Exported[i]; e.To != e.Provider.Namespace { // there it is one of its own
			exported = append(exported, add(addProvider(&e.Provider, e.To)))
		}
	}
	for i := range c.in.Routes {
		r := &c.in.Routes[i]
		o := add(&object{
			findings: findings{object: Ref{v1beta1.KindLLMRoute, r.Namespace, r.Name}},
			age:      r.CreationTimestamp.Unix(), host: r.Spec.Host, route: r,
		})
		judgeRoute(&o.findings, r)
		c.routes = append(c.routes, o)
	}
	slices.SortStableFunc(c.providers, order)
	slices.SortStableFunc(exported, order)
	c.providers = append(c.providers, exported...) // what a namespace has itself goes first
	slices.SortStableFunc(c.routes, order)
}

// byAge has the older first, then the one with the lesser name.
func byAge(a, b *object) int {
	return cmp.Or(cmp.Compare(a.age, b.age), cmp.Compare(a.object.Name, b.object.Name))
}

// settleHosts decides who has a host that several objects claim: the oldest, then the lesser name.
func (c *compiler) settleHosts() {
	for _, kind := range [][]*object{c.providers, c.routes} {
		taken := map[hostID][]*object{}
		for _, o := range kind {
			rival := slices.IndexFunc(taken[o.id], func(r *object) bool { return !disjoint(o.selector, r.selector) && meet(o, r) })
			if rival < 0 {
				if o.runs() {
					taken[o.id] = append(taken[o.id], o)
				}
				continue
			}
			first := taken[o.id][rival]
			if o.to != "" && first.to == "" {
				o.shadowed = true
				first.warn(HostConflict, "spec.host", "%q is also that of %s, which is exported to this namespace: this one is used", first.host, o.object)
			} else if o.route != nil {
				o.invalid(HostConflict, "spec.host", "%q has a route already, %s, which is older or has the lesser name: add the rules there, or remove one of the two", o.host, first.object)
			} else {
				o.invalid(HostConflict, "spec.host", "%q has a provider already, %s, which is older or has the lesser name: change the host, or give the two workloadSelectors that no pod can match both of", o.host, first.object)
			}
		}
		if c.byHost == nil {
			c.byHost = taken
		}
	}
}

// judgeReferences looks at what objects say of each other and of Secrets.
func (c *compiler) judgeReferences() {
	rules := map[string]map[string]bool{} // namespace → names of rules
	for _, o := range c.routes {
		for i := range o.route.Spec.Rules {
			if rules[o.object.Namespace] == nil {
				rules[o.object.Namespace] = map[string]bool{}
			}
			if name := o.route.Spec.Rules[i].Name; name != "" {
				rules[o.object.Namespace][name] = true
			}
		}
		c.judgeRouteReferences(o)
		c.judgeRouteGateways(o)
		c.judgeFlattening(o)
	}
	for _, o := range c.providers {
		if o.to != "" {
			continue // it is judged where it is
		}
		for name := range o.provider.Spec.Configs.RouteSpecificConfigs {
			if !rules[o.object.Namespace][name] && !exported(&o.provider.Spec, o.object.Namespace) { // others have rules, too
				o.warn(RouteConfigUnused, "spec.configs.routeSpecificConfigs["+name+"]", "no LLMRoute has a rule named %q: correct the name, or add the rule", name)
			}
		}
		c.judgeSecrets(o)
		c.judgeSpread(o)
	}
}

func (c *compiler) judgeRouteReferences(o *object) {
	for i := range o.route.Spec.Rules {
		rule := &o.route.Spec.Rules[i]
		for j := range rule.BackendRefs {
			b := &rule.BackendRefs[j]
			field := backendField(i, j)
			if b.BackendRef != nil {
				c.judgeBackendReference(o, field+".backendRef", b.BackendRef)
			}
			if b.ProviderHost == "" || o.hasInvalid(field+".providerHost") {
				continue
			}
			providers := c.byHost[newHostID(b.ProviderHost, o.object.Namespace)]
			if len(providers) == 0 {
				o.add(Unresolved, ProviderNotFound, field+".providerHost", "no LLMProvider with host %s is in use in namespace %s: its share of the calls fails until there is one", b.ProviderHost, o.object.Namespace)
			}
			for _, p := range providers {
				if conf := configFor(p.provider, rule.Name); b.HostRewrite != "" && hasKey(&conf) {
					o.invalid(InvalidValue, field+".hostRewrite", "%s sends a key with these calls, which must reach no other host: remove hostRewrite", p.object)
				}
			}
		}
	}
}

func (c *compiler) problems() []Problem {
	all := c.strangers
	for _, u := range c.in.Unreadable {
		all = append(all, u.Problems...)
	}
	for _, kind := range [][]*object{c.providers, c.routes} {
		for _, o := range kind {
			if c.workload == nil || !c.workload.Gateway || o.used || o.provider != nil && c.sees(o.namespace()) {
				all = append(all, o.list...)
			}
		}
	}
	for _, v := range c.virtuals {
		if v.used || c.workload == nil || v.beside != nil && v.beside.used {
			all = append(all, v.list...)
		}
	}
	for _, g := range c.gateways {
		if g.used || c.workload == nil {
			all = append(all, g.list...)
		}
	}
	for _, d := range c.destinationRules().all {
		all = append(all, d.list...)
	}
	sortProblems(all)
	return slices.Compact(all) // what several configs of a provider share is one problem
}
