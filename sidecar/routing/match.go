package routing

import "regexp"

type match struct {
	headers []headerMatch
	labels  map[string]string // only where the workload is not known
	model   *stringMatch
}

type headerMatch struct {
	name  string // canonical form, such as User-Type
	value stringMatch
}

// stringMatch is compared by kind; "" is presence.
type stringMatch struct {
	kind  string // "", "exact", "prefix", "regex"
	value string
	regex *regexp.Regexp
}

func (m *stringMatch) matches(v []byte) bool {
	switch m.kind {
	case "exact":
		return string(v) == m.value
	case "prefix":
		return len(v) >= len(m.value) && string(v[:len(m.value)]) == m.value
	case "regex":
		return m.regex.Match(v)
	}
	return true
}

// Request is what rules look at.
type Request interface {
	// Header gives a header: its values joined by ",", and whether it is there at all. name is in canonical form.
	Header(name string) (value []byte, present bool)
	// Method and Authority are as written.
	Method() []byte
	Authority() []byte
	// Path is as written, without the query.
	Path() []byte
	// QueryParameter gives the first value of a parameter, unescaped.
	QueryParameter(name string) (value []byte, present bool)
}

// Match finds the first rule that matches; nil if there is none.
func (h *Host) Match(r Request, model []byte) *Rule {
	for _, rule := range h.Rules {
		if len(rule.matches) == 0 {
			return rule
		}
		for i := range rule.matches {
			if rule.matches[i].holds(r, model) {
				return rule
			}
		}
	}
	return nil
}

func (m *match) holds(r Request, model []byte) bool {
	if m.model != nil && (len(model) == 0 && m.model.kind == "" || !m.model.matches(model)) {
		return false
	}
	for i := range m.headers {
		h := &m.headers[i]
		if value, present := r.Header(h.name); !present || !h.value.matches(value) {
			return false
		}
	}
	return true
}

// Unusable gives the backends without a target, each as the bit of its index, as Pick takes them.
func (l *Level) Unusable() (bits uint64) {
	for i := range l.Backends {
		if l.Backends[i].Target == nil {
			bits |= 1 << i
		}
	}
	return bits
}

// Pick draws a backend of the level by weight, leaving out those whose bit is set in tried. draw is a
// random number. The index is -1 when nothing is left.
func (l *Level) Pick(draw, tried uint64) int {
	total := l.total
	for i := range l.Backends {
		if tried&(1<<i) != 0 {
			total -= uint64(l.Backends[i].Weight)
		}
	}
	if total == 0 {
		return -1
	}
	draw %= total
	for i := range l.Backends {
		if tried&(1<<i) != 0 {
			continue
		}
		w := uint64(l.Backends[i].Weight)
		if draw < w {
			return i
		}
		draw -= w
	}
	return -1
}
