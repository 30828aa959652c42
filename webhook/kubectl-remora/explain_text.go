package main

import (
	"cmp"
	"fmt"
	"strings"

	"remora.dev/remora/sidecar/routing"
)

// explanation writes an explanation for people: what becomes of the request first, and then why.
func (p *page) explanation(q *routing.Question, e *routing.Explanation) error {
	w := &paragraphs{page: p}
	w.put("request", span{fmt.Sprintf("%s %s on %s%s", cmp.Or(q.Method, "POST"), cmp.Or(q.Path, "/"), q.Host, asking(q.Model)), bold})
	switch {
	case e.Refusal != nil:
		w.put("refused", span{string(e.Refusal.Code), red}, span{": " + e.Refusal.Message, none})
	case !e.Owned:
		w.put("passed on", span{"as it is: no LLMProvider or LLMRoute that this workload sees has the host", yellow})
	}
	if e.Port != 0 {
		w.put("port", span{text: fmt.Sprint(e.Port)}, span{text: " " + e.Server})
	}
	if e.Remark != "" {
		w.put("note", span{e.Remark, yellow})
	}
	if e.Operation != "" {
		w.put("operation", span{text: e.Operation})
	}
	if r := e.Rule; r != nil {
		w.put("rule", span{ruleName(r.Owner, r.Name, r.Number), green}, span{text: ": " + r.Why})
	} else if e.Owned && e.Refusal == nil {
		w.put("rule", span{"none takes it", red})
	}
	for i := range e.Backends {
		w.backend(&e.Backends[i])
	}
	for _, does := range e.Does {
		w.put("also", span{text: does})
	}
	if t := e.Timeouts; t != nil {
		w.put("timeouts", span{text: fmt.Sprintf("request %s, first token %s, idle %s", t.Request, t.FirstToken, t.Idle)})
	}
	if r := e.Retries; r != nil && r.Attempts > 0 {
		w.put("retries", span{text: fmt.Sprintf("%d, on %s", r.Attempts, strings.Join(r.On, ", "))})
	}
	for i := range e.Passed {
		o := &e.Passed[i]
		w.put("passed over", span{ruleName(o.Owner, o.Name, o.Number), faint}, span{text: ": " + o.Why})
	}
	return w.err
}

func asking(model string) string {
	if model == "" {
		return ""
	}
	return ", asking for model " + model
}

func ruleName(owner, name string, number int) string {
	text := owner
	if number > 0 {
		text += fmt.Sprintf(", rule %d", number)
	}
	if name != "" {
		text += fmt.Sprintf(" %q", name)
	}
	return text
}

// paragraphs writes lines with a word before each.
type paragraphs struct {
	page *page
	err  error
}

// put writes a line; more of the same begins below it.
func (w *paragraphs) put(word string, text ...span) {
	if w.err == nil {
		w.err = w.page.line(append([]span{{fmt.Sprintf("%-12s", word), cyan}}, text...)...)
	}
}

func (w *paragraphs) backend(b *routing.ExplainedBackend) {
	word := "goes to"
	if b.Priority > 0 {
		word = "falls back"
	}
	model := cmp.Or(b.Model, "the model that the app asks for")
	if b.Refusal != nil {
		w.put(word, span{cmp.Or(b.Provider, b.URL), bold}, span{": " + string(b.Refusal.Code), red}, span{text: ": " + b.Refusal.Message})
	} else {
		w.put(word, span{cmp.Or(b.Provider, b.URL), bold}, span{text: ", "}, span{model, green})
	}
	w.put("", span{text: b.SelectedBy})
	if b.URL != "" && b.Provider != "" {
		w.put("", span{text: "at " + b.URL + as(b.Authority)})
	}
	switch {
	case b.Key != "" && b.KeyIn != "":
		w.put("", span{text: "with key " + b.Key + " in " + b.KeyIn})
	case b.Key != "":
		w.put("", span{text: "with key " + b.Key})
	case b.Provider != "" && b.Refusal == nil:
		w.put("", span{text: "with the credentials of the app, if it sends any"})
	}
	if b.Servers != "" {
		w.put("", span{text: strings.TrimSuffix("of "+b.Servers+", "+b.Balance, ", ")})
	}
}

func as(authority string) string {
	if authority == "" {
		return ""
	}
	return ", as host " + authority
}
