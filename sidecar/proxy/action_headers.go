package proxy

import (
	"slices"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// untouchable tells whether a header says where a message ends, or whom it is for, so that no rule may change it.
func untouchable(name string) bool {
	return routing.HopByHop([]byte(name)) || name == fasthttp.HeaderHost || name == fasthttp.HeaderContentLength || name == fasthttp.HeaderExpect
}

// replaces tells whether a header of the request goes, by the rule or the backend.
func (o *outgoing) replaces(name []byte) bool {
	for _, e := range o.edits {
		if e == nil {
			continue
		}
		if slices.Contains(e.Remove, string(name)) || slices.ContainsFunc(e.Set, func(h routing.HeaderValue) bool { return h.Name == string(name) }) {
			return true
		}
	}
	return false
}

// appendEdits adds the headers that the rule and the backend set. Where both set one, it is the backend's.
func (o *outgoing) appendEdits(dst []byte) []byte {
	keyed := o.target != nil && o.target.Keyed()
	add := func(h *routing.HeaderValue) {
		name := []byte(h.Name)
		if untouchable(h.Name) || keyed && (credential(name) || overrides(name)) || !isFieldName(h.Name) {
			return
		}
		dst = append(append(dst, h.Name...), ": "...)
		dst = append(appendOneLine(dst, h.Value), "\r\n"...)
	}
	for i, e := range o.edits {
		if e == nil {
			continue
		}
		for j := range e.Set {
			if i > 0 || o.edits[1] == nil || !changes(o.edits[1], e.Set[j].Name) {
				add(&e.Set[j])
			}
		}
		for j := range e.Add {
			if i > 0 || o.edits[1] == nil || !changes(o.edits[1], e.Add[j].Name) {
				add(&e.Add[j])
			}
		}
	}
	return dst
}

// changes tells whether what was there of a header goes.
func changes(e *routing.HeaderEdit, name string) bool {
	return slices.Contains(e.Remove, name) || slices.ContainsFunc(e.Set, func(h routing.HeaderValue) bool { return h.Name == name })
}

// isFieldName tells whether a name is one: others could end the line.
func isFieldName(name string) bool {
	for i := range len(name) {
		if !isToken(name[i]) {
			return false
		}
	}
	return name != ""
}

// appendOneLine adds a value as what it has to be: a line.
func appendOneLine(dst []byte, value string) []byte {
	for i := range len(value) {
		c := value[i]
		if c < ' ' && c != '\t' || c == 0x7f {
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}

// forwarding tells whether a header says what a gateway says by itself: what clients say there is theirs, and could be anything.
func forwarding(name []byte) bool {
	switch string(name) {
	case fasthttp.HeaderXForwardedFor, "X-Forwarded-Proto", fasthttp.HeaderXForwardedHost, "X-Forwarded-Port", "X-Forwarded-Client-Cert", fasthttp.HeaderForwarded:
		return true
	}
	return false
}

// appendForwarded tells a backend who called, how, and for what. Of X-Forwarded-For the last address is what the gateway has seen.
// Providers outside of the cluster are told nothing.
func (o *outgoing) appendForwarded(dst []byte, from *fasthttp.RequestHeader) []byte {
	if o.target == nil || o.target.Provider.Kind == v1beta1.KindLLMProvider {
		return dst
	}
	dst = append(dst, "X-Forwarded-For: "...)
	for name, value := range from.All() {
		if string(name) == fasthttp.HeaderXForwardedFor && len(value) > 0 {
			dst = append(append(dst, value...), ", "...)
		}
	}
	dst = append(append(dst, o.via.address()...), "\r\nX-Forwarded-Proto: "...)
	dst = append(append(dst, o.via.public.scheme()...), "\r\nX-Forwarded-Host: "...)
	return append(append(dst, o.asked...), "\r\n"...)
}

func (u *public) scheme() string {
	if u.secured() {
		return "https"
	}
	return "http"
}

// prepare adds what the rule and the backend say of the request's headers.
func (c *call) prepare(out *outgoing) {
	if a := c.rule.Action; a != nil && !a.Headers.Request.Empty() {
		out.edits[0] = &a.Headers.Request
	}
	if b := c.backend; b != nil && b.Headers != nil && !b.Headers.Request.Empty() {
		out.edits[1] = &b.Headers.Request
	}
	if c.client.public != nil {
		out.via, out.asked = c.client, c.authority
	}
}

// editAnswer changes the headers of an answer as the rule and the backend say.
func (c *call) editAnswer() {
	if a := c.rule.Action; a != nil {
		editResponse(&c.ctx.Response.Header, &a.Headers.Response)
	}
	if b := c.backend; b != nil && b.Headers != nil {
		editResponse(&c.ctx.Response.Header, &b.Headers.Response)
	}
}

func editResponse(h *fasthttp.ResponseHeader, e *routing.HeaderEdit) {
	for _, name := range e.Remove {
		if !untouchable(name) {
			h.Del(name)
		}
	}
	for _, set := range [...]struct {
		values []routing.HeaderValue
		put    func(name, value string)
	}{{e.Set, h.Set}, {e.Add, h.Add}} {
		for _, v := range set.values {
			if !untouchable(v.Name) && isFieldName(v.Name) {
				set.put(v.Name, string(appendOneLine(nil, v.Value)))
			}
		}
	}
}
