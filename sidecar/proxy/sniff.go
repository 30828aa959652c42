package proxy

import (
	"bytes"

	"remora.dev/remora/sidecar/routing"
)

// verdict is what the first bytes of a redirected connection are.
type verdict int

const (
	undecided verdict = iota // more bytes have to come
	owned                    // a request that names an owned host
	foreign                  // a request of HTTP/1 that names none
	alien                    // no request of HTTP/1
	forbidden                // nothing that may be passed on now
)

// sniff judges the first bytes that a client sends. What it calls foreign or alien leaves the pod as it is, in plain
// text, so it reads more generously than any server: a request in which anybody could find an owned host is owned, even
// where no rule of HTTP lets it be there. Whether such a request is served or refused, the server decides that gets it.
//
// Only the first request counts, and only its head. It is decided once the blank line has come.
func sniff(b []byte, t *routing.Table) verdict {
	b = bytes.TrimLeft(b, " \t\r\n") // servers skip empty lines
	method := 0
	for method < len(b) && isToken(b[method]) {
		method++
	}
	switch {
	case method == len(b):
		return undecided
	case method == 0 || !isBlank(b[method]) && b[method] != '\r' && b[method] != '\n':
		return alien
	}
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return undecided
	}
	words, version := 0, []byte(nil)
	for word := range bytes.FieldsFuncSeq(b[method:end], isSpace) {
		words++
		if len(word) >= len(versionPrefix) && bytes.EqualFold(word[:len(versionPrefix)], versionPrefix) {
			version = word
		}
		if inTarget(word, t) {
			return owned
		}
	}
	switch {
	case words == 0:
		return alien // a word alone
	case version == nil:
		// HTTP/0.9, or a protocol of lines. It has no head to wait for, and servers that take it read none.
		if inHeaders(b[end:], t) {
			return owned
		}
		return alien
	}
	head := headEnd(b[end:])
	switch {
	case head < 0:
		return undecided
	case inHeaders(b[:end+head], t):
		return owned
	case string(b[:method]) == "PRI":
		return alien // HTTP/2 begins like this
	}
	return foreign
}

var versionPrefix = []byte("HTTP/")

// headEnd gives where the head ends in what follows the request line; -1 is not yet.
func headEnd(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return -1
		}
		at += i + 1
		switch rest := b[at:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return at
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return at
		}
	}
}

// inTarget tells whether a word of the request line has an owned host where a URL, or the target of CONNECT, has it.
func inTarget(word []byte, t *routing.Table) bool {
	if word[0] == '/' {
		return false // a path
	}
	authority, _, _ := bytes.Cut(word, []byte{'/'})
	if names(authority, t) {
		return true
	}
	_, rest, _ := bytes.Cut(word, []byte{':'})
	authority, _, _ = bytes.Cut(bytes.TrimLeft(rest, `/\`), []byte{'/'})
	return names(authority, t)
}

// inHeaders tells whether a Host header names an owned host. A line may end with CR alone, and go on after a break and
// a space; the name may be of any case, and have anything around it that is not part of a name.
func inHeaders(head []byte, t *routing.Table) bool {
	host := false
	for line := range bytes.FieldsFuncSeq(head, func(r rune) bool { return r == '\r' || r == '\n' }) {
		goesOn := isBlank(line[0])
		if goesOn && host && names(line, t) {
			return true
		}
		name, value, colon := bytes.Cut(line, []byte{':'})
		switch {
		case isHost(name):
			host = true
			if colon && names(value, t) {
				return true
			}
		case !goesOn:
			host = false
		}
	}
	return false
}

// names tells whether a text has the name of an owned host in it, whatever is around it.
func names(text []byte, t *routing.Table) bool {
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return false
	}
	if t.Host(text) != nil {
		return true
	}
	for part := range bytes.FieldsFuncSeq(text, outsideHost) {
		if t.Host(part) != nil {
			return true
		}
	}
	return false
}

// outsideHost tells which characters no host and port has.
func outsideHost(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return false
	}
	switch r {
	case '-', '.', '_', ':', '[', ']':
		return false
	}
	return true
}

// isHost compares a header's name, leaving out what cannot be part of one.
func isHost(name []byte) bool {
	const want = "host"
	at := 0
	for _, c := range name {
		if !isToken(c) {
			continue
		}
		if at == len(want) || c|0x20 != want[at] {
			return false
		}
		at++
	}
	return at == len(want)
}

// isToken is tchar of RFC 9110, of which methods and the names of headers are made.
func isToken(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}

// isBlank is what may be between the words of a line.
func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\v' || c == '\f' }

func isSpace(r rune) bool { return r == '\r' || r < 0x80 && isBlank(byte(r)) }
