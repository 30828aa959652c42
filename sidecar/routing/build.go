package routing

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"unique"

	"remora.dev/remora/apis/v1beta1"
)

func backendField(rule, backend int) string {
	return fmt.Sprintf("spec.rules[%d].backendRefs[%d]", rule, backend)
}

// build makes the table out of what was found to run.
func (c *compiler) build() *Table {
	t := &Table{hosts: map[string]*Host{}, trusted: c.trusted, incomplete: c.in.Incomplete, credentials: map[CredentialID]Key{}}
	own := func(namespace string, h *Host) {
		for _, name := range forms(h.Name, namespace) {
			if t.hosts[name] == nil {
				t.hosts[name] = h
			}
		}
	}
	for _, p := range c.providers {
		if !p.runs() && c.brokenByHost[p.id] == nil {
			c.brokenByHost[p.id] = p
		}
	}
	if c.workload != nil && c.workload.Gateway {
		c.listen(t)
		for _, o := range c.mine(c.providers) {
			if selects(o.selector, c.workload) {
				c.addCredentials(t, o)
			}
		}
		return t
	}
	routes, providers := c.mine(c.routes), c.mine(c.providers)
	unreadable := slices.DeleteFunc(slices.Clone(c.in.Unreadable), func(u Unreadable) bool { return !c.sees(u.namespace()) })
	slices.SortStableFunc(unreadable, func(a, b Unreadable) int { return compareRefs(a.Object, b.Object) })

	// The first that owns a name keeps it: routes that run, routes that do not (what they would have
	// decided is not decided by others), providers that serve, then all that is refused.
	for _, o := range routes {
		if o.runs() && o.forSidecars() {
			own(o.object.Namespace, c.routeHost(o, c.sidecar()))
		}
	}
	for _, o := range routes {
		if p := o.firstInvalid(); p != nil {
			c.ownBroken(t, own, o.host, o.object.Namespace, &Refusal{InvalidConfiguration, broken(o.object, p)})
		}
	}
	for _, u := range unreadable {
		if u.Object.Kind == v1beta1.KindLLMRoute {
			c.ownUnreadable(t, own, &u, u.Claims)
		}
	}
	for _, o := range providers {
		if o.runs() && selects(o.selector, c.workload) {
			rule := c.defaultRule(o)
			own(o.namespace(), &Host{Name: strings.ToLower(o.host), Rules: []*Rule{rule}, MaxBody: rule.MaxBody, paths: c.paths(o.path())})
		}
	}
	for _, o := range providers {
		c.refuse(t, own, o)
	}
	for _, u := range unreadable {
		c.ownUnreadable(t, own, &u, u.Hosts)
	}
	for _, o := range routes {
		if o.runs() && !o.forSidecars() {
			c.ownBroken(t, own, o.host, o.object.Namespace, &Refusal{NotForThisWorkload,
				fmt.Sprintf("%s is for gateways only: add %s to its gateways if pods are to call its host by their sidecars", o.object, v1beta1.GatewayMesh)})
		}
	}
	for _, o := range routes {
		for i := range o.route.Spec.Rules {
			for _, b := range o.route.Spec.Rules[i].BackendRefs {
				if b.ProviderHost != "" {
					c.ownBroken(t, own, b.ProviderHost, o.object.Namespace, notFound(salvage(b.ProviderHost), o.object.Namespace))
				}
			}
		}
	}
	for _, o := range providers {
		if selects(o.selector, c.workload) {
			c.addCredentials(t, o)
		}
	}
	return t
}

// mine leaves out the objects of other namespaces than the workload's.
func (c *compiler) mine(objects []*object) []*object {
	if c.workload == nil {
		return objects
	}
	return slices.DeleteFunc(slices.Clone(objects), func(o *object) bool { return !c.sees(o.namespace()) })
}

func (c *compiler) sees(namespace string) bool {
	return c.workload == nil || namespace == c.workload.Namespace
}

func broken(ref Ref, p *Problem) string { return fmt.Sprintf("%s is refused: %s", ref, p) }

func notFound(host, namespace string) *Refusal {
	return &Refusal{ProviderNotFound, fmt.Sprintf("no LLMProvider with host %s is in use in namespace %s: apply one", host, namespace)}
}

// ownUnreadable owns hosts of an object that could not be decoded.
func (c *compiler) ownUnreadable(t *Table, own func(string, *Host), u *Unreadable, hosts []string) {
	for _, host := range hosts {
		c.ownBroken(t, own, host, u.namespace(), &Refusal{InvalidConfiguration, broken(u.Object, &u.Problems[0])})
	}
}

