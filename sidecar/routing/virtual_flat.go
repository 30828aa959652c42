package routing

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// A sidecar executes a VirtualService only where a rule of an LLMRoute sends calls to the Service that it is for. Then the rule is
// replaced by one for each way that the calls can go: each combination of a route of every VirtualService that is concerned. They come
// in lexicographic order, so that the first which holds is made of the first route that holds of each.

// way is a route of a VirtualService, by one of its matches.
type way struct {
	virtual *virtual
	route   *virtualRoute // nil: no route matches
	match   *virtualMatch // nil: always
}

// maxMerged is how many backends a level can have (see Level.Pick).
const maxMerged = 64

// flatten replaces a rule of a route by those that the VirtualServices for its backends make of it.
func (c *compiler) flatten(o *object, r *v1beta1.LLMRule, rule *Rule, w *where) []*Rule {
	if len(w.gateways) > 0 || len(c.virtuals) == 0 {
		return []*Rule{rule}
	}
	refs := refsOf(r.BackendRefs)
	of, ways, size := c.waysOf(o, refs, w)
	switch {
	case len(ways) == 0:
		return []*Rule{rule}
	case size > v1beta1.MaxRules:
		rule.Levels = []Level{refusing(&Refusal{InvalidConfiguration, fmt.Sprintf("%s: the VirtualServices for the backends of %s make over %d rules of it: use fewer matches there", o.object, rule.words(), v1beta1.MaxRules)})}
		return []*Rule{rule}
	}
	var rules []*Rule
	for n := range size {
		chosen := make([]way, len(ways))
		for i := len(ways) - 1; i >= 0; i-- {
			chosen[i] = ways[i][n%len(ways[i])]
			n /= len(ways[i])
		}
		made := c.combine(rule, refs, of, chosen)
		rules = append(rules, made)
		if len(made.matches) == 0 {
			break // the rest never matches
		}
	}
	return rules
}

// waysOf gives what each VirtualService that is concerned may do with a call to its port; of gives, for each backend, which of them it is
// for, or -1. size is how many combinations there are, or something over the limit.
func (c *compiler) waysOf(o *object, refs []*v1beta1.LLMBackendRef, w *where) (of []int, ways [][]way, size int) {
	type asked struct {
		virtual *virtual
		port    uint16
	}
	known := map[asked]int{}
	size = 1
	for _, ref := range refs {
		v := c.meshVirtual(o.object.Namespace, ref)
		if v == nil {
			of = append(of, -1)
			continue
		}
		v.used = true
		calling := w.calling(ref)
		at, ok := known[asked{v, calling.port}]
		if !ok {
			at = len(ways)
			known[asked{v, calling.port}] = at
			ways = append(ways, v.ways(calling))
			size = min(size*len(ways[at]), v1beta1.MaxRules+1)
		}
		of = append(of, at)
	}
	return of, ways, size
}

// calling gives who executes the rules of a backend, whose port they may ask for.
func (w *where) calling(ref *v1beta1.LLMBackendRef) *where {
	out := *w
	if p := ref.BackendRef.Port; p != nil {
		out.port = uint16(*p)
	}
	return &out
}

func (r *Rule) words() string { return cmp.Or(r.Name, fmt.Sprintf("rule %d", r.number)) }

// refsOf gives the backends of a rule in the order of its levels.
func refsOf(refs []v1beta1.LLMBackendRef) (out []*v1beta1.LLMBackendRef) {
	for i := range refs {
		out = append(out, &refs[i])
	}
	slices.SortStableFunc(out, func(a, b *v1beta1.LLMBackendRef) int { return cmp.Compare(a.Priority, b.Priority) })
	return out
}

// meshVirtual finds the VirtualService for a backend that is a Service: the oldest, as with Istio.
func (c *compiler) meshVirtual(namespace string, ref *v1beta1.LLMBackendRef) *virtual {
	b := ref.BackendRef
	if b == nil || b.Kind != "" && b.Kind != KindService || b.Group != "" || b.Namespace != "" && b.Namespace != namespace {
		return nil
	}
	if c.meshVirtuals == nil {
		c.meshVirtuals = map[hostID]*virtual{}
		for _, v := range c.virtuals {
			for _, host := range v.hosts {
				id := newHostID(host, v.object.Namespace)
				if !v.mesh || len(v.routes) == 0 || strings.Contains(host, "*") || !v.visible(v.object.Namespace) {
					continue
				}
				if first := c.meshVirtuals[id]; first != nil {
					v.beside = first
					v.conflictOnce("spec.hosts", "%q has %s in sidecars, which is older or has the lesser name: put the routes there, or remove one of the two", host, first.object)
					continue
				}
				c.meshVirtuals[id] = v
			}
		}
	}
	return c.meshVirtuals[newHostID(b.Name, namespace)]
}

