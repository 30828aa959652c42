package routing

import "regexp"

// match is a way for a rule to match: all that it names must hold.
type match struct {
	headers                []headerMatch
	without                []headerMatch // none of which may hold
	query                  []headerMatch // parameters, by name
	uri, method, authority *stringMatch
	labels                 map[string]string // only where the workload is not known
	model                  *stringMatch
	and                    []*match // which must hold, too
}

// always tells whether it holds for every request.
func (m *match) always() bool {
	return len(m.headers)+len(m.without)+len(m.query)+len(m.labels)+len(m.and) == 0 && m.uri == nil && m.method == nil && m.authority == nil && m.model == nil
}

type headerMatch struct {
	name  string // canonical form, such as User-Type
	value stringMatch
}

// stringMatch is compared by kind; "" is presence.
type stringMatch struct {
	kind  string // "", "exact", "prefix", "regex"
	value string
	fold  bool // exact and prefix: A to Z and a to z are the same
	regex *regexp.Regexp
}

func (m *stringMatch) matches(v []byte) bool {
	switch m.kind {
	case "exact":
		return len(v) == len(m.value) && m.same(v)
	case "prefix":
		return len(v) >= len(m.value) && m.same(v[:len(m.value)])
	case "regex":
		return m.regex.Match(v)
	}
	return true
}

// same compares what is as long as the value.
func (m *stringMatch) same(v []byte) bool {
	if !m.fold {
		return string(v) == m.value
	}
	for i, c := range v {
		if lowerASCII(c) != lowerASCII(m.value[i]) {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
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
		if _, takes := rule.takes(r, model); takes {
			return rule
		}
	}
	return nil
}

// takes tells whether a rule takes a request, and by which of its matches; -1: it has none, and takes all.
func (r *Rule) takes(q Request, model []byte) (by int, takes bool) {
	for i := range r.matches {
		if r.matches[i].unmet(q, model).of == nothing {
			return i, true
		}
	}
	return -1, len(r.matches) == 0
}

// unmet is a condition of a match that does not hold.
type unmet struct {
	of    aspect
	name  string       // of a header or parameter
	value *stringMatch // what is wanted of it
}

// aspect is what of a request a condition looks at.
type aspect uint8

const (
	nothing aspect = iota
	ofModel
	ofPath
	ofMethod
	ofAuthority
	ofHeader
	ofNoHeader // that is not to be as it says
	ofParameter
)

// unmet finds the first condition that does not hold: of nothing where all do. The same conditions, in the same order, are put into words by
// explain.
func (m *match) unmet(r Request, model []byte) unmet {
	if m.model != nil && (len(model) == 0 && m.model.kind == "" || !m.model.matches(model)) {
		return unmet{ofModel, "", m.model}
	}
	if m.uri != nil && !m.uri.matches(r.Path()) {
		return unmet{ofPath, "", m.uri}
	}
	if m.method != nil && !m.method.matches(r.Method()) {
		return unmet{ofMethod, "", m.method}
	}
	if m.authority != nil && !m.callsFor(r.Authority()) {
		return unmet{ofAuthority, "", m.authority}
	}
	for i := range m.headers {
		h := &m.headers[i]
		if value, present := r.Header(h.name); !present || !h.value.matches(value) {
			return unmet{ofHeader, h.name, &h.value}
		}
	}
	for i := range m.without {
		h := &m.without[i]
		if value, present := r.Header(h.name); present && h.value.matches(value) {
			return unmet{ofNoHeader, h.name, &h.value}
		}
	}
	for i := range m.query {
		q := &m.query[i]
		if value, present := r.QueryParameter(q.name); !present || !q.value.matches(value) {
			return unmet{ofParameter, q.name, &q.value}
		}
	}
	for _, more := range m.and {
		if u := more.unmet(r, model); u.of != nothing {
			return u
		}
	}
	return unmet{}
}

// callsFor compares the authority as it is written, or without its port and in lower case.
func (m *match) callsFor(authority []byte) bool {
	if m.authority.matches(authority) {
		return true
	}
	var buf [maxAuthority]byte
	return len(authority) <= maxAuthority && m.authority.matches(hostName(buf[:0], authority))
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
