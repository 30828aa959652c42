package routing

import (
	"fmt"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

// reachable leaves out the rules whose calls earlier ones take.
func (c *comparison) reachable(rules []*Rule) []*Rule {
	var out []*Rule
	for _, r := range rules {
		if slices.ContainsFunc(c.kinds(r), func(k kindOfCall) bool { return c.decides(out, k) == nil }) {
			out = append(out, r)
		}
		if len(r.matches) == 0 {
			break
		}
	}
	return out
}

// sameIn finds what is the same rule for the reader: that with its name, or without one the one with the
// same matches.
func (c *comparison) sameIn(r *Rule, rules []*Rule) *Rule {
	i := slices.IndexFunc(rules, func(o *Rule) bool {
		if (r.number == 0) != (o.number == 0) || r.Name != o.Name {
			return false
		}
		return r.Name != "" || c.conditionsOf(r) == c.conditionsOf(o)
	})
	if i < 0 {
		return nil
	}
	return rules[i]
}

func (r *Rule) conditions() string {
	var all []string
	for i := range r.matches {
		all = append(all, r.matches[i].String())
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n")
}

// conditionsOf words the conditions of a rule once: each rule may be compared with all others.
func (c *comparison) conditionsOf(r *Rule) string {
	text, known := c.conditions[r]
	if !known {
		text = r.conditions()
		c.conditions[r] = text
	}
	return text
}

func (c *comparison) sameConditions(a, b []*Rule) bool {
	return slices.EqualFunc(a, b, func(x, y *Rule) bool { return c.conditionsOf(x) == c.conditionsOf(y) })
}

// compareRules compares a host that is served before and after.
func (c *comparison) compareRules(h string, before, after *Host) {
	was, is := c.reachable(before.Rules), c.reachable(after.Rules)
	switch {
	case len(was) == 0 && len(is) == 0:
		return
	case len(is) == 0:
		c.add(rankDanger, "", "host %s loses its last rule: 404 NoRuleMatches from now on", h)
		return
	case len(was) == 0:
		c.served(h, "is", " from now on, no longer answered 404 NoRuleMatches", after)
		return
	}
	subject := func(r *Rule) string {
		if len(was) > 1 || len(is) > 1 {
			return h + ", " + r.label()
		}
		return h
	}
	covered := map[*Rule]*Rule{} // what can no longer match: before and after
	for _, r := range was {
		if now := c.sameIn(r, after.Rules); now != nil && c.sameIn(r, is) == nil && c.never[ruleID{now.Owner, now.number}] {
			covered[r] = now
		}
	}
	if c.sameConditions(was, is) {
		for i := range is {
			c.compareRule(h, subject(is[i]), was[i], is[i])
		}
		for _, r := range was {
			if now := covered[r]; now != nil {
				c.add(rankRule, h, "%s can no longer match%s", now.label(), takenBy(c.decides(is, c.kinds(r)[0])))
			}
		}
		return
	}
	c.compareCalls(h, subject, before, after, was, is, covered)
}

// ruleID is a rule of a route, by its place from 1.
type ruleID struct {
	route Ref
	place int
}

// neverMatching gives the rules that earlier ones leave nothing.
func (c *compiler) neverMatching() map[ruleID]bool {
	all := map[ruleID]bool{}
	for _, o := range c.routes {
		for _, p := range o.list {
			var i int
			if _, err := fmt.Sscanf(p.Field, "spec.rules[%d]", &i); p.Code == RuleNeverMatches && err == nil {
				all[ruleID{o.object, i + 1}] = true
			}
		}
	}
	return all
}

func takenBy(r *Rule) string {
	if r == nil {
		return ""
	}
	return ": " + r.label() + " takes its calls"
}

// moved is who decided and who decides now, where these are two.
type moved struct{ before, after *Rule }

// compareCalls compares what happens to every kind of call that one of the rules names, and to those that
// are of two kinds at once: for these the order of the rules decides.
func (c *comparison) compareCalls(h string, subject func(*Rule) string, before, after *Host, was, is []*Rule, covered map[*Rule]*Rule) {
	var kinds []kindOfCall
	seen := map[string]bool{}
	for _, r := range slices.Concat(is, was) {
		for _, k := range c.kinds(r) {
			if text := k.String(); len(k) > 0 && !seen[text] && len(kinds) < maxKinds {
				seen[text] = true
				kinds = append(kinds, k)
			}
		}
	}
	single := len(kinds)
	kinds = append(kinds, nil) // all others
	for i := 0; i < single && len(kinds) < maxKinds && !c.exhausted(); i++ {
		for j := range i {
			if both, ok := c.together(kinds[i], kinds[j]); ok && !seen[both.String()] {
				seen[both.String()] = true
				kinds = append(kinds, both)
			}
		}
	}

	found := len(c.found)
	compared := map[moved]bool{}
	var order []moved
	calls, phrases := map[moved][]kindOfCall{}, map[moved][]phrase{}
	for i, k := range kinds {
		m := moved{c.decides(was, k), c.decides(is, k)}
		if c.exhausted() {
			break
		}
		if m.before == nil && m.after == nil {
			continue
		}
		if m.before != nil && m.after != nil && c.sameIn(m.before, []*Rule{m.after}) != nil {
			if !compared[m] {
				c.compareRule(h, subject(m.after), m.before, m.after)
			}
			compared[m] = true
			continue
		}
		if !compared[m] {
			phrases[m] = differences(m.before, m.after, h)
		}
		compared[m] = true
		if len(phrases[m]) == 0 || i > single && c.told(order, calls, m, k) {
			continue
		}
		if calls[m] == nil {
			order = append(order, m)
		}
		calls[m] = append(calls[m], k)
	}
	told := map[*Rule]bool{}
	for _, m := range order {
		tail := phrases[m]
		if now := covered[m.before]; now != nil {
			if !told[m.before] {
				c.tell(h, fmt.Sprintf("%s can no longer match%s", now.label(), takenBy(m.after)), tail)
			}
			told[m.before] = true
			continue
		}
		who := "all calls"
		if k := calls[m]; len(k[0]) > 0 {
			who = "calls " + k[0].String()
			if len(k) == 2 && len(k[0]) == 1 && len(k[1]) == 1 {
				who += " or " + strings.TrimPrefix(k[1].String(), "with ")
			} else if len(k) > 1 {
				who += ", and others,"
			}
		} else if single > 0 {
			who = "all other calls"
		}
		switch {
		case m.after == nil:
			c.add(rankDanger, h, "%s find no rule from now on: %s", who, (&Refusal{Code: NoRuleMatches}).status())
		case m.before == nil || c.sameIn(m.after, before.Rules) == nil && (m.before.number == 0 || c.sameIn(m.before, after.Rules) != nil):
			c.tell(h, who+" are decided by "+c.newLabel(m.after, before), tail)
		default:
			old := m.before.label()
			if c.sameIn(m.before, after.Rules) == nil && m.before.number > 0 {
				old = "removed " + old
			}
			if old == m.after.label() {
				old = "what was " + old // the place of a rule without a name
			}
			c.tell(h, who+" are decided by "+c.newLabel(m.after, before)+" instead of "+old, tail)
		}
	}
	for r, now := range covered {
		if !told[r] {
			c.add(rankRule, h, "%s can no longer match%s", now.label(), takenBy(c.decides(is, c.kinds(r)[0])))
		}
	}
	if (c.exhausted() || len(kinds) >= maxKinds) && len(c.found) == found {
		c.add(rankRule, h, "the rules are more than are compared here: what the edit does to calls is not said")
	}
}

// told tells whether what happens to two kinds at once follows from what was said of one of them.
func (c *comparison) told(order []moved, calls map[moved][]kindOfCall, m moved, both kindOfCall) bool {
	for _, o := range order {
		if o.after != m.after && o.before != m.before {
			continue
		}
		for _, k := range calls[o] {
			within := true
			for _, cond := range k {
				within = within && slices.ContainsFunc(both, func(known condition) bool { return c.covers(cond, known) })
			}
			if within && len(k) > 0 {
				return true
			}
		}
	}
	return false
}

func (c *comparison) newLabel(r *Rule, before *Host) string {
	if c.sameIn(r, before.Rules) == nil && r.Owner.Kind == v1beta1.KindLLMRoute {
		return "new " + r.label()
	}
	return r.label()
}

// tell adds a sentence about other rules, with what that changes as far as there is room.
func (c *comparison) tell(h, text string, tail []phrase) {
	rank := rankRule
	for i, p := range tail {
		if p.rank == rankDanger {
			rank = rankDanger
		}
		if len(h)+len(text)+len(p.text) > maxSentence-10 {
			break
		}
		words := strings.NewReplacer("all calls move", "they move", "% of calls move", "% of them move").Replace(p.text)
		text += [...]string{": ", "; "}[min(i, 1)] + words
	}
	c.found = append(c.found, change{rank, h, text})
}
