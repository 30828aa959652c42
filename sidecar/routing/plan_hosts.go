package routing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

// comparison is that of the tables that one pod has before and after an edit.
type comparison struct {
	edit          *edit
	before, after *Table
	never         map[ruleID]bool // the rules that can never match after the edit, whatever the pod
	left          *int            // how many comparisons of calls with matches are left, and for this host
	leftOfHost    int
	found         []change
	filled        bool // that this host has something in fills
	// fills are what edited providers get filled in otherwise: by provider, then by what it is, then by
	// the name of the rule, with whether it is so there.
	fills      map[string]map[fill]map[string]bool
	conditions map[*Rule]string // as they are worded: see conditionsOf
	sizes      map[string]int   // of the regular expressions that were tried, in steps
	// rules are the names of the rules that use a provider, by provider.
	rules map[string]map[string]bool
}

func (c *comparison) changes() []change {
	c.sizes = map[string]int{}
	c.fills, c.rules = map[string]map[fill]map[string]bool{}, map[string]map[string]bool{}
	for _, p := range c.pairs() {
		c.conditions = map[*Rule]string{}
		c.compareHost(p.name, p.before, p.after)
	}
	c.compareWildcards()
	if c.edit.last {
		c.add(rankEnd, "", "no LLMProvider and no LLMRoute is left: new pods refuse all calls to the redirected ports, 503 %s, until there is one", ConfigurationUnread)
	}
	c.reportFills()
	slices.SortFunc(c.found, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.subject, b.subject), cmp.Compare(a.text, b.text))
	})
	return slices.Compact(c.found)
}

func (c *comparison) add(rank int, subject, format string, args ...any) {
	c.found = append(c.found, change{rank, subject, fmt.Sprintf(format, args...)})
}

type hostPair struct {
	name          string
	before, after *Host
}

// pairs gives the hosts of the edit as they are before and after, under one name each.
func (c *comparison) pairs() []hostPair {
	names := map[string]bool{}
	for _, t := range []*Table{c.before, c.after} {
		for name := range t.hosts {
			if c.edit.hosts.names[canonical(name, c.edit.namespace)] {
				names[name] = true
			}
		}
	}
	var out []hostPair
	at := map[hostPair]int{} // without the name
	for _, name := range slices.Sorted(maps.Keys(names)) {
		p := hostPair{before: c.before.Host([]byte(name)), after: c.after.Host([]byte(name))}
		i, known := at[p]
		if !known {
			i = len(out)
			at[p] = i
			out = append(out, hostPair{name, p.before, p.after})
		}
		if p.after != nil && p.after.Name == name || p.after == nil && p.before.Name == name {
			out[i].name = name // as it is written
		}
	}
	return out
}

func (c *comparison) compareHost(name string, before, after *Host) {
	h := hostText(name)
	c.filled, c.leftOfHost = false, min(maxOfOneHost, *c.left)
	*c.left -= c.leftOfHost
	defer func() { *c.left += c.leftOfHost }()
	switch {
	case after == nil && c.after.incomplete, before == nil && c.before.incomplete:
		return // which hosts are owned is not known
	case after == nil:
		route, then := "", "new pods pass its calls on untouched, in plain text; running pods refuse them until they are restarted"
		if c.edit.last {
			then = "running pods refuse its calls until they are restarted"
		}
		if before.Refusal == nil && len(before.Rules) > 0 && before.Rules[0].number > 0 {
			route = "loses its route and "
		}
		if before.plain() && c.edit.last {
			then = "in running pods, its calls pass on untouched, in plain text"
		} else if before.plain() {
			then = "calls pass on untouched, in plain text"
		}
		c.add(rankDanger, "", "host %s %sis no longer owned: %s", h, route, then)
	case after.Refusal != nil && (before == nil || before.Refusal == nil):
		verb := "is refused from now on"
		if before == nil {
			verb = "is new and refused"
		}
		why := after.Refusal.Message
		if after.Refusal.Code != InvalidConfiguration {
			why, _, _ = strings.Cut(why, ": ") // the remedy is told where it fails
			why = strings.Replace(why, "this pod", "such pods", 1)
		}
		c.add(rankDanger, "", "host %s %s, %s: %s", h, verb, after.Refusal.status(), printable(why))
	case after.Refusal != nil:
		if a, b := after.Refusal.status(), before.Refusal.status(); a != b {
			c.add(rankDanger, "", "host %s is refused with %s instead of %s", h, a, b)
		}
	case before == nil:
		c.served(h, "is new:", "", after)
	case before.Refusal != nil:
		c.served(h, "is", " from now on, no longer refused ("+before.Refusal.status()+")", after)
	default:
		n := len(c.found)
		c.compareRules(h, before, after)
		if n == len(c.found) && !c.filled {
			c.comparePaths(h, before, after)
		}
	}
}