// refuse owns the hosts of providers that do not serve them.
func (c *compiler) refuse(t *Table, own func(string, *Host), o *object) {
	if p := o.firstInvalid(); p != nil {
		c.ownBroken(t, own, o.host, o.namespace(), &Refusal{InvalidConfiguration, broken(o.object, p)})
		return
	}
	own(o.namespace(), &Host{Name: strings.ToLower(o.host), Refusal: &Refusal{NotForThisWorkload,
		fmt.Sprintf("%s does not select this pod: give the pod the labels of its workloadSelector, or call another host", o.object)}})
}

// ownBroken owns what can be made out of a host that may not even be one.
func (c *compiler) ownBroken(t *Table, own func(string, *Host), host, namespace string, r *Refusal) {
	name := salvage(host)
	switch h := (&Host{Name: name, Refusal: r}); {
	case strings.Contains(name, "*"):
		t.wildcards = append(t.wildcards, wildcard{strings.Split(name, "*"), h})
	case name != "":
		own(namespace, h)
	}
}

func (o *object) path() string { return cmp.Or(o.provider.Spec.Path, v1beta1.DefaultPath) }

func (c *compiler) routeHost(o *object, w *where) *Host {
	h := &Host{Name: strings.ToLower(o.host)}
	var known []string
	for _, p := range c.byHost[o.id] {
		known = append(known, p.path())
	}
	for i := range o.route.Spec.Rules {
		r := &o.route.Spec.Rules[i]
		matches, never := matchesOf(r.Matches, o.object.Namespace, w)
		if never { // not for this workload
			h.never = append(h.never, leftOut{len(h.Rules), PassedOver{Owner: o.object.String(), Name: r.Name, Number: i + 1, Why: w.whyNever(r.Matches, o.object.Namespace)}})
			continue
		}
		rule := &Rule{Name: r.Name, Owner: o.object, number: i + 1, matches: matches, Matched: len("/"), Timeouts: timeoutsOf(r.Timeouts), Retries: retriesOf(r.Retries), MaxBody: maxBodyOf(r.Limits)}
		rule.Levels = c.levels(o, r, &known)
		h.Rules, h.MaxBody = append(h.Rules, c.flatten(o, r, rule, w)...), max(h.MaxBody, rule.MaxBody)
	}
	h.paths = c.paths(known...)
	return h
}

// matchesOf compiles the matches of a rule for who executes it. never says that its labels or gateways rule all of them out.
func matchesOf(from []v1beta1.LLMRequestMatch, namespace string, w *where) (out []match, never bool) {
	for i := range from {
		var m match
		if !w.among(gatewayRefs(from[i].Gateways, namespace)) {
			continue
		}
		if w.labels == nil {
			m.labels = from[i].SourceLabels
		} else if !subset(from[i].SourceLabels, w.labels) {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(from[i].Headers)) {
			m.headers = append(m.headers, headerMatch{textproto.CanonicalMIMEHeaderKey(name), newStringMatch(from[i].Headers[name])})
		}
		if from[i].Model != nil {
			s := newStringMatch(*from[i].Model)
			m.model = &s
		}
		if len(m.headers) == 0 && m.model == nil && w.labels != nil {
			return nil, false // always holds for this workload, and so does the rule
		}
		out = append(out, m)
	}
	return out, len(from) > 0 && len(out) == 0
}

func newStringMatch(m v1beta1.StringMatch) stringMatch {
	switch {
	case m.Exact != nil:
		return stringMatch{kind: "exact", value: *m.Exact}
	case m.Prefix != nil:
		return stringMatch{kind: "prefix", value: *m.Prefix}
	case m.Regex != nil:
		return stringMatch{kind: "regex", value: *m.Regex, regex: wholeValue(*m.Regex)}
	}
	return stringMatch{}
}

// wholeValue compiles an expression that was found valid, so that it must match a value as a whole.
func wholeValue(regex string) *regexp.Regexp { return regexp.MustCompile("^(?:" + regex + ")$") }

// levels compiles the backends of a rule, by priority. known gathers the paths of their providers.
func (c *compiler) levels(o *object, r *v1beta1.LLMRule, known *[]string) []Level {
	byPriority := map[int32]*Level{}
	for i := range r.BackendRefs {
		ref := &r.BackendRefs[i]
		b := Backend{Weight: 1}
		if ref.Weight != nil {
			b.Weight = uint32(*ref.Weight)
		}
		b.Target, b.Refusal = c.resolve(o.object.Namespace, ref, r.Name)
		if b.Target != nil {
			*known = append(*known, b.Target.Path)
		}
		l := byPriority[ref.Priority]
		if l == nil {
			l = &Level{}
			byPriority[ref.Priority] = l
		}
		l.Backends = append(l.Backends, b)
		l.total += uint64(b.Weight)
	}
	var out []Level
	for _, p := range slices.Sorted(maps.Keys(byPriority)) {
		out = append(out, *byPriority[p])
	}
	return out
}

