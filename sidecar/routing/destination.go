package routing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// destinationRule is a DestinationRule in its order: the oldest of a namespace first, then by name.
type destinationRule struct {
	findings
	rule *istio.DestinationRule
	host string // canonical, or *.SUFFIX
	used bool   // a backend is called as it says
}

// rules are the DestinationRules by namespace and host.
type rules struct {
	exact     map[hostID][]*destinationRule
	wildcards map[string][]*destinationRule // by namespace, the longest first
	all       []*destinationRule
}

func (c *compiler) destinationRules() *rules {
	if c.destinations != nil {
		return c.destinations
	}
	r := &rules{exact: map[hostID][]*destinationRule{}, wildcards: map[string][]*destinationRule{}}
	c.destinations = r
	for i := range c.in.DestinationRules {
		d := &c.in.DestinationRules[i]
		o := &destinationRule{findings: findings{object: Ref{istio.KindDestinationRule, d.Namespace, d.Name}}, rule: d}
		if o.host = strings.ToLower(d.Spec.Host); !strings.HasPrefix(o.host, "*") {
			o.host = canonical(o.host, d.Namespace)
		}
		r.all = append(r.all, o)
	}
	slices.SortStableFunc(r.all, func(a, b *destinationRule) int {
		return cmp.Or(cmp.Compare(a.rule.Namespace, b.rule.Namespace), cmp.Compare(a.rule.CreationTimestamp.Unix(), b.rule.CreationTimestamp.Unix()), cmp.Compare(a.rule.Name, b.rule.Name))
	})
	for _, o := range r.all {
		if suffix, wild := strings.CutPrefix(o.host, "*"); !wild {
			id := hostID{o.rule.Namespace, o.host}
			r.exact[id] = append(r.exact[id], o)
		} else if suffix == "" || suffix[0] == '.' && !strings.Contains(suffix, "*") {
			r.wildcards[o.rule.Namespace] = append(r.wildcards[o.rule.Namespace], o)
		}
	}
	for _, wild := range r.wildcards {
		slices.SortStableFunc(wild, func(a, b *destinationRule) int { return cmp.Compare(len(b.host), len(a.host)) })
	}
	return r
}

// rulesFor finds the DestinationRules for a host of a namespace that is called from another, or the same: those of the caller's
// namespace go first. They are in the order in which they count.
func (c *compiler) rulesFor(from, namespace, host string) []*destinationRule {
	places := []string{from}
	if c.workload != nil && c.workload.Gateway {
		places = append(places, c.workload.Namespace)
	}
	r := c.destinationRules()
	for i, place := range append(places, namespace) {
		fits := func(d *destinationRule) bool {
			return (i < len(places) || place == from || exportsTo(d.rule.Spec.ExportTo, place, places)) && c.isFor(d)
		}
		found := pick(r.exact[hostID{place, host}], fits)
		if len(found) == 0 {
			found = pick(r.wildcards[place], func(d *destinationRule) bool { return d.covers(host) && fits(d) })
			found = pick(found, func(d *destinationRule) bool { return d.host == found[0].host })
		}
		if len(found) > 0 {
			return c.mostSpecific(found)
		}
	}
	return nil
}

// covers tells whether a host, in its canonical form, has the suffix of a rule in one of its forms.
func (d *destinationRule) covers(host string) bool {
	suffix := d.host[1:]
	return strings.HasSuffix(host, suffix) || strings.HasSuffix(host+svcSuffix, suffix) || strings.HasSuffix(host+clusterSuffix, suffix)
}

func pick(all []*destinationRule, fits func(*destinationRule) bool) (out []*destinationRule) {
	for _, d := range all {
		if fits(d) {
			out = append(out, d)
		}
	}
	return out
}

// exportsTo tells whether something of namespace own is meant for one of the namespaces. Istio's default is all.
func exportsTo(list []string, own string, namespaces []string) bool {
	if len(list) == 0 {
		return true
	}
	return slices.ContainsFunc(list, func(to string) bool {
		return to == "*" || slices.Contains(namespaces, to) || to == "." && slices.Contains(namespaces, own)
	})
}

// isFor tells whether a rule is for the calls of this workload.
func (c *compiler) isFor(d *destinationRule) bool {
	s := d.rule.Spec.WorkloadSelector
	switch {
	case s == nil:
		return !d.rule.Remarks.WrongIn("spec.workloadSelector")
	case c.workload == nil:
		return true
	}
	return d.rule.Namespace == c.workload.Namespace && subset(s.MatchLabels, c.workload.Labels) && !d.rule.Remarks.WrongIn("spec.workloadSelector")
}

// mostSpecific leaves those with a workloadSelector, if there are some.
func (c *compiler) mostSpecific(found []*destinationRule) []*destinationRule {
	selecting := func(d *destinationRule) bool { return d.rule.Spec.WorkloadSelector != nil }
	if c.workload == nil || !slices.ContainsFunc(found, selecting) {
		return found
	}
	return pick(found, selecting)
}