// served tells of a host that was not served before.
func (c *comparison) served(h, is, noLonger string, after *Host) {
	rules := c.reachable(after.Rules)
	if len(rules) == 0 {
		c.add(rankDanger, "", "host %s %s answered 404 NoRuleMatches, since no rule takes a call", h, is)
		return
	}
	owner := rules[0].Owner
	by := "route " + clip(owner.Name, 50)
	if owner.Kind == v1beta1.KindLLMProvider {
		by = "provider " + clip(owner.Name, 50)
	} else if len(rules) > 1 {
		by += fmt.Sprintf(", %d rules", len(rules))
	} else if shares := sharesOf(rules[0], nil); len(shares) <= 3 {
		var parts []string
		for _, o := range sorted(shares) {
			part := o.text
			if len(shares) > 1 {
				part = percent(shares[o]) + " " + part
			}
			parts = append(parts, part)
		}
		by += ": " + strings.Join(parts, ", ")
	}
	rank, plain := rankServed, ""
	if slices.ContainsFunc(rules, func(r *Rule) bool {
		return slices.ContainsFunc(targetsOf(r), func(t *Target) bool { return !t.Endpoint.Value().TLS })
	}) {
		rank, plain = rankDanger, ", in plain text"
	}
	c.add(rank, "", "host %s %s served by %s%s%s", h, is, by, plain, noLonger)
}

// compareWildcards tells of the hosts that are refused by a pattern, since an object has one for a host.
func (c *comparison) compareWildcards() {
	patterns := func(t *Table) map[string]bool {
		all := map[string]bool{}
		for i := range t.wildcards {
			all[t.wildcards[i].host.Name] = true
		}
		return all
	}
	before, after := patterns(c.before), patterns(c.after)
	for name := range before {
		if !after[name] {
			who := "calls"
			if c.edit.last {
				who = "those of running pods"
			}
			c.add(rankDanger, "", "hosts like %s are no longer owned: %s pass on untouched, in plain text", hostText(name), who)
		}
	}
	for name := range after {
		if !before[name] {
			c.add(rankDanger, "", "hosts like %s are refused from now on, 503 %s", hostText(name), InvalidConfiguration)
		}
	}
}

// comparePaths tells of what is taken for inference where calls fare as before otherwise.
func (c *comparison) comparePaths(h string, before, after *Host) {
	less := func(a, b map[string]*Operation) string {
		var gone []string
		for path, o := range a {
			if b[path] == nil && o.IsChat() {
				gone = append(gone, path)
			}
		}
		if len(gone) == 0 {
			return ""
		}
		return clip(slices.Min(gone), 90)
	}
	if path := less(after.paths, before.paths); path != "" {
		c.add(rankNote, h, "calls to %s are taken for chat completions from now on", path)
	}
	if path := less(before.paths, after.paths); path != "" {
		c.add(rankNote, h, "calls to %s are no longer taken for chat completions", path)
	}
}
