package routing

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/textproto"
	"regexp"
	"slices"
	"strings"

	"remora.dev/remora/apis/istio"
)

// maxDirectBody is how long a fixed answer may be, as with Istio.
const maxDirectBody = 1 << 20

// judgeAction compiles what a route does beside sending calls to its backends.
func (c *compiler) judgeAction(v *virtual, r *virtualRoute, from *istio.HTTPRoute) {
	a := &Action{}
	if from.Redirect != nil {
		a.Redirect = v.judgeRedirect(r, from.Redirect)
	}
	if d := from.DirectResponse; d != nil {
		a.Direct = v.judgeDirect(r, d)
	}
	a.Fault = v.judgeFault(r, from.Fault)
	if from.Rewrite != nil {
		a.Rewrite = c.judgeRewrite(v, r, from.Rewrite)
	}
	a.Headers = v.headerEdits(r.field+".headers", from.Headers)
	if from.Headers != nil && from.Headers.Request != nil {
		set := from.Headers.Request.Set
		for _, name := range slices.Sorted(maps.Keys(set)) {
			if isAuthority(name) && a.Rewrite.Authority == "" {
				a.Rewrite.Authority = v.judgeAuthority(r, r.field+".headers.request.set["+name+"]", set[name])
			}
		}
	}
	v.judgeMirrors(r, from)
	if a.Redirect != nil || a.Direct != nil || a.Fault != (Fault{}) || a.Rewrite != (Rewrite{}) || !a.Headers.Request.Empty() || !a.Headers.Response.Empty() || len(r.mirrors) > 0 {
		r.action = a
	}
}

// judgeAuthority gives what may stand in a Host header: it must not be able to end it.
func (v *virtual) judgeAuthority(r *virtualRoute, field, authority string) string {
	if strings.ContainsFunc(authority, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`/\@?#"<>`, c) }) || len(authority) > maxAuthority {
		v.refuse(r, field, "is no host with or without port: write one such as llm.example.com")
	}
	return authority
}

func (v *virtual) judgePath(r *virtualRoute, field, path string) {
	switch {
	case path != "" && path[0] != '/':
		v.refuse(r, field, "does not start with /: write a path such as /v1")
	case strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c > '~' }):
		v.refuse(r, field, "has characters that a path cannot have: write them as %%XX")
	case strings.ContainsAny(path, "?#"):
		v.refuse(r, field, "has a query or fragment: remove ? or # and what follows it")
	}
}

func (v *virtual) judgeRedirect(r *virtualRoute, from *istio.HTTPRedirect) *Redirect {
	at := r.field + ".redirect"
	out := &Redirect{
		Status: int(from.RedirectCode), Scheme: strings.ToLower(from.Scheme), Authority: v.judgeAuthority(r, at+".authority", from.Authority),
		Path: from.URI, Prefix: from.PrefixRewrite, HasPrefix: from.PrefixRewrite != "",
	}
	if out.Status == 0 {
		out.Status = 301
	}
	if !slices.Contains([]int{301, 302, 303, 307, 308}, out.Status) {
		v.refuse(r, at+".redirectCode", "%d is no redirect: use 301, 302, 303, 307 or 308", from.RedirectCode)
	}
	if out.Scheme != "" && out.Scheme != "http" && out.Scheme != "https" {
		v.refuse(r, at+".scheme", "is neither http nor https: use one of them")
	}
	if from.Port < 0 || from.Port > 65535 {
		v.refuse(r, at+".port", "%d is not a port: use 1 to 65535", from.Port)
	}
	out.Port = uint16(from.Port)
	switch from.DerivePort {
	case "", "FROM_REQUEST_PORT":
	case "FROM_PROTOCOL_DEFAULT":
		out.DerivePort = true
	default:
		v.refuse(r, at+".derivePort", "is no way to find a port: use FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT")
	}
	if from.Port != 0 && from.DerivePort != "" {
		v.refuse(r, at+".derivePort", "is given together with port: keep one")
	}
	if from.URI != "" && from.PrefixRewrite != "" {
		v.refuse(r, at+".prefixRewrite", "is given together with uri: keep one")
	}
	// The address may have a query of its own, but no line break.
	path, _, _ := strings.Cut(from.URI, "?")
	v.judgePath(r, at+".uri", path)
	if strings.ContainsFunc(from.URI, func(c rune) bool { return c <= ' ' || c > '~' }) {
		v.refuse(r, at+".uri", "has characters that an address cannot have: write them as %%XX")
	}
	v.judgePath(r, at+".prefixRewrite", from.PrefixRewrite)
	return out
}

