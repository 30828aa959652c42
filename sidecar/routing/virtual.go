package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// virtual is a VirtualService. What is wrong with one of its routes refuses the calls that the route takes; the rest of it runs.
type virtual struct {
	findings
	age    int64
	source *istio.VirtualService
	hosts  []string // in lower case: names, *.SUFFIX or *; those that cannot be hosts are left out
	bound  []Ref    // the Gateways that it names
	mesh   bool     // it is for sidecars
	routes []*virtualRoute
	tls    []*tlsRoute
	used   bool     // the workload that is compiled for executes it
	beside *virtual // the one that has a host of its own in sidecars
}

// virtualRoute is one of its routes, as far as it is the same for everybody who executes it.
type virtualRoute struct {
	field    string // spec.http[N]
	name     string
	matches  []virtualMatch // none: every call
	action   *Action        // but for Mirrors
	mirrors  []virtualMirror
	backends []virtualBackend
	timeouts Timeouts
	retries  Retries
	limited  bool     // it says itself how long calls may take
	retried  bool     // it says itself what is tried again
	answers  bool     // it calls no backend
	refusal  *Refusal // why nothing can be done as it says
}

// virtualMatch is a match with the conditions that are known to hold or not before there is a request.
type virtualMatch struct {
	match
	name      string
	scheme    *stringMatch
	port      int64             // 0: any
	labels    map[string]string // of who executes it
	namespace string            // of who executes it; empty: any
	gateways  []Ref             // and mesh; none of both: any
	mesh      bool
	taken     int      // see Rule.Matched
	refusal   *Refusal // it says less than was written
}

type virtualBackend struct {
	destination istio.Destination
	field       string
	weight      uint32
	headers     *HeaderEdits
}

type virtualMirror struct {
	destination istio.Destination
	field       string
	share       float64
}

// judgeVirtuals looks at every VirtualService by itself, the oldest first.
func (c *compiler) judgeVirtuals() {
	seen := map[Ref]bool{}
	for i := range c.in.VirtualServices {
		v := &virtual{source: &c.in.VirtualServices[i]}
		v.object, v.age = Ref{istio.KindVirtualService, v.source.Namespace, v.source.Name}, v.source.CreationTimestamp.Unix()
		if seen[v.object] {
			continue
		}
		seen[v.object] = true
		c.virtuals = append(c.virtuals, v)
	}
	slices.SortFunc(c.virtuals, func(a, b *virtual) int {
		return cmp.Or(cmp.Compare(a.age, b.age), cmp.Compare(a.object.Name, b.object.Name), cmp.Compare(a.object.Namespace, b.object.Namespace))
	})
	c.budget = maxAllExpressions
	for _, v := range c.virtuals {
		c.judgeVirtual(v)
	}
}

// maxAllExpressions bounds the memory of the regular expressions of all VirtualServices together, in bytes.
const maxAllExpressions = 4 * maxExpressions

func (c *compiler) judgeVirtual(v *virtual) {
	spec := &v.source.Spec
	warnRemarks(&v.findings, v.source.Remarks)
	if len(spec.Hosts) == 0 {
		v.warn(NotSupported, "spec.hosts", "is empty, so it is meant to be delegated to, which is not done: give it hosts and gateways of its own")
	}
	for i, written := range spec.Hosts {
		if host := judgeEdgeHost(&v.findings, fmt.Sprintf("spec.hosts[%d]", i), written); host != "" {
			v.hosts = append(v.hosts, host)
		}
	}
	v.bound, v.mesh = gatewayRefs(spec.Gateways, v.object.Namespace)
	if len(spec.Gateways) == 0 && !v.source.Remarks.In("spec.gateways") {
		v.mesh = true
	}
	for i := range spec.HTTP {
		v.routes = append(v.routes, c.judgeHTTPRoute(v, i))
	}
	for i := range spec.TLS {
		v.tls = append(v.tls, v.judgeTLSRoute(i))
	}
	if len(spec.HTTP)+len(spec.TLS) == 0 {
		v.warn(RuleNeverMatches, "spec.http", "is empty: every call to its hosts is answered 404")
	}
}

// gatewayRefs gives the Gateways that are named, and whether the sidecars are among them.
func gatewayRefs(names []string, namespace string) (refs []Ref, mesh bool) {
	for _, name := range names {
		if name == v1beta1.GatewayMesh {
			mesh = true
			continue
		}
		ns, short, qualified := strings.Cut(name, "/")
		if !qualified || ns == "." {
			ns, short = namespace, strings.TrimPrefix(name, "./")
		}
		refs = append(refs, Ref{istio.KindGateway, ns, short})
	}
	return refs, mesh
}

// visible tells whether a VirtualService is there for who executes it in a namespace.
func (v *virtual) visible(namespace string) bool {
	to := v.source.Spec.ExportTo
	return len(to) == 0 || slices.ContainsFunc(to, func(to string) bool {
		return to == "*" || to == namespace || to == "." && namespace == v.object.Namespace
	})
}

