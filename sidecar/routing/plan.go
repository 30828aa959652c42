package routing

import (
	"reflect"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

// Plan says in plain words what an edit does to traffic: one sentence for each change that calls would
// notice, what matters most first, and none where all calls fare as before. Both configurations are those
// of one namespace, whole or as far as they have to do with the objects that differ; one object should
// differ, and where there are others, at least one of them must be there. Where Secrets are nil, every Secret that is named is taken to exist.
//
// There are at most 12 sentences of at most 200 bytes each, without control characters: the last says how
// many more there would be. Neither a key nor the value that a credential must have to match is shown. The
// input is not changed.
func Plan(before, after Objects) []string {
	e := newEdit(&before, &after)
	if len(e.hosts.names) == 0 {
		return nil
	}
	earlier, later := e.part(&before), e.part(&after)
	heaviest := max(expressions(&earlier), expressions(&later))
	if heaviest > maxExpressions {
		return []string{"these routes have more regular expressions than are compared here: what the edit does to calls is not said"}
	}
	was, is := judged(earlier, e.presume), judged(later, e.presume)
	pods := e.pods(was, is)
	if most := 2 + maxExpressions/max(heaviest, 1); len(pods) > most {
		pods = pods[:most]
	}
	said := map[change][]int{} // in which of pods a change is seen
	never, left := is.neverMatching(), maxComparing
	for i, labels := range pods {
		w := &Workload{Namespace: e.namespace, Labels: labels}
		was.workload, is.workload = w, w
		c := comparison{edit: e, before: was.build(), after: is.build(), never: never, left: &left}
		for _, found := range c.changes() {
			said[found] = append(said[found], i)
		}
	}
	for _, c := range e.exports(&before, &after) {
		said[c] = make([]int, len(pods)) // of every pod
	}
	return e.sentences(said, pods)
}

// What bounds the time and the length of a plan.
const (
	maxSentences = 12
	maxSentence  = 200       // bytes; the API server cuts warnings at 256, and at 4096 all together
	maxHosts     = 100       // that are compared, of those that have routes to an edited provider
	maxPods      = 12        // different pods
	maxKinds     = 1000      // of calls to one host
	maxComparing = 1_000_000 // of calls with matches
	maxOfOneHost = 300_000   // of these

	// stepsPerComparison is how many steps of a regular expression take as long as one comparison.
	stepsPerComparison = 64
)

// edit is what differs between two configurations, and what that may have to do with.
type edit struct {
	namespace string
	presume   bool
	changed   map[Ref]bool
	// hosts are those whose calls may fare differently.
	hosts hostSet
	// providers are the hosts of the providers that differ.
	providers hostSet
	// rules are the names of rules for which one of these providers has a config of its own.
	rules map[string]bool
	// uncompared is how many hosts with routes to such a provider are beyond maxHosts.
	uncompared int
	// last says that the edit leaves nothing, so that pods that start after it have no configuration.
	last bool
}

func newEdit(before, after *Objects) *edit {
	e := &edit{last: !after.Incomplete && after.empty(), presume: before.Secrets == nil || after.Secrets == nil, changed: map[Ref]bool{}, rules: map[string]bool{}}
	secrets := map[string]bool{}
	if !e.presume {
		differing(before.Secrets, after.Secrets,
			func(s *Secret) Ref { return Ref{"Secret", s.Namespace, s.Name} },
			func(a, b *Secret) bool { return reflect.DeepEqual(a, b) },
			func(ref Ref, _ *Secret) { secrets[ref.Namespace+"/"+ref.Name] = true })
	}
	var providers []*v1beta1.LLMProvider
	differing(before.Providers, after.Providers,
		func(p *v1beta1.LLMProvider) Ref { return Ref{v1beta1.KindLLMProvider, p.Namespace, p.Name} },
		func(a, b *v1beta1.LLMProvider) bool {
			return a.CreationTimestamp.Equal(&b.CreationTimestamp) && reflect.DeepEqual(a.Spec, b.Spec) && !namesOneOf(a, secrets)
		},
		func(ref Ref, p *v1beta1.LLMProvider) { e.add(ref); providers = append(providers, p) })
	var routes []*v1beta1.LLMRoute
	differing(before.Routes, after.Routes,
		func(r *v1beta1.LLMRoute) Ref { return Ref{v1beta1.KindLLMRoute, r.Namespace, r.Name} },
		func(a, b *v1beta1.LLMRoute) bool {
			return a.CreationTimestamp.Equal(&b.CreationTimestamp) && reflect.DeepEqual(a.Spec, b.Spec)
		},
		func(ref Ref, r *v1beta1.LLMRoute) { e.add(ref); routes = append(routes, r) })
	var unreadable []*Unreadable
	differing(before.Unreadable, after.Unreadable,
		func(u *Unreadable) Ref { return u.Object },
		func(a, b *Unreadable) bool { return reflect.DeepEqual(a, b) },
		func(ref Ref, u *Unreadable) { e.add(ref); unreadable = append(unreadable, u) })

	e.hosts.namespace, e.providers.namespace = e.namespace, e.namespace
	for _, p := range providers {
		e.hosts.add(p.Spec.Host)
		e.providers.add(p.Spec.Host)
		for name := range p.Spec.Configs.RouteSpecificConfigs {
			e.rules[name] = true
		}
	}
	for _, r := range routes {
		e.hosts.add(r.Spec.Host)
		for host := range backendHosts(r) {
			e.hosts.add(host)
		}
	}
	for _, u := range unreadable {
		for _, host := range u.Hosts {
			e.hosts.add(host)
			e.providers.add(host) // it may have been a provider that could be read
		}
	}
	if len(e.providers.names) > 0 {
		e.addUsers(before, after)
	}
	return e
}

func (e *edit) add(ref Ref) {
	e.changed[ref] = true
	if e.namespace == "" || ref.Namespace < e.namespace {
		e.namespace = ref.Namespace
	}
}

// addUsers adds the hosts of the routes that name one of the providers: first those that may fare
// differently from the others.
func (e *edit) addUsers(before, after *Objects) {
	var special, plain []string
	for _, in := range []*Objects{before, after} {
		for i := range in.Routes {
			r := &in.Routes[i]
			if r.Namespace != e.namespace {
				continue
			}
			uses, specially := false, false
			for j := range r.Spec.Rules {
				for k := range r.Spec.Rules[j].BackendRefs {
					if b := &r.Spec.Rules[j].BackendRefs[k]; e.providers.has(b.ProviderHost) {
						uses, specially = true, specially || b.HostRewrite != "" || e.rules[r.Spec.Rules[j].Name]
					}
				}
			}
			if specially {
				special = append(special, r.Spec.Host)
			} else if uses {
				plain = append(plain, r.Spec.Host)
			}
		}
	}
	slices.Sort(special)
	slices.Sort(plain)
	for n, host := range slices.Compact(append(slices.Compact(special), slices.Compact(plain)...)) {
		if n < maxHosts {
			e.hosts.add(host)
		} else if !e.hosts.has(host) {
			e.uncompared++
		}
	}
}

// part gives the objects that have a say in the hosts of the edit.
func (e *edit) part(in *Objects) Objects {
	out := Objects{
		Exported: in.Exported, Secrets: in.Secrets, Unreadable: in.Unreadable, Incomplete: in.Incomplete,
		Services: in.Services, InferencePools: in.InferencePools, VirtualServices: in.VirtualServices, DestinationRules: in.DestinationRules,
	}
	need := hostSet{namespace: e.namespace}
	owned := map[string]bool{} // the hosts of the edit that a route names in its backends: one that does is enough
	for i := range in.Routes {
		r := &in.Routes[i]
		if r.Namespace != e.namespace {
			continue
		}
		keep := strings.Contains(r.Spec.Host, "*")
		if e.hosts.has(r.Spec.Host) {
			keep = true
			for host := range backendHosts(r) {
				need.add(host)
			}
		}
		for host := range backendHosts(r) {
			if !owned[host] && (strings.Contains(host, "*") || e.hosts.has(host)) {
				owned[host], keep = true, true
			}
		}
		if keep {
			out.Routes = append(out.Routes, *r)
		}
	}
	for i := range in.Providers {
		if p := &in.Providers[i]; p.Namespace == e.namespace && (e.hosts.has(p.Spec.Host) || need.has(p.Spec.Host) || strings.Contains(p.Spec.Host, "*")) {
			out.Providers = append(out.Providers, *p)
		}
	}
	return out
}

// differing calls found with every object that is only in one of the lists, or not the same in both.
func differing[T any](before, after []T, name func(*T) Ref, same func(a, b *T) bool, found func(Ref, *T)) {
	known := make(map[Ref]*T, len(before))
	for i := range before {
		known[name(&before[i])] = &before[i]
	}
	for i := range after {
		ref := name(&after[i])
		b, ok := known[ref]
		if ok && same(b, &after[i]) {
			delete(known, ref)
			continue
		}
		found(ref, &after[i])
	}
	for i := range before { // in order, not as the map has it
		if ref := name(&before[i]); known[ref] == &before[i] {
			found(ref, &before[i])
		}
	}
}

func namesOneOf(p *v1beta1.LLMProvider, secrets map[string]bool) bool {
	if len(secrets) == 0 {
		return false
	}
	names := func(c *v1beta1.ProviderConfig) bool {
		return slices.ContainsFunc(keyRefs(&c.OpenAIConfig), func(ref v1beta1.WeightedKeyReference) bool { return secrets[p.Namespace+"/"+ref.Name] })
	}
	found := names(&p.Spec.Configs.DefaultConfig)
	for _, c := range p.Spec.Configs.RouteSpecificConfigs {
		found = found || names(&c)
	}
	t := p.Spec.TLS
	return found || t != nil && t.ClientCertificateRef != nil && secrets[p.Namespace+"/"+t.ClientCertificateRef.Name]
}

func backendHosts(r *v1beta1.LLMRoute) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := range r.Spec.Rules {
			for j := range r.Spec.Rules[i].BackendRefs {
				if host := r.Spec.Rules[i].BackendRefs[j].ProviderHost; host != "" && !yield(host) {
					return
				}
			}
		}
	}
}

// hostSet is a set of hosts, in whatever form they are written.
type hostSet struct {
	namespace string
	names     map[string]bool // canonical
	labels    map[string]bool // the first labels of names, by which most other hosts are told apart at little cost
}

func (s *hostSet) add(host string) {
	if s.names == nil {
		s.names, s.labels = map[string]bool{}, map[string]bool{}
	}
	for _, written := range [2]string{host, salvage(host)} {
		if name := canonical(written, s.namespace); name != "" {
			s.names[name], s.labels[firstLabel(name)] = true, true
		}
	}
}

func (s *hostSet) has(host string) bool {
	if !strings.ContainsFunc(host, func(r rune) bool {
		return r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return s.labels[firstLabel(host)] && s.names[canonical(host, s.namespace)]
	}
	return s.names[canonical(host, s.namespace)] || s.names[canonical(salvage(host), s.namespace)]
}

func firstLabel(host string) string {
	label, _, _ := strings.Cut(host, ".")
	return strings.ToLower(label)
}