func (v *virtual) judgeDirect(r *virtualRoute, from *istio.HTTPDirectResponse) *Direct {
	at := r.field + ".directResponse"
	out := &Direct{Status: int(from.Status)}
	if from.Status < 200 || from.Status > 599 {
		v.refuse(r, at+".status", "%d is no status of an answer: use 200 to 599", from.Status)
	}
	if b := from.Body; b != nil {
		switch {
		case b.String != nil && b.Bytes != nil:
			v.refuse(r, at+".body", "has both string and bytes: keep one")
		case b.String != nil:
			out.Body = []byte(*b.String)
		case b.Bytes != nil:
			var err error
			if out.Body, err = base64.StdEncoding.DecodeString(*b.Bytes); err != nil {
				v.refuse(r, at+".body.bytes", "is not base64: give the output of base64 -w0 FILE, or text in string")
			}
		}
	}
	if len(out.Body) > maxDirectBody {
		v.refuse(r, at+".body", "is longer than 1 MiB: have a backend serve it")
	}
	return out
}

func (v *virtual) judgeFault(r *virtualRoute, from *istio.HTTPFaultInjection) (out Fault) {
	if from == nil {
		return out
	}
	at := r.field + ".fault"
	if d := from.Delay; d != nil && d.FixedDelay != nil {
		if d.FixedDelay.Duration <= 0 {
			v.refuse(r, at+".delay.fixedDelay", "%s is no time at all: use a duration such as 2s", d.FixedDelay.Duration)
		}
		out.Delay, out.DelayShare = d.FixedDelay.Duration, v.share(r, at+".delay.percentage.value", d.Percentage, float64(d.Percent))
		if d.Percentage == nil && d.Percent == 0 {
			v.warn(InvalidValue, at+".delay.percentage", "is absent, so no call is held back: give one, with value: 100 for all")
		}
	}
	if a := from.Abort; a != nil && a.HTTPStatus != 0 {
		if a.HTTPStatus < 200 || a.HTTPStatus > 599 {
			v.refuse(r, at+".abort.httpStatus", "%d is no status of an answer: use 200 to 599", a.HTTPStatus)
		}
		out.Abort, out.AbortShare = int(a.HTTPStatus), v.share(r, at+".abort.percentage.value", a.Percentage, 0)
		if a.Percentage == nil {
			v.warn(InvalidValue, at+".abort.percentage", "is absent, so no call is aborted: give one, with value: 100 for all")
		}
	}
	return out
}

// share gives a percentage as a share of 1.
func (v *virtual) share(r *virtualRoute, field string, p *istio.Percent, otherwise float64) float64 {
	if p != nil {
		otherwise = p.Value
	}
	if !(otherwise >= 0 && otherwise <= 100) {
		v.refuse(r, field, "%v is out of range: use 0 to 100", otherwise)
		return 0
	}
	return otherwise / 100
}

func (c *compiler) judgeRewrite(v *virtual, r *virtualRoute, from *istio.HTTPRewrite) (out Rewrite) {
	at := r.field + ".rewrite"
	out.Authority = v.judgeAuthority(r, at+".authority", from.Authority)
	out.Path, out.HasPath = from.URI, from.URI != ""
	v.judgePath(r, at+".uri", from.URI)
	if from.URIRegexRewrite == nil {
		return out
	}
	if out.HasPath {
		v.refuse(r, at+".uriRegexRewrite", "is given together with uri: keep one")
		return out
	}
	before := len(v.list)
	c.judgeStringMatch(v, at+".uriRegexRewrite.match", istio.StringMatch{Regex: &from.URIRegexRewrite.Match})
	if v.wrong(before) != nil {
		return out
	}
	out.Regex, out.Replace = regexp.MustCompile(from.URIRegexRewrite.Match), from.URIRegexRewrite.Rewrite
	if strings.ContainsFunc(out.Replace, func(c rune) bool { return c <= ' ' || c > '~' }) {
		v.refuse(r, at+".uriRegexRewrite.rewrite", "has characters that a path cannot have: write them as %%XX")
	}
	return out
}

