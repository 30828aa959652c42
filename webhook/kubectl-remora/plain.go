package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// harmless tells whether a terminal shows r and does nothing else: no control character, and none that turns the direction of what follows
// or hides it.
func harmless(r rune) bool { return r == ' ' || unicode.IsPrint(r) }

// plain gives s with all that a terminal would obey written out, such as \x1b for the character by which colours, titles and the answers of
// terminals begin. What is printed is one line.
func plain(s string) string {
	safe := true
	for i, r := range s {
		if !harmless(r) || r == utf8.RuneError && broken(s[i:]) {
			safe = false
			break
		}
	}
	if safe {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && broken(s[i:]):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case harmless(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// broken tells whether s begins with what is no UTF-8.
func broken(s string) bool {
	_, size := utf8.DecodeRuneInString(s)
	return size == 1
}

// plainLines is plain for text of several lines.
func plainLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = plain(line)
	}
	return strings.Join(lines, "\n")
}

// plainJSON gives JSON with all that a terminal would obey in its JSON form, \u009b for example. The value is the same: outside of strings,
// JSON has no such characters, but for the ends of lines.
func plainJSON(text []byte) []byte {
	b := make([]byte, 0, len(text))
	for rest := text; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, `\ufffd`...)
		case harmless(r), r == '\n', r == '\t':
			b = append(b, rest[:size]...)
		case r > 0xffff:
			high, low := surrogates(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
		rest = rest[size:]
	}
	return b
}

func surrogates(r rune) (high, low rune) {
	r -= 0x10000
	return 0xd800 + r>>10, 0xdc00 + r&0x3ff
}

// cut gives at most n characters of s; 0 is all of them.
func cut(s string, n int) string {
	if n == 0 || utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}
