package routing

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// hostTable finds what belongs to a host by its name: to the very name, else to the longest *.SUFFIX that it has, else to *. It does
// not grow slower with what is in it.
type hostTable[T comparable] struct {
	exact    map[string]T
	suffixes map[string]T // ".example.com"
	deepest  int          // the most dots that one of these has
	rest     T
}

// maxAuthority is longer than any name that DNS has, with a port.
const maxAuthority = 255 + len(":65535")

// find takes an authority as clients write it, with or without port. It gives the zero value where nothing fits.
func (t *hostTable[T]) find(authority []byte) T {
	var none T
	if len(authority) > maxAuthority {
		return t.rest
	}
	var buf [maxAuthority]byte
	name := hostName(buf[:0], authority)
	if found, ok := t.exact[string(name)]; ok {
		return found
	}
	if len(t.suffixes) == 0 {
		return t.rest
	}
	dots := bytes.Count(name, []byte{'.'})
	for at := bytes.IndexByte(name, '.'); dots > 0; dots-- {
		if at > 0 && dots <= t.deepest {
			if found := t.suffixes[string(name[at:])]; found != none {
				return found
			}
		}
		at += 1 + bytes.IndexByte(name[at+1:], '.')
	}
	return t.rest
}

// at gives what belongs to a host as it was put: a name, *.SUFFIX or *.
func (t *hostTable[T]) at(host string) T {
	switch suffix, wild := strings.CutPrefix(host, "*"); {
	case !wild:
		return t.exact[host]
	case suffix == "":
		return t.rest
	default:
		return t.suffixes[suffix]
	}
}

// all gives everything by its host, as it was put.
func (t *hostTable[T]) all() map[string]T {
	var none T
	out := maps.Clone(t.exact)
	if out == nil {
		out = map[string]T{}
	}
	for suffix, v := range t.suffixes {
		out["*"+suffix] = v
	}
	if t.rest != none {
		out["*"] = t.rest
	}
	return out
}

// names gives the hosts as they were put, sorted.
func (t *hostTable[T]) names() []string { return slices.Sorted(maps.Keys(t.all())) }

// put gives a host to its first taker, and tells whether that is the one given.
func (t *hostTable[T]) put(host string, v T) bool {
	var none T
	if t.at(host) != none {
		return false
	}
	if t.exact == nil {
		t.exact, t.suffixes = map[string]T{}, map[string]T{}
	}
	switch suffix, wild := strings.CutPrefix(host, "*"); {
	case !wild:
		t.exact[host] = v
	case suffix == "":
		t.rest = v
	default:
		t.suffixes[suffix], t.deepest = v, max(t.deepest, strings.Count(suffix, "."))
	}
	return true
}

// common gives the narrower of two hosts, each a name, *.SUFFIX or *, where one of them covers the other.
func common(a, b string) (string, bool) {
	switch {
	case covers(a, b):
		return b, true
	case covers(b, a):
		return a, true
	}
	return "", false
}

// covers tells whether every name that b stands for is one that a stands for.
func covers(a, b string) bool {
	suffix, wild := strings.CutPrefix(a, "*")
	if !wild {
		return a == b
	}
	return strings.HasSuffix(strings.TrimPrefix(b, "*"), suffix) && (b[0] == '*' || len(b) > len(suffix))
}