func (v *virtual) judgeMirrors(r *virtualRoute, from *istio.HTTPRoute) {
	if d := from.Mirror; d != nil {
		otherwise := float64(100)
		if from.MirrorPercent != nil {
			otherwise = float64(*from.MirrorPercent)
		} else if from.MirrorPercentOld != nil {
			otherwise = float64(*from.MirrorPercentOld)
		}
		v.addMirror(r, r.field+".mirror", d, v.share(r, r.field+".mirrorPercentage.value", from.MirrorPercentage, otherwise))
	}
	for i := range from.Mirrors {
		m, at := &from.Mirrors[i], fmt.Sprintf("%s.mirrors[%d]", r.field, i)
		if m.Destination == nil {
			v.refuse(r, at+".destination", "is required: the name of a Service in host")
			continue
		}
		v.addMirror(r, at+".destination", m.Destination, v.share(r, at+".percentage.value", m.Percentage, 100))
	}
}

func (v *virtual) addMirror(r *virtualRoute, field string, d *istio.Destination, share float64) {
	v.judgeDestination(r, field, d)
	r.mirrors = append(r.mirrors, virtualMirror{*d, field, share})
}

func isAuthority(name string) bool {
	return name == ":authority" || strings.EqualFold(name, "Host")
}

// headerEdits compiles changes of headers. What cannot be changed is left out, with a warning.
func (v *virtual) headerEdits(field string, from *istio.Headers) (out HeaderEdits) {
	if from == nil {
		return out
	}
	edit := func(field string, from *istio.HeaderOperations) (out HeaderEdit) {
		if from == nil {
			return out
		}
		for i, name := range from.Remove {
			if at := fmt.Sprintf("%s.remove[%d]", field, i); v.editable(at, name) {
				out.Remove = append(out.Remove, textproto.CanonicalMIMEHeaderKey(name))
			}
		}
		out.Set, out.Add = v.headerValues(field+".set", from.Set), v.headerValues(field+".add", from.Add)
		return out
	}
	return HeaderEdits{Request: edit(field+".request", from.Request), Response: edit(field+".response", from.Response)}
}

func (v *virtual) headerValues(field string, from map[string]string) (out []HeaderValue) {
	for _, name := range slices.Sorted(maps.Keys(from)) {
		at, value := field+"["+name+"]", from[name]
		if isAuthority(name) && strings.HasSuffix(field, "].headers.request.set") && !strings.Contains(field, ".route[") {
			continue // see judgeAction
		}
		if !v.editable(at, name) {
			continue
		}
		literal := strings.ReplaceAll(value, "%%", "")
		switch {
		case strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
			v.warn(InvalidValue, at, "has control characters and is left out: write the value in one line")
		case strings.Contains(literal, "%"):
			v.warn(FieldNotHonoured, at, "has a command operator of Envoy's in it and is left out: write a fixed value, and %%%% for a percent sign")
		default:
			out = append(out, HeaderValue{textproto.CanonicalMIMEHeaderKey(name), strings.ReplaceAll(value, "%%", "%")})
		}
	}
	return out
}

// editable tells whether a header may be changed: those that say where a request ends, or whom it is for, may not.
func (v *virtual) editable(field, name string) bool {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case isAuthority(name):
		v.warn(FieldNotHonoured, field, "is not honoured: write rewrite.authority of the route")
	case !isToken(name):
		v.warn(InvalidValue, field, "%q is not the name of a header, and is left out: use letters, digits and hyphens", presentable(name))
	case HopByHop(canonical) || canonical == "Content-Length":
		v.warn(FieldNotHonoured, field, "%s belongs to the connection, and stays as it is", canonical)
	default:
		return true
	}
	return false
}
