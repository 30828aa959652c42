package routing

import (
	"slices"
	"strings"
)

// kindOfCall is what is known of some calls: all conditions hold, nothing else is known.
type kindOfCall []condition

type condition struct {
	header string // canonical; empty for the model
	value  *stringMatch
}

// String gives what follows "calls", such as `with header user-type exact "subscriber"`.
func (k kindOfCall) String() string {
	var parts []string
	for _, c := range k {
		name := "model"
		if c.header != "" {
			name = "header " + clip(strings.ToLower(c.header), 40)
		}
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

func (m *match) kind() kindOfCall {
	var k kindOfCall
	for i := range m.headers {
		k, _ = k.and(condition{m.headers[i].name, &m.headers[i].value})
	}
	if m.model != nil {
		k, _ = k.and(condition{"", m.model})
	}
	return k
}

// and adds a condition; false means that no call meets all of them.
func (k kindOfCall) and(c condition) (kindOfCall, bool) {
	for _, known := range k {
		if known.header != c.header {
			continue
		}
		switch {
		case c.covers(known):
			return k, true
		case known.covers(c):
			rest := slices.DeleteFunc(slices.Clone(k), func(o condition) bool { return o == known })
			return rest.and(c)
		case known.value.kind == "exact" || c.value.kind == "exact", known.value.kind == "prefix" && c.value.kind == "prefix":
			return nil, false
		}
	}
	return append(slices.Clip(k), c), true
}

// together gives the calls that are of both kinds; false means that there are none.
func together(a, b kindOfCall) (kindOfCall, bool) {
	for _, cond := range b {
		both, ok := a.and(cond)
		if !ok {
			return nil, false
		}
		a = both
	}
	return a, true
}

// covers tells whether c holds for every call for which late does. It is sure when it says yes.
func (c condition) covers(late condition) bool {
	if c.header != late.header {
		return false
	}
	e, l := c.value, late.value
	switch e.kind {
	case "exact":
		return l.kind == "exact" && l.value == e.value
	case "prefix":
		return e.value == "" && c.header != "" || (l.kind == "exact" || l.kind == "prefix") && strings.HasPrefix(l.value, e.value)
	case "regex":
		return l.kind == "regex" && l.value == e.value || l.kind == "exact" && e.regex.MatchString(l.value)
	}
	// A model is present when it is not empty, a header also when it is.
	return c.header != "" || l.kind == "" || l.kind == "regex" && !l.regex.MatchString("") || l.kind != "regex" && l.value != ""
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
			if !slices.ContainsFunc(k, need.covers) {
				return false
			}
		}
		return m.model == nil || slices.ContainsFunc(k, condition{"", m.model}.covers)
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
func (r *Rule) kinds() []kindOfCall {
	var all []kindOfCall
	for i := range r.matches {
		all = append(all, r.matches[i].kind())
	}
	if len(all) == 0 {
		all = append(all, nil)
	}
	return all
}
