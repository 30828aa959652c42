package proxy

import "bytes"

// ownCredentials are the parameters in which APIs take keys. The app's own are removed where the provider's key is sent, as
// its headers are (see credential).
const ownCredentials = "access_token=&api-key=&api_key=&apikey=&key=&subscription-key=&token="

// appendQuery adds the question mark and the query of a request to a provider: what the provider wants in
// each, and what the app sent under other names than those and the removed ones, to the letter. Without either there is nothing.
func appendQuery(dst []byte, fixed, removed string, app []byte) []byte {
	if fixed == "" && removed == "" {
		if len(app) > 0 {
			dst = append(append(dst, '?'), app...)
		}
		return dst
	}
	before := byte('?')
	if fixed != "" {
		dst, before = append(append(dst, '?'), fixed...), '&'
	}
	for len(app) > 0 {
		// A few servers take ; for what & is.
		end, after := bytes.IndexAny(app, "&;"), byte('&')
		part := app
		if end < 0 {
			app = nil
		} else {
			part, after, app = app[:end], app[end], app[end+1:]
		}
		if !fixes(fixed, part) && !fixes(removed, part) {
			dst = append(append(dst, before), part...)
			before = '&'
		}
		if before != '?' {
			before = after
		}
	}
	return dst
}

// fixes tells whether one of the fixed parameters has the name of this one.
func fixes(fixed string, parameter []byte) bool {
	name, _, _ := bytes.Cut(parameter, []byte{'='})
	for len(fixed) > 0 {
		i, same := 0, true
		for j := 0; same; {
			a, n := decoded(fixed[i:])
			b, m := decoded(name[j:])
			switch {
			case n == 0 || fixed[i] == '=':
				if m == 0 {
					return true
				}
				same = false
			case m == 0 || a != b:
				same = false
			}
			i, j = i+n, j+m
		}
		for i = 0; i < len(fixed) && fixed[i] != '&'; i++ {
		}
		fixed = fixed[min(i+1, len(fixed)):]
	}
	return false
}

// decoded gives the first character of a name, in lower case, and how many bytes it takes; 0 at its end. What
// is not written as RFC 3986, section 2.1, asks stands for itself. There are servers that take upper and lower
// case for the same.
func decoded[T string | []byte](s T) (c byte, n int) {
	if len(s) == 0 {
		return 0, 0
	}
	c, n = s[0], 1
	switch {
	case c == '+':
		c = ' '
	case c == '%' && len(s) > 2:
		if high, low := nibble(s[1]), nibble(s[2]); high >= 0 && low >= 0 {
			c, n = byte(high<<4|low), 3
		}
	}
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c, n
}

func nibble(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