// resolve finds the provider that a backend means for this workload.
func (c *compiler) resolve(namespace string, ref *v1beta1.LLMBackendRef, rule string) (*Target, *Refusal) {
	if ref.BackendRef != nil {
		t, r := c.backend(namespace, destinationOf(ref.BackendRef, namespace), v1beta1.DefaultPath)
		if t != nil && ref.HostRewrite != "" {
			t.Authority = ref.HostRewrite
		}
		return t, r
	}
	id := newHostID(ref.ProviderHost, namespace)
	for _, p := range c.byHost[id] {
		if !selects(p.selector, c.workload) {
			continue
		}
		if conf := configFor(p.provider, rule); c.workload != nil && c.workload.Gateway && hasKey(&conf) && p.namespace() != c.workload.Namespace {
			return nil, &Refusal{KeyNotAtGateway, fmt.Sprintf("%s has a key, which gateways have of providers of their own namespace %s only: move it there, with the route, or export it to that namespace", p.object, c.workload.Namespace)}
		}
		return c.target(p, rule, ref.HostRewrite)
	}
	if all := c.byHost[id]; len(all) > 0 {
		return nil, &Refusal{NotForThisWorkload, fmt.Sprintf("%s does not select this pod: give the pod the labels of its workloadSelector", all[0].object)}
	}
	if p := c.brokenByHost[id]; p != nil {
		return nil, &Refusal{InvalidConfiguration, broken(p.object, p.firstInvalid())}
	}
	return nil, notFound(ref.ProviderHost, namespace)
}

func (c *compiler) defaultRule(p *object) *Rule {
	b := Backend{Weight: 1}
	b.Target, b.Refusal = c.target(p, "", "")
	return &Rule{Owner: p.object, Levels: []Level{{Backends: []Backend{b}, total: 1}}, Timeouts: defaultTimeouts, Retries: defaultRetries, MaxBody: DefaultMaxBody}
}

// target is what a rule sends to a provider.
func (c *compiler) target(o *object, rule, hostRewrite string) (*Target, *Refusal) {
	s := &o.provider.Spec
	conf := configFor(o.provider, rule)
	host := strings.ToLower(s.Host)
	e := Endpoint{Host: host, Port: v1beta1.DefaultTLSPort, TLS: true, ServerName: host}
	if t := s.TLS; t != nil {
		if t.Mode == v1beta1.TLSDisable {
			e.TLS, e.ServerName, e.Port = false, "", v1beta1.DefaultPlainPort
		} else {
			e.ServerName, e.CABundle = cmp.Or(strings.ToLower(t.SNI), host), string(t.CABundle)
		}
	}
	if e.TLS && e.CABundle == "" {
		e.TrustedCAs = c.trusted.pem
	}
	authority := host
	if s.Port != nil && uint16(*s.Port) != e.Port {
		e.Port = uint16(*s.Port)
		authority = fmt.Sprintf("%s:%d", host, e.Port)
	}
	var refusal *Refusal
	if e.ClientCert, e.ClientKey, refusal = c.clientCertificate(o); refusal != nil {
		return nil, refusal
	}
	t := &Target{
		Provider: o.object, Endpoint: unique.Make(e), Authority: cmp.Or(hostRewrite, authority), Path: o.path(),
		Model: conf.Model, Stream: conf.Stream != nil && *conf.Stream,
		Auth: authSchemes[s.AuthScheme], Policy: policyOf(s.TrafficPolicy),
	}
	t.Servers, t.Balance = c.spread(o, e.Port)
	t.Query, t.shownQuery = queryOf(s.Query)
	t.RevokedFor = -1
	if s.RevocationGracePeriod != nil {
		t.RevokedFor = s.RevocationGracePeriod.Duration
	}
	t.UIDs = uidsOf(s.AllowedUIDs)
	t.base, t.hasBase = strings.CutSuffix(t.Path, chatSuffix)
	if conf.Model != "" {
		t.JSONModel, _ = json.Marshal(conf.Model) // a string always marshals
	}
	if t.Keys, refusal = c.keys(o, &conf, rule); refusal != nil {
		return nil, refusal
	}
	return t, nil
}