// refuse notes what is wrong with a route, and refuses its calls.
func (v *virtual) refuse(r *virtualRoute, field, format string, args ...any) {
	v.invalid(InvalidValue, field, format, args...)
	r.refusal = cmp.Or(r.refusal, &Refusal{InvalidConfiguration, broken(v.object, &v.list[len(v.list)-1])})
}

// wrong refuses a route for the first problem that was found from the given one on, if there is one.
func (v *virtual) wrong(from int) *Refusal {
	for i := from; i < len(v.list); i++ {
		if p := &v.list[i]; p.Severity == Invalid {
			return &Refusal{InvalidConfiguration, broken(v.object, p)}
		}
	}
	return nil
}

func (c *compiler) judgeHTTPRoute(v *virtual, i int) *virtualRoute {
	from := &v.source.Spec.HTTP[i]
	r := &virtualRoute{field: fmt.Sprintf("spec.http[%d]", i), name: from.Name, timeouts: defaultTimeouts}
	before := len(v.list)
	for j := range from.Match {
		r.matches = append(r.matches, c.judgeHTTPMatch(v, fmt.Sprintf("%s.match[%d]", r.field, j), &from.Match[j]))
	}
	if v.source.Remarks.In(r.field+".match") && len(from.Match) == 0 {
		r.refusal = v.partly(r.field + ".match")
	}
	for _, part := range []string{".delegate", ".redirect", ".directResponse", ".route", ".rewrite"} { // which decide who answers, and what
		if v.source.Remarks.In(r.field+part) && (part != ".route" || v.losesDestination(r.field, from)) {
			r.refusal = cmp.Or(r.refusal, v.partly(r.field+part))
		}
	}
	r.answers = from.Redirect != nil || from.DirectResponse != nil
	switch {
	case r.answers && len(from.Route) > 0 || from.Redirect != nil && from.DirectResponse != nil:
		v.refuse(r, r.field, "has more than one of route, redirect and directResponse: keep one")
	case !r.answers && len(from.Route) == 0 && r.refusal == nil:
		v.refuse(r, r.field+".route", "is required: name a destination, or give redirect or directResponse")
	}
	c.judgeAction(v, r, from)
	v.judgeRoute(r, from)
	if t := from.Timeout; t != nil {
		if t.Duration < 0 {
			v.refuse(r, r.field+".timeout", "%s is negative: use a duration such as 30s, or 0s for no limit", t.Duration)
		}
		r.timeouts.Request, r.limited = t.Duration, true
	}
	v.judgeRetries(r, from.Retries)
	r.refusal = cmp.Or(r.refusal, v.wrong(before))
	return r
}

// partly refuses what says less than was written.
func (v *virtual) partly(field string) *Refusal {
	return &Refusal{InvalidConfiguration, fmt.Sprintf("%s says more in %s than is honoured: remove what its status or kubectl apply warns of", v.object, field)}
}

// losesDestination tells whether what was left out of a route's backends is more than their headers.
func (v *virtual) losesDestination(field string, from *istio.HTTPRoute) bool {
	if len(from.Route) == 0 {
		return true
	}
	for i := range from.Route {
		at := fmt.Sprintf("%s.route[%d]", field, i)
		if v.source.Remarks.In(at+".destination") || v.source.Remarks.In(at+".weight") || from.Route[i].Destination.Host == "" {
			return true
		}
	}
	return false
}

func (v *virtual) judgeRoute(r *virtualRoute, from *istio.HTTPRoute) {
	total := uint64(0)
	for j := range from.Route {
		d := &from.Route[j]
		b := virtualBackend{destination: d.Destination, field: fmt.Sprintf("%s.route[%d].destination", r.field, j), weight: uint32(max(d.Weight, 0))}
		v.judgeDestination(r, b.field, &b.destination)
		if d.Weight < 0 || d.Weight > maxWeight {
			v.refuse(r, fmt.Sprintf("%s.route[%d].weight", r.field, j), "%d is out of range: use 0 to %d", d.Weight, maxWeight)
		}
		if len(from.Route) == 1 {
			b.weight = 1
		}
		total += uint64(b.weight)
		if edits := v.headerEdits(fmt.Sprintf("%s.route[%d].headers", r.field, j), d.Headers); !edits.Request.Empty() || !edits.Response.Empty() {
			b.headers = &edits
		}
		r.backends = append(r.backends, b)
	}
	if total == 0 && len(r.backends) > 0 {
		v.refuse(r, r.field+".route", "every weight is 0 or absent, so nothing could answer: give weights")
	}
	if len(r.backends) > v1beta1.MaxBackends {
		v.refuse(r, r.field+".route", "has %d entries: at most %d are allowed", len(r.backends), v1beta1.MaxBackends)
	}
}

func (v *virtual) judgeDestination(r *virtualRoute, field string, d *istio.Destination) {
	if d.Port != nil && (d.Port.Number < 1 || d.Port.Number > 65535) {
		v.refuse(r, field+".port.number", "%d is not a port: use 1 to 65535", d.Port.Number)
	}
	if d.Host == "" {
		v.refuse(r, field+".host", "is required: the name of a Service")
	}
}

func portOf(d *istio.Destination) uint16 {
	if d.Port == nil {
		return 0
	}
	return uint16(d.Port.Number)
}