// ways gives all that a VirtualService may do with a call, in order; the last one holds always.
func (v *virtual) ways(w *where) (all []way) {
	for _, r := range v.routes {
		if len(r.matches) == 0 {
			return append(all, way{v, r, nil})
		}
		for j := range r.matches {
			m := &r.matches[j]
			if !m.possible(w) {
				continue
			}
			all = append(all, way{v, r, m})
			if m.always() && m.refusal == nil && w.labels != nil {
				return all
			}
		}
	}
	return append(all, way{v, nil, nil})
}

// combine makes the rule of one combination.
func (c *compiler) combine(rule *Rule, refs []*v1beta1.LLMBackendRef, of []int, chosen []way) *Rule {
	made := *rule
	var and []*match
	for i := range chosen {
		m := chosen[i].match
		if m == nil {
			continue
		}
		needed := m.match
		if c.workload == nil {
			needed.labels = m.labels
		}
		if !needed.always() {
			and = append(and, &needed)
		}
	}
	if len(and) > 0 {
		made.matches = nil
		for i := range rule.matches {
			m := rule.matches[i]
			m.and = and
			made.matches = append(made.matches, m)
		}
		if len(rule.matches) == 0 {
			made.matches = []match{{and: and}}
			if len(and) == 1 {
				made.matches = []match{*and[0]}
			}
		}
	}
	made.Levels = nil
	at := 0
	for _, l := range rule.Levels {
		parts := make([][]Backend, len(l.Backends))
		for i := range l.Backends {
			if parts[i] = []Backend{l.Backends[i]}; of[at] < 0 {
				parts[i][0].Weight = 1
			} else {
				parts[i] = c.inner(&l.Backends[i], refs[at], &chosen[of[at]], len(refs))
			}
			at++
		}
		merged := merge(l.Backends, parts)
		if len(merged.Backends) > maxMerged {
			merged = refusing(&Refusal{InvalidConfiguration, fmt.Sprintf("%s: with those of the VirtualServices, %s has over %d backends: use fewer", rule.Owner, rule.words(), maxMerged)})
		}
		made.Levels = append(made.Levels, merged)
	}
	if way := &chosen[0]; len(refs) == 1 && way.route != nil && way.refusal() == nil {
		c.adopt(&made, way)
	}
	return &made
}

func (w *way) refusal() *Refusal {
	switch {
	case w.route == nil:
		return &Refusal{NoRuleMatches, fmt.Sprintf("%s has no route for this call: add one without match", w.virtual.object)}
	case w.match != nil && w.match.refusal != nil:
		return w.match.refusal
	}
	return w.route.refusal
}

// inner gives what a VirtualService puts in the place of a backend.
func (c *compiler) inner(b *Backend, ref *v1beta1.LLMBackendRef, chosen *way, backends int) []Backend {
	refusal := chosen.refusal()
	if refusal == nil && chosen.route.answers && backends > 1 { // what is not let through to a backend by itself is not by chance
		refusal = &Refusal{InvalidConfiguration, fmt.Sprintf("%s answers this call itself in %s, which is not honoured where a rule has several backends: give the rule one", chosen.virtual.object, chosen.route.field)}
	}
	if refusal != nil {
		return []Backend{{Weight: 1, Refusal: refusal}}
	}
	if chosen.route.answers {
		return []Backend{*b}
	}
	path := v1beta1.DefaultPath
	if b.Target != nil {
		path = b.Target.Path
	}
	var out []Backend
	for i := range chosen.route.backends {
		d := &chosen.route.backends[i]
		inner := Backend{Weight: d.weight, Headers: d.headers}
		if inner.Target, inner.Refusal = c.destination(chosen.virtual.object.Namespace, &d.destination, path); inner.Target != nil && ref.HostRewrite != "" {
			inner.Target.Authority = ref.HostRewrite
		}
		out = append(out, inner)
	}
	return out
}

