package routing

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

// whyNot says what of each match does not hold.
func (r *Rule) whyNot(q Request, model []byte) string {
	var all []string
	for i := range r.matches {
		u := r.matches[i].unmet(q, model)
		all = append(all, r.ofMatch(i)+u.words(q, model))
	}
	return strings.Join(all, "; ")
}

// whyTakes says what holds.
func (r *Rule) whyTakes(by int, q Request, model []byte) string {
	switch {
	case by >= 0:
		var all []string
		for _, u := range r.matches[by].conditions() {
			all = append(all, u.words(q, model))
		}
		return r.ofMatch(by) + orAlways(all)
	case r.number == 0:
		return "the provider has no route of its own for its host: it takes every call"
	}
	return "it takes every call"
}

func orAlways(all []string) string {
	if len(all) == 0 {
		return "it takes every call"
	}
	return strings.Join(all, ", and ")
}

// ofMatch names one of several matches.
func (r *Rule) ofMatch(i int) string {
	if len(r.matches) == 1 {
		return ""
	}
	return fmt.Sprintf("match %d of %d: ", i+1, len(r.matches))
}

// conditions are all of them, in the order of unmet.
func (m *match) conditions() (all []unmet) {
	for _, one := range []unmet{{ofModel, "", m.model}, {ofPath, "", m.uri}, {ofMethod, "", m.method}, {ofAuthority, "", m.authority}} {
		if one.value != nil {
			all = append(all, one)
		}
	}
	for _, several := range []struct {
		of   aspect
		list []headerMatch
	}{{ofHeader, m.headers}, {ofNoHeader, m.without}, {ofParameter, m.query}} {
		for i := range several.list {
			all = append(all, unmet{several.of, several.list[i].name, &several.list[i].value})
		}
	}
	for _, more := range m.and {
		all = append(all, more.conditions()...)
	}
	return all
}

// words says what the request has, and what the rule wants of it.
func (u unmet) words(q Request, model []byte) string {
	switch u.of {
	case ofModel:
		return "model: " + has(model, len(model) > 0, "is not named") + u.value.wants()
	case ofPath:
		return "path: " + has(q.Path(), true, "") + u.value.wants()
	case ofMethod:
		return "method: " + has(q.Method(), true, "") + u.value.wants()
	case ofAuthority:
		return "authority: " + has(q.Authority(), true, "") + u.value.wants()
	case ofHeader, ofNoHeader:
		value, present := q.Header(u.name)
		text := "header " + strings.ToLower(u.name) + ": " + has(value, present, "is absent")
		if u.of == ofNoHeader {
			return text + ", the rule wants none that is " + u.value.like()
		}
		return text + u.value.wants()
	case ofParameter:
		value, present := q.QueryParameter(u.name)
		return fmt.Sprintf("parameter %q: ", u.name) + has(value, present, "is absent") + u.value.wants()
	case nothing:
	}
	return "nothing is wanted"
}

// maxQuoted is how much of a value is quoted.
const maxQuoted = 200

func has(value []byte, present bool, absent string) string {
	switch {
	case !present:
		return absent
	case len(value) > maxQuoted:
		return fmt.Sprintf("is %q…", value[:maxQuoted])
	}
	return fmt.Sprintf("is %q", value)
}

func (m *stringMatch) wants() string { return ", the rule wants " + m.like() }

// like words what is wanted.
func (m *stringMatch) like() string {
	fold := ""
	if m.fold {
		fold = ", in any case of letters"
	}
	switch m.kind {
	case "exact":
		return fmt.Sprintf("exactly %q", m.value) + fold
	case "prefix":
		return fmt.Sprintf("one that begins with %q", m.value) + fold
	case "regex":
		return fmt.Sprintf("one that matches %q as a whole", m.value)
	}
	return "any"
}

// whyNever says why none of the matches of a rule can hold for who executes it.
func (w *where) whyNever(from []v1beta1.LLMRequestMatch, namespace string) string {
	var all []string
	for i := range from {
		if refs, mesh := gatewayRefs(from[i].Gateways, namespace); !w.among(refs, mesh) {
			all = append(all, "it is for "+strings.Join(from[i].Gateways, ", ")+" only")
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(from[i].SourceLabels)) {
			wanted := from[i].SourceLabels[name]
			if is, labelled := w.labels[name]; !labelled {
				all = append(all, fmt.Sprintf("label %s: the pod has none, the rule wants %q", name, wanted))
			} else if is != wanted {
				all = append(all, fmt.Sprintf("label %s: the pod's is %q, the rule wants %q", name, is, wanted))
			}
		}
	}
	return strings.Join(all, "; ")
}
