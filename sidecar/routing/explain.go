package routing

import (
	"cmp"
	"net/textproto"
	"net/url"
	"strings"
)

// Explain says what would become of a request. Rules are asked as Match asks them, by the same code.
func (t *Table) Explain(q *Question) Explanation {
	e := Explanation{Host: q.Host, Passed: []PassedOver{}, Backends: []ExplainedBackend{}}
	host := t.asked(q, &e)
	if host == nil {
		return e
	}
	e.Host, e.Owned, e.Plain = host.Name, true, host.Plain
	if host.Refusal != nil {
		e.Refusal = because(host.Refusal)
		return e
	}
	host.explain(newAsked(q), &e)
	return e
}

// asked finds the host that a question is about; nil where nothing is said of it but what is in e by then.
func (t *Table) asked(q *Question, e *Explanation) *Host {
	if len(t.listeners) > 0 || q.Port != 0 {
		return t.atEdge(q, e)
	}
	host := t.Host([]byte(q.Host))
	switch {
	case host != nil:
	case t.incomplete:
		e.Refusal = &Because{ConfigurationUnread, "some configuration has not been read yet, and may name the host: nothing is passed on until then"}
	default:
		e.Remark = "no object names the host: the sidecar passes calls for it on as they are, and counts and logs nothing of them"
	}
	return host
}

// atEdge finds the host as a gateway does, at the port that was asked about or the first that has a server for it.
func (t *Table) atEdge(q *Question, e *Explanation) *Host {
	for _, l := range t.listeners {
		s := l.Server([]byte(q.Host))
		if q.Port != 0 && q.Port != l.Port || s == nil {
			continue
		}
		e.Port, e.Server = l.Port, s.Name+" of "+s.Gateway.String()
		host := s.Host([]byte(q.Host))
		switch {
		case s.Refusal != nil:
			e.Owned, e.Refusal = true, because(s.Refusal)
			return nil
		case s.Passthrough:
			s.explainBehind([]byte(q.Host), e)
			return nil
		case s.ToHTTPS:
			e.Owned, e.Remark = true, "the server answers every call by a redirect to the same at https"
			return nil
		case host == nil && q.Port == 0:
			continue // another port may have it
		}
		if host != nil {
			return host
		}
		break
	}
	e.Refusal = &Because{HostNotServed, "nothing at this gateway is bound to the host: apply a VirtualService or LLMRoute whose gateways name a Gateway that has it"}
	return nil
}

// explainBehind says where a connection goes that is passed through by its SNI.
func (s *EdgeServer) explainBehind(sni []byte, e *Explanation) {
	rule := s.Behind(sni)
	if rule == nil {
		e.Refusal = &Because{HostNotServed, "no VirtualService has a tls route for this SNI"}
		return
	}
	e.Owned, e.Remark = true, "TLS is not ended here: the connection is passed on by its SNI, and nothing in it is seen"
	e.Rule = &ExplainedRule{Owner: rule.Owner.String(), Name: rule.Name, Number: rule.number, Why: "its sniHosts have the name"}
	e.Backends = rule.explainBackends(nil, nil, &asked{})
}

// asked is a Question as rules look at it.
type asked struct {
	question *Question
	headers  map[string][]byte
	path     []byte
	query    url.Values
}

func newAsked(q *Question) *asked {
	a := &asked{question: q, headers: map[string][]byte{}}
	for name, values := range q.Header {
		name = textproto.CanonicalMIMEHeaderKey(name)
		if before, more := a.headers[name]; more {
			values = append([]string{string(before)}, values...)
		}
		a.headers[name] = []byte(strings.Join(values, ","))
	}
	path, query, _ := strings.Cut(cmp.Or(q.Path, "/"), "?")
	a.path = []byte(path)
	a.query, _ = url.ParseQuery(query) // what cannot be read is left out, as nothing can match it
	return a
}

// Header gives a header.
func (a *asked) Header(name string) ([]byte, bool) {
	value, present := a.headers[name]
	return value, present
}

// Method gives the method.
func (a *asked) Method() []byte { return []byte(cmp.Or(a.question.Method, "POST")) }

// Authority gives the host as it was written.
func (a *asked) Authority() []byte { return []byte(a.question.Host) }

// Path gives the path.
func (a *asked) Path() []byte { return a.path }

// QueryParameter gives the first value of a parameter.
func (a *asked) QueryParameter(name string) ([]byte, bool) {
	values, present := a.query[name]
	if !present {
		return nil, false
	}
	return []byte(values[0]), true
}

// explain says which rule takes the request, and where it sends it.
func (h *Host) explain(a *asked, e *Explanation) {
	o, named := h.Operation(a.path)
	var otherwise *Operation
	if o != nil && string(a.Method()) != o.Method {
		otherwise, o = o, nil
	}
	var model []byte
	if o != nil {
		e.Operation = o.Name
	}
	if h.namesModel(o) {
		model = []byte(a.question.Model)
	} else if a.question.Model != "" {
		e.Remark = "the model is not looked at, as " + noModel(o, otherwise, a)
	}
	rule := h.explainRules(a, model, e)
	if rule == nil {
		e.Refusal = &Because{NoRuleMatches, "no rule matches this request: add one without matches, or correct the request"}
		return
	}
	e.MaxBody = rule.MaxBody
	timeouts, retries := rule.Timeouts.explain(), rule.Retries.explain()
	e.Timeouts, e.Retries, e.Does = &timeouts, &retries, rule.does()
	e.Backends = rule.explainBackends(&passing{o, otherwise, named, h.Plain}, model, a)
}

// namesModel tells whether a request for an operation says which model it is for.
func (h *Host) namesModel(o *Operation) bool {
	return o != nil && (o.JSON || (o.Form || o.Upgrade) && !h.Plain)
}

func noModel(o, otherwise *Operation, a *asked) string {
	switch {
	case o != nil:
		return "requests for " + o.Name + " name none"
	case otherwise != nil:
		return otherwise.Name + " has method " + otherwise.Method
	}
	return string(a.path) + " is the path of no inference operation"
}

// explainRules asks the rules one after the other, as Match does, and says why each was passed over.
func (h *Host) explainRules(a *asked, model []byte, e *Explanation) *Rule {
	never := h.never
	for i, rule := range h.Rules {
		for len(never) > 0 && never[0].before <= i {
			e.Passed, never = append(e.Passed, never[0].rule), never[1:]
		}
		by, takes := rule.takes(a, model)
		if takes {
			e.Rule = &ExplainedRule{Owner: rule.Owner.String(), Name: rule.Name, Number: rule.number, Why: rule.whyTakes(by, a, model)}
			return rule
		}
		e.Passed = append(e.Passed, PassedOver{Owner: rule.Owner.String(), Name: rule.Name, Number: rule.number, Why: rule.whyNot(a, model)})
	}
	for i := range never {
		e.Passed = append(e.Passed, never[i].rule)
	}
	return nil
}

func because(r *Refusal) *Because {
	if r == nil {
		return nil
	}
	return &Because{r.Code, r.Message}
}
