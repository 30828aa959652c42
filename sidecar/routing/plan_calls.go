package routing

import (
	"regexp/syntax"
	"slices"
	"strings"
)

// kindOfCall is what is known of some calls: all conditions hold, nothing else is known.
type kindOfCall []condition

type condition struct {
	header string // canonical; empty for the model; what is no header begins as no header does (see others)
	value  *stringMatch
}

// others gives what a match says beside headers and the model: of the path, the method, the authority, parameters, and headers that
// must not be.
func (m *match) others() (all []condition) {
	for _, part := range []struct {
		name  string
		value *stringMatch
	}{{":path", m.uri}, {":method", m.method}, {":authority", m.authority}} {
		if part.value != nil && part.value.fold {
			part.name += " " + part.value.value // nothing else is compared as it is
		}
		if part.value != nil {
			all = append(all, condition{part.name, part.value})
		}
	}
	for i := range m.query {
		all = append(all, condition{"?" + m.query[i].name, &m.query[i].value})
	}
	for i := range m.without {
		w := &m.without[i]
		all = append(all, condition{"!" + w.name + w.value.String(), &w.value})
	}
	for i := range m.and {
		for j := range m.and[i].headers {
			all = append(all, condition{m.and[i].headers[j].name, &m.and[i].headers[j].value})
		}
		all = append(all, m.and[i].others()...)
	}
	return all
}

// label names what a condition is about.
func (c *condition) label() string {
	switch {
	case c.header == "":
		return "model"
	case c.header[0] == ':':
		name, _, _ := strings.Cut(c.header[1:], " ")
		return name
	case c.header[0] == '?':
		return "parameter " + clip(c.header[1:], 40)
	case c.header[0] == '!':
		name, _, _ := strings.Cut(c.header[1:], " ")
		return "no header " + clip(strings.ToLower(name), 40)
	}
	return "header " + clip(strings.ToLower(c.header), 40)
}

// String gives what follows "calls", such as `with header user-type exact "subscriber"`.
func (k kindOfCall) String() string {
	var parts []string
	for _, c := range k {
		name := c.label()
		switch {
		case c.value.kind == "":
			parts = append(parts, name)
		case slices.Contains([]string{"Authorization", "Cookie", "X-Api-Key", "Api-Key"}, c.header):
			parts = append(parts, name+" "+c.value.kind+" "+redacted) // what it must be may be somebody's credential
		default:
			parts = append(parts, name+" "+c.value.kind+" "+quoted(c.value.value))
		}
	}
	return "with " + strings.Join(parts, " and ")
}

func (c *comparison) kind(m *match) kindOfCall {
	var k kindOfCall
	for i := range m.headers {
		k, _ = c.and(k, condition{m.headers[i].name, &m.headers[i].value})
	}
	if m.model != nil {
		k, _ = c.and(k, condition{"", m.model})
	}
	for _, more := range m.others() {
		k, _ = c.and(k, more)
	}
	return k
}

// and adds a condition; false means that no call meets all of them.
func (c *comparison) and(k kindOfCall, more condition) (kindOfCall, bool) {
	for _, known := range k {
		if known.header != more.header {
			continue
		}
		switch {
		case c.covers(more, known):
			return k, true
		case c.covers(known, more):
			rest := slices.DeleteFunc(slices.Clone(k), func(o condition) bool { return o == known })
			return c.and(rest, more)
		case known.value.kind == "exact" || more.value.kind == "exact", known.value.kind == "prefix" && more.value.kind == "prefix":
			return nil, false
		}
	}
	return append(slices.Clip(k), more), true
}

// together gives the calls that are of both kinds; false means that there are none.
func (c *comparison) together(a, b kindOfCall) (kindOfCall, bool) {
	for _, cond := range b {
		both, ok := c.and(a, cond)
		if !ok {
			return nil, false
		}
		a = both
	}
	return a, true
}

// covers tells whether early holds for every call for which late does. It is sure when it says yes.
func (c *comparison) covers(early, late condition) bool {
	if early.header != late.header {
		return false
	}
	e, l := early.value, late.value
	switch e.kind {
	case "exact":
		return l.kind == "exact" && l.value == e.value
	case "prefix":
		return e.value == "" && early.header != "" || (l.kind == "exact" || l.kind == "prefix") && strings.HasPrefix(l.value, e.value)
	case "regex":
		return l.kind == "regex" && l.value == e.value || l.kind == "exact" && c.matches(e, l.value)
	}
	// A model is present when it is not empty, a header also when it is.
	return early.header != "" || l.kind == "" || l.kind == "regex" && !l.regex.MatchString("") || l.kind != "regex" && l.value != ""
}

// matches tries an expression on a value, as long as there is time for it: an expression of 2,000 steps on a value of 1,024
// characters takes as long as many thousands of other comparisons.
func (c *comparison) matches(e *stringMatch, value string) bool {
	size, known := c.sizes[e.value]
	if !known {
		if parsed, err := syntax.Parse(e.value, syntax.Perl); err == nil {
			size = steps(parsed)
		}
		c.sizes[e.value] = size
	}
	c.leftOfHost -= size * len(value) / stepsPerComparison
	return !c.exhausted() && e.regex.MatchString(value)
}

// takes tells whether a rule takes all calls of a kind.
func (c *comparison) takes(r *Rule, k kindOfCall) bool {
	if len(r.matches) == 0 {
		return true
	}
	return slices.ContainsFunc(r.matches, func(m match) bool {
		c.leftOfHost -= 1 + len(k)*len(m.headers)
		for i := range m.headers {
			need := condition{m.headers[i].name, &m.headers[i].value}
			if !slices.ContainsFunc(k, func(known condition) bool { return c.covers(need, known) }) {
				return false
			}
		}
		for _, need := range m.others() {
			if !slices.ContainsFunc(k, func(known condition) bool { return c.covers(need, known) }) {
				return false
			}
		}
		return m.model == nil || slices.ContainsFunc(k, func(known condition) bool { return c.covers(condition{"", m.model}, known) })
	})
}

// decides gives the rule that decides the calls of a kind; nil if none does.
func (c *comparison) decides(rules []*Rule, k kindOfCall) *Rule {
	for _, r := range rules {
		if c.exhausted() {
			return nil
		}
		if c.takes(r, k) {
			return r
		}
	}
	return nil
}

func (c *comparison) exhausted() bool { return c.leftOfHost < 0 }

// kinds gives the calls that a rule names.
func (c *comparison) kinds(r *Rule) []kindOfCall {
	var all []kindOfCall
	for i := range r.matches {
		all = append(all, c.kind(&r.matches[i]))
	}
	if len(all) == 0 {
		all = append(all, nil)
	}
	return all
}
