package routing

import (
	"fmt"
	"maps"
	"net/textproto"
	"regexp/syntax"
	"slices"
	"strings"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// matchedAll is Rule.Matched where the match takes all of the path.
const matchedAll = -1

func (c *compiler) judgeHTTPMatch(v *virtual, field string, from *istio.HTTPMatchRequest) virtualMatch {
	m := virtualMatch{name: from.Name, port: from.Port, labels: from.SourceLabels, namespace: from.SourceNamespace, taken: len("/")}
	before := len(v.list)
	one := func(name string, s *istio.StringMatch) *stringMatch {
		if s == nil {
			return nil
		}
		out := c.judgeStringMatch(v, field+"."+name, *s)
		return &out
	}
	m.uri, m.method, m.authority, m.scheme = one("uri", from.URI), one("method", from.Method), one("authority", from.Authority), one("scheme", from.Scheme)
	if m.uri != nil {
		m.uri.fold = from.IgnoreURICase
		switch m.uri.kind {
		case "prefix":
			m.taken = len(m.uri.value)
		case "exact", "regex":
			m.taken = matchedAll
		}
	}
	some := func(name string, all map[string]istio.StringMatch) (out []headerMatch) {
		for _, key := range slices.Sorted(maps.Keys(all)) {
			at := field + "." + name + "[" + key + "]"
			switch canonical := textproto.CanonicalMIMEHeaderKey(key); {
			case slices.Contains([]string{"uri", "scheme", "method", "authority"}, key):
				v.warn(FieldNotHonoured, at, "is ignored, as it is by Istio: match %s beside headers", key)
				continue
			case !isToken(key):
				v.invalid(InvalidValue, at, "%q is not the name of a header: use letters, digits and hyphens", presentable(key))
			case HopByHop(canonical):
				v.invalid(InvalidValue, at, "%s belongs to the connection, not to the call: match another header", key)
			default:
				out = append(out, headerMatch{canonical, c.judgeStringMatch(v, at, all[key])})
			}
		}
		return out
	}
	m.headers, m.without = some("headers", from.Headers), some("withoutHeaders", from.WithoutHeaders)
	for _, key := range slices.Sorted(maps.Keys(from.QueryParams)) {
		m.query = append(m.query, headerMatch{key, c.judgeStringMatch(v, field+".queryParams["+key+"]", from.QueryParams[key])})
	}
	judgeLabels(&v.findings, field+".sourceLabels", from.SourceLabels)
	if from.Port < 0 || from.Port > 65535 {
		v.invalid(InvalidValue, field+".port", "%d is not a port: use 1 to 65535", from.Port)
	}
	m.gateways, m.mesh = gatewayRefs(from.Gateways, v.object.Namespace)
	// What has no bearing on which calls match may be left out.
	harmless := 0
	for _, part := range []string{".statPrefix", ".name"} {
		if v.source.Remarks.In(field + part) {
			harmless++
		}
	}
	if remarked(v.source.Remarks, field) > harmless {
		m.refusal = v.partly(field)
	}
	if refusal := v.wrong(before); refusal != nil {
		m.refusal = refusal
	}
	return m
}

// remarked counts what was left out at a path and below it.
func remarked(remarks istio.Remarks, path string) (n int) {
	if !remarks.In(path) {
		return 0
	}
	for _, r := range remarks {
		if leadsTo(path, r.Field) {
			n++
		}
	}
	return n
}

func (c *compiler) judgeStringMatch(v *virtual, field string, from istio.StringMatch) stringMatch {
	before := len(v.list)
	judgeString(&v.findings, field, v1beta1.StringMatch(from))
	if from.Regex != nil && v.wrong(before) == nil && !c.affords(*from.Regex) {
		v.invalid(InvalidValue, field+".regex", "does not fit any more: the regular expressions of all VirtualServices together would take over %d MiB of memory; repeat less, use smaller classes of characters, or match prefixes", maxAllExpressions>>20)
	}
	if v.wrong(before) != nil {
		return stringMatch{}
	}
	return newStringMatch(v1beta1.StringMatch(from))
}

// affords takes the memory of a regular expression from what all may have.
func (c *compiler) affords(regex string) bool {
	parsed, err := syntax.Parse(regex, syntax.Perl)
	if err != nil {
		return true
	}
	if need := memory(parsed); need <= c.budget {
		c.budget -= need
		return true
	}
	return false
}

// where is who executes rules: what is known before there is a request.
type where struct {
	gateways  []Ref // none: a sidecar
	port      uint16
	scheme    string
	labels    map[string]string // nil: not known, and every label counts as met
	namespace string
}

// sidecar is where the rules of routes run that name no gateway.
func (c *compiler) sidecar() *where {
	if c.workload == nil {
		return &where{scheme: "http"}
	}
	w := &where{scheme: "http", labels: c.workload.Labels, namespace: c.workload.Namespace}
	if w.labels == nil {
		w.labels = map[string]string{} // which are known to be none
	}
	return w
}

// among tells whether who executes rules is one of those named; none named: everybody is.
func (w *where) among(gateways []Ref, mesh bool) bool {
	if len(gateways) == 0 && !mesh {
		return true
	}
	return len(w.gateways) == 0 && mesh || slices.ContainsFunc(gateways, func(g Ref) bool { return slices.Contains(w.gateways, g) })
}

// possible tells whether a match can hold there at all.
func (m *virtualMatch) possible(w *where) bool {
	if m.port != 0 && uint16(m.port) != w.port && w.port != 0 || m.scheme != nil && !m.scheme.matches([]byte(w.scheme)) {
		return false
	}
	if len(m.gateways) > 0 || m.mesh { // as in Istio, labels do not matter then
		return w.among(m.gateways, m.mesh)
	}
	return (w.labels == nil || subset(m.labels, w.labels)) && (m.namespace == "" || w.namespace == "" || m.namespace == w.namespace)
}

// ruleName names a rule by its route and the match of it, as Istio does.
func ruleName(route, match string) string {
	return strings.TrimPrefix(strings.TrimSuffix(fmt.Sprintf("%s.%s", route, match), "."), ".")
}
