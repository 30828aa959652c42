package proxy

import (
	"strings"
	"testing"
)

// FuzzNested reads byte by byte what nested reads in leaps: both must find the same end, or the same fault
// at the same place.
func FuzzNested(f *testing.F) {
	for _, text := range []string{
		`[]`, `{"role":"user","content":"Hi"}`, `[{"role":"user","content":"a \"b\" \\"},{"role":"tool"}]x`, `{"role":"","content":""}`,
		`{"role":"a long name of a role, with a \" and a \\","content":"x"}`, `{"role":"user","content":[{"type":"text"}]}`,
		`[{"role":"`, `[{"role":"x","content":"`, `[{"role":"x\","content":"y"}]`, `["\\\\\\"]`, `["a\\\"]"]`, `[{"role":"\\\"","content":"\\\"]"}]`, `["\\\\\\\"]`, `[}`, `[{]`, `[`, `{"a":"b\`,
		`["1234567"]`, `["12345678"]`, `["123456789012345"]`, `["1234567890123456"]`, `["12345678901234567"]`, `["\u00a2"]`, "[\"\xa2\xa2\xa2\xa2\xa2\xa2\xa2\xa2\"]",
		strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), strings.Repeat("[", maxDepth+1), strings.Repeat(`{"role":"x","content":[`, maxDepth/2+1),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) == 0 || text[0] != '{' && text[0] != '[' {
			return
		}
		s := scanner{text: text}
		failure := s.nested()
		at, fault := nestedByBytes(text)
		got := ""
		if failure != nil {
			got = failure.message
		}
		if s.at != at || !strings.HasPrefix(got, fault) || (got == "") != (fault == "") {
			t.Fatalf("%q: at %d %q, and byte by byte at %d %q", text, s.at, got, at, fault)
		}
	})
}

func nestedByBytes(text []byte) (at int, fault string) {
	var open []byte
	inString, escaped := false, false
	for i, c := range text {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped = c == '\\'
			inString = c != '"'
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if len(open) == maxDepth {
				return i, "the nesting is too deep"
			}
			open = append(open, c)
		case c == '}' || c == ']':
			if last := open[len(open)-1]; (last == '[') != (c == ']') {
				return i, "a bracket closes another kind of bracket"
			}
			if open = open[:len(open)-1]; len(open) == 0 {
				return i + 1, ""
			}
		}
	}
	if inString {
		return len(text), "a string does not end"
	}
	return len(text), "a bracket is not closed"
}
