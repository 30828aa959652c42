package routing

import (
	"fmt"
	"strings"
)

// passing is what of a request matters to a target.
type passing struct {
	operation, otherwise *Operation
	named                string // what Host.Operation gave for the model in the path
	plain                bool
}

// explainBackends says what each backend gets of the rule's calls. p is nil for connections that are passed through.
func (r *Rule) explainBackends(p *passing, model []byte, a *asked) []ExplainedBackend {
	all := []ExplainedBackend{}
	for level := range r.Levels {
		l := &r.Levels[level]
		for i := range l.Backends {
			b := l.explain(i, level)
			if t := l.Backends[i].Target; t != nil && p != nil {
				b.ask(r, t, p, model, a)
			}
			b.SelectedBy = r.selectedBy(level, i, b.Refusal != nil && l.Backends[i].Target == nil)
			all = append(all, b)
		}
	}
	return all
}

// explain says what is known of a backend without a request.
func (l *Level) explain(i, priority int) ExplainedBackend {
	from := &l.Backends[i]
	b := ExplainedBackend{Priority: priority, Weight: from.Weight, Refusal: because(from.Refusal)}
	if l.total > 0 {
		b.Share = float64(from.Weight) / float64(l.total)
	}
	t := from.Target
	if t == nil {
		return b
	}
	e := t.Endpoint.Value()
	b.Provider, b.Model, b.URL, b.Key = t.Provider.String(), t.Model, e.shown()+t.Path, t.keysShown()
	if t.Keyed() {
		b.KeyIn = t.Auth.header()
	}
	if t.shownQuery != "" {
		b.URL += "?" + t.shownQuery
	}
	if !strings.HasPrefix(t.Authority, e.Host) {
		b.Authority = t.Authority
	}
	if t.Servers != (ServersID{}) {
		b.Servers, b.Balance = t.Servers.String(), t.Balance.String()
	}
	return b
}

// ask adds what the target makes of the request.
func (b *ExplainedBackend) ask(r *Rule, t *Target, p *passing, model []byte, a *asked) {
	if !t.Takes(p.operation, p.named) {
		b.Refusal = because(t.RefusalOf(p.operation, p.otherwise, a.Method(), a.path))
		return
	}
	e := t.Endpoint.Value()
	b.URL = e.shown() + r.PathAt(t, p.operation, p.named, a.path)
	if t.shownQuery != "" {
		b.URL += "?" + t.shownQuery
	}
	if p.plain || p.operation == nil || !p.operation.Edited || t.Model == "" {
		b.Model = string(model)
	}
}

// selectedBy words which calls a backend gets.
func (r *Rule) selectedBy(level, i int, refused bool) string {
	l := &r.Levels[level]
	weight, others := l.Backends[i].Weight, len(l.Backends) > 1
	text := "every call"
	switch {
	case weight == 0:
		return "no call, as its weight is 0"
	case others:
		text = fmt.Sprintf("%d of %d calls, by weight", weight, l.total)
	}
	if level > 0 {
		rest := fmt.Sprintf("what no backend of priority %d could take", level-1)
		if others {
			text += ", of " + rest
		} else {
			text = rest
		}
	}
	switch {
	case refused && level+1 < len(r.Levels):
		text += fmt.Sprintf(", which goes to priority %d, as it cannot be used", level+1)
	case refused:
		text += ", which fails"
	}
	return text
}

// keysShown names the keys, with their shares where there are several.
func (t *Target) keysShown() string {
	total := uint32(0)
	for i := range t.Keys {
		total += t.Keys[i].Weight
	}
	var all []string
	for i := range t.Keys {
		text := t.Keys[i].Name
		if len(t.Keys) > 1 {
			text += fmt.Sprintf(" (%d of %d)", t.Keys[i].Weight, total)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}
