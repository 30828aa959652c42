package proxy

import (
	"bytes"
	"strings"

	"remora.dev/remora/sidecar/routing"
)

func hasPort(authority string) bool { return len(hostOf([]byte(authority))) < len(authority) }

func hasQuery(path string) bool { return strings.IndexByte(path, '?') >= 0 }

// upstreamAuthority is the Host header at the current target: that of a provider is its own, whatever a rule says.
func (c *call) upstreamAuthority() string {
	if c.target.Authority != "" {
		return c.target.Authority
	}
	authority := string(c.authority)
	if a := c.rule.Action; a != nil && a.Rewrite.Authority != "" {
		authority = a.Rewrite.Authority
	}
	if c.shadow {
		return shadowed(authority)
	}
	return authority
}

// rewritten is the request's path as the rule wants it at the backend.
func (c *call) rewritten() []byte {
	a := c.rule.Action
	if a == nil || !a.Rewrite.HasPath && a.Rewrite.Regex == nil {
		return c.path
	}
	var path []byte
	if r := &a.Rewrite; r.Regex != nil {
		path = replaceAll(r, c.path)
	} else {
		path = c.inPlace(r.Path)
	}
	return asPath(path)
}

// inPlace puts something in the place of what the rule's match took of the path.
func (c *call) inPlace(of string) []byte {
	taken := c.rule.Matched
	if taken < 0 || taken > len(c.path) {
		taken = len(c.path)
	}
	return append([]byte(of), c.path[taken:]...)
}

// replaceAll replaces what a regular expression finds. \1 in the replacement is what its first group found.
func replaceAll(r *routing.Rewrite, path []byte) []byte {
	var out []byte
	at := 0
	for _, m := range r.Regex.FindAllSubmatchIndex(path, -1) {
		out = append(out, path[at:m[0]]...)
		for i := 0; i < len(r.Replace); i++ {
			c := r.Replace[i]
			if c != '\\' || i+1 == len(r.Replace) {
				out = append(out, c)
				continue
			}
			i++
			if n := int(r.Replace[i]) - '0'; n >= 0 && n <= 9 {
				if 2*n+1 < len(m) && m[2*n] >= 0 {
					out = append(out, path[m[2*n]:m[2*n+1]]...)
				}
				continue
			}
			out = append(out, r.Replace[i]) // \\ is a backslash
		}
		at = m[1]
	}
	return append(out, path[at:]...)
}

// asPath has a path begin with its slash, and escapes what would end it.
func asPath(path []byte) []byte {
	out := path
	if len(path) == 0 || path[0] != '/' {
		out = append([]byte{'/'}, path...)
	}
	if bytes.IndexFunc(out, ends) < 0 {
		return out
	}
	const digits = "0123456789ABCDEF"
	var escaped []byte
	for _, c := range out {
		if ends(rune(c)) {
			escaped = append(escaped, '%', digits[c>>4], digits[c&15])
		} else {
			escaped = append(escaped, c)
		}
	}
	return escaped
}

// ends tells whether something cannot be in a path as it is written.
func ends(c rune) bool { return c <= ' ' || c == '?' || c == '#' || c == 0x7f }
