package routing

import (
	"bytes"
	"cmp"
)

// PathAt is the path at a target of the rule; the app's own where the table has none for it. model is what Host.Operation gave.
func (r *Rule) PathAt(t *Target, o *Operation, model string, path []byte) string {
	if o != nil {
		if at, ok := t.PathFor(o, model); ok {
			return at
		}
	}
	return cmp.Or(string(r.Rewritten(path)), "/")
}

// Rewritten is a request's path as the rule wants it at the backend.
func (r *Rule) Rewritten(path []byte) []byte {
	a := r.Action
	switch {
	case a == nil || !a.Rewrite.HasPath && a.Rewrite.Regex == nil:
		return path
	case a.Rewrite.Regex != nil:
		return asPath(replaceAll(&a.Rewrite, path))
	}
	return asPath(r.InPlace(a.Rewrite.Path, path))
}

// InPlace puts something in the place of what the rule's match took of the path.
func (r *Rule) InPlace(of string, path []byte) []byte {
	taken := r.Matched
	if taken < 0 || taken > len(path) {
		taken = len(path)
	}
	return append([]byte(of), path[taken:]...)
}

// replaceAll replaces what a regular expression finds. \1 in the replacement is what its first group found.
func replaceAll(r *Rewrite, path []byte) []byte {
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