// judgeRules looks at the rules that a backend is called by, each once.
func (c *compiler) judgeRules(found []*destinationRule) {
	for i, d := range found {
		if d.used {
			continue
		}
		d.used = true
		c.judgeRule(d)
		for _, first := range found[:i] {
			if first.rule.Spec.WorkloadSelector == nil && d.rule.Spec.WorkloadSelector == nil {
				d.judgeBeside(first)
				break
			}
		}
	}
}

// judgeBeside says what of a rule does not count because an older one has the host, too.
func (d *destinationRule) judgeBeside(first *destinationRule) {
	const remedy = "move what is missing there, and remove this one"
	if d.rule.Spec.TrafficPolicy != nil && first.rule.Spec.TrafficPolicy != nil {
		d.warn(HostConflict, "spec.trafficPolicy", "is not used: %s has one for host %s, and is older or has the lesser name: %s", first.object, hostText(d.rule.Spec.Host), remedy)
	}
	taken := map[string]bool{}
	for i := range first.rule.Spec.Subsets {
		taken[first.rule.Spec.Subsets[i].Name] = true
	}
	for i := range d.rule.Spec.Subsets {
		if taken[d.rule.Spec.Subsets[i].Name] {
			d.warn(HostConflict, fmt.Sprintf("spec.subsets[%d].name", i), "%s is not used: %s has a subset of that name, and is older or has the lesser name: %s", quoted(d.rule.Spec.Subsets[i].Name), first.object, remedy)
		}
	}
}

func (c *compiler) judgeRule(d *destinationRule) {
	warnRemarks(&d.findings, d.rule.Remarks)
	say := critic{&d.findings, Warning}
	if to, given := d.rule.Annotations[istio.BalanceAnnotation]; given && to != string(v1beta1.LeastTokens) {
		say.wrong("metadata.annotations["+istio.BalanceAnnotation+"]", "%s is not known: write %s, or what Istio has words for in spec.trafficPolicy.loadBalancer", quoted(to), v1beta1.LeastTokens)
	}
	judgeTrafficPolicy(say, "spec.trafficPolicy", d.rule.Spec.TrafficPolicy)
	names := map[string]bool{}
	for i := range d.rule.Spec.Subsets {
		s, at := &d.rule.Spec.Subsets[i], fmt.Sprintf("spec.subsets[%d]", i)
		if len(d.list) > maxRemarks {
			d.warn(FieldNotHonoured, "spec.subsets", "there is more to be said: correct this first")
			break
		}
		if s.Name == "" {
			say.wrong(at+".name", "is required: give the subset a name")
		} else if names[s.Name] {
			say.wrong(at+".name", "%s is the name of an earlier subset: rename it, or remove one of them", quoted(s.Name))
		}
		names[s.Name] = true
		judged := findings{object: d.object}
		judgeLabels(&judged, at+".labels", s.Labels)
		for _, p := range judged.list {
			say.note(InvalidValue, p.Field, "%s", p.Message)
		}
		judgeTrafficPolicy(say, at+".trafficPolicy", s.TrafficPolicy)
	}
}

// subsetOf finds a subset by its name. The refusal says that there is none, or that it cannot be told which servers it has.
func subsetOf(found []*destinationRule, name string) (*istio.Subset, *destinationRule, *Refusal) {
	for _, d := range found {
		for i := range d.rule.Spec.Subsets {
			s := &d.rule.Spec.Subsets[i]
			if s.Name != name {
				continue
			}
			judged := findings{}
			judgeLabels(&judged, "", s.Labels)
			if len(judged.list) > 0 || len(s.Labels) > maxSubsetLabels || d.rule.Remarks.WrongIn(fmt.Sprintf("spec.subsets[%d].labels", i)) {
				return nil, nil, &Refusal{InvalidConfiguration, fmt.Sprintf("the labels of subset %s of %s cannot be those of a pod: correct them", quoted(name), d.object)}
			}
			if d.rule.Remarks.WrongIn(fmt.Sprintf("spec.subsets[%d].trafficPolicy.tls", i)) {
				return nil, nil, d.unreadableTLS()
			}
			return s, d, nil
		}
	}
	return nil, nil, &Refusal{Code: SubsetNotFound}
}

const maxSubsetLabels = 64

// selectorText writes labels as ServersID.Subset has them.
func selectorText(labels map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, name+"="+labels[name])
	}
	return strings.Join(parts, ",")
}

func (d *destinationRule) unreadableTLS() *Refusal {
	return &Refusal{InvalidConfiguration, fmt.Sprintf("what %s says of tls cannot be read, so calls might leave in plain text: correct it", d.object)}
}