// merge makes a level in which the parts of each backend have its share together.
func merge(outer []Backend, parts [][]Backend) (l Level) {
	var weights []float64
	whole, exact := uint64(1), true
	for _, p := range parts {
		whole *= sum(p)
		exact = exact && whole <= math.MaxUint32/v1beta1.MaxBackends
	}
	for i, p := range parts {
		total := sum(p)
		for _, b := range p {
			l.Backends = append(l.Backends, b)
			if exact {
				weights = append(weights, float64(outer[i].Weight)*float64(b.Weight)*float64(whole/total))
			} else {
				weights = append(weights, float64(outer[i].Weight)*float64(b.Weight)/float64(total))
			}
		}
	}
	scale := 1.0
	if most := slices.Max(weights); most > maxWeight || !exact {
		scale = maxWeight / max(most, 1e-9)
	}
	divisor := uint64(0)
	for i := range l.Backends {
		l.Backends[i].Weight = uint32(math.Round(weights[i] * scale))
		if weights[i] > 0 {
			l.Backends[i].Weight = max(l.Backends[i].Weight, 1)
		}
		divisor = gcd(divisor, uint64(l.Backends[i].Weight))
	}
	for i := range l.Backends {
		l.Backends[i].Weight /= uint32(max(divisor, 1))
		l.total += uint64(l.Backends[i].Weight)
	}
	return l
}

func sum(backends []Backend) (n uint64) {
	for i := range backends {
		n += uint64(backends[i].Weight)
	}
	return n
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// adopt takes from a route what it says of the whole call, where the rule has no other backend.
func (c *compiler) adopt(made *Rule, chosen *way) {
	r := chosen.route
	if r.limited {
		made.Timeouts.Request = r.timeouts.Request
	}
	if r.retried {
		made.Retries = r.retries
		if r.timeouts.FirstToken != defaultTimeouts.FirstToken {
			made.Timeouts.FirstToken = r.timeouts.FirstToken
		}
	}
	made.Action = c.virtualAction(chosen.virtual, r)
	if chosen.match != nil {
		made.Matched = chosen.match.taken
	}
	if r.answers {
		made.Levels = []Level{}
	}
}

// judgeFlattening reports what VirtualServices cannot do for a route's backends.
func (c *compiler) judgeFlattening(o *object) {
	w := c.sidecar()
	for i := range o.route.Spec.Rules {
		r := &o.route.Spec.Rules[i]
		_, _, size := c.waysOf(o, refsOf(r.BackendRefs), w)
		for j := range r.BackendRefs {
			v := c.meshVirtual(o.object.Namespace, &r.BackendRefs[j])
			if v == nil || len(r.BackendRefs) == 1 {
				continue
			}
			if slices.ContainsFunc(v.routes, func(r *virtualRoute) bool { return r.action != nil || r.answers || r.limited || r.retried }) {
				o.warn(FieldNotHonoured, backendField(i, j), "%s has routes with more than matches and destinations, such as timeouts, retries, faults or rewrites: they are not honoured where a rule has several backends", v.object)
			}
		}
		if size > v1beta1.MaxRules {
			o.add(Unresolved, InvalidConfiguration, fmt.Sprintf("spec.rules[%d]", i), "the VirtualServices for its backends make over %d rules of it, so its calls are answered 503: use fewer matches there", v1beta1.MaxRules)
		}
	}
}

// destination finds what a VirtualService of a namespace sends calls to. path is that of chat completions; empty: every path goes out
// as it is, and so does the authority.
func (c *compiler) destination(namespace string, from *istio.Destination, path string) (*Target, *Refusal) {
	d, ok := serviceNamed(from.Host, namespace)
	if !ok {
		return nil, &Refusal{ServiceNotFound, fmt.Sprintf("%q is not the name of a Service: write NAME, or NAME.NAMESPACE.svc.cluster.local", presentable(from.Host))}
	}
	d.subset, d.port = from.Subset, portOf(from)
	t, refusal := c.backend(namespace, d, path)
	if t != nil && path == "" {
		t.Authority = ""
	}
	return t, refusal
}
