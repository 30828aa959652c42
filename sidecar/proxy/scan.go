package proxy

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"remora.dev/remora/sidecar/routing"
)

// maxDepth is how deep a body may nest: more than any prompt needs, and less than what makes parsers
// behind the proxy run out of stack.
const maxDepth = 512

// document is what the proxy needs to know of a JSON object, and where in the text it stands. Only the
// top level and stream_options are judged; deeper, only strings and brackets are followed. Nothing is
// decoded but keys with escapes and the model.
type document struct {
	open        int // offset after the opening brace
	empty       bool
	model       span
	stream      span
	modelString bool // the model is a string, so modelValue has it
	modelValue  []byte

	options      span // stream_options
	optionsNull  bool
	optionsEmpty bool
	optionsOdd   bool // they are no object, or have a key that can be taken for include_usage: they are left alone
	usage        span // stream_options.include_usage
	most         span // max_tokens, or what stands for it
}

// span is a value in the text; {0, 0} where it is absent.
type span struct{ from, to int }

func (s span) present() bool { return s.to != 0 }

// scan reads the top level of a JSON object. What it accepts, every parser behind the proxy reads the
// same way: broken structure, keys that come twice, and keys that only a lax parser would take for model,
// stream or stream_options are refused.
func scan(text []byte) (document, *failure) {
	s := scanner{text: text}
	var d document
	s.space()
	if !s.take('{') {
		return d, s.broken("the body must be a JSON object, which begins with {")
	}
	d.open = s.at
	var seen keys
	f := s.object(func(key []byte, keyAt int, value span) *failure {
		if f := seen.add(key, keyAt, ""); f != nil {
			return f
		}
		switch string(key) {
		case "model":
			d.model = value
			if text[value.from] == '"' {
				d.modelString = true
				d.modelValue = unquote(text[value.from:value.to])
			}
		case "stream":
			d.stream = value
		case "max_tokens", "max_completion_tokens", "max_output_tokens":
			d.most = value
		case "stream_options":
			d.options = value
			if text[value.from] != '{' {
				d.optionsNull = string(text[value.from:value.to]) == "null"
				d.optionsOdd = !d.optionsNull
				return nil
			}
			inner := scanner{text: text[:value.to], at: value.from + 1}
			var options keys
			f := inner.object(func(key []byte, keyAt int, value span) *failure {
				switch {
				case string(key) == usageKey:
					d.usage = value
				case resembles(key, usageKey):
					d.optionsOdd = true
				}
				return options.add(key, keyAt, "stream_options.")
			})
			d.optionsEmpty = options.count == 0
			return f
		default:
			return lookalike(key, keyAt)
		}
		return nil
	})
	if f != nil {
		return d, f
	}
	d.empty = seen.count == 0
	s.space()
	if s.at != len(text) {
		return d, s.broken("something follows the JSON object")
	}
	return d, nil
}

// lookalike refuses keys that parsers without regard for case take for a key that the proxy judges.
func lookalike(key []byte, at int) *failure {
	for _, name := range [...]string{"model", "stream", "stream_options"} {
		if resembles(key, name) {
			return fail(routing.DuplicateKey, "the key %q at offset %d can be taken for %q: write %q", key, at, name, name)
		}
	}
	return nil
}

// resembles tells whether a key is a name to those who have no regard for case.
func resembles(key []byte, name string) bool {
	// A folded letter may be longer than one byte: U+017F is an s, U+212A a k.
	return len(key) >= len(name) && len(key) <= 2*len(name) && strings.EqualFold(string(key), name)
}

// usageKey is that of stream_options which asks for usage.
const usageKey = "include_usage"

// keys remembers the keys of one object. Few is the rule, so they are compared one by one; many are
// kept in a map, so that an attack with thousands costs no more than its bytes.
type keys struct {
	count int
	few   [16][]byte
	many  map[string]struct{}
}

func (k *keys) add(key []byte, at int, where string) *failure {
	twice := false
	switch {
	case k.count < len(k.few):
		for _, other := range k.few[:k.count] {
			twice = twice || bytes.Equal(other, key)
		}
		k.few[k.count] = key
	default:
		if k.many == nil {
			k.many = map[string]struct{}{}
			for _, other := range k.few {
				k.many[string(other)] = struct{}{}
			}
		}
		_, twice = k.many[string(key)]
		k.many[string(key)] = struct{}{}
	}
	k.count++
	if twice {
		return fail(routing.DuplicateKey, "the key %q is given twice, the second time at offset %d: keep one", where+string(key), at)
	}
	return nil
}

type scanner struct {
	text []byte
	at   int
}

func (s *scanner) broken(why string) *failure {
	return fail(routing.InvalidJSON, "%s (offset %d)", why, s.at)
}

func (s *scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// object reads the members of an object whose brace has been taken, to its end.
func (s *scanner) object(member func(key []byte, keyAt int, value span) *failure) *failure {
	s.space()
	if s.take('}') {
		return nil
	}
	for {
		s.space()
		keyAt := s.at
		if !s.take('"') {
			return s.broken("a key in double quotes is expected here")
		}
		if !s.str() {
			return s.broken("a string does not end")
		}
		key := unquote(s.text[keyAt:s.at])
		if key == nil {
			s.at = keyAt
			return s.broken("a key is not a valid JSON string")
		}
		s.space()
		if !s.take(':') {
			return s.broken("a colon is expected here")
		}
		s.space()
		from := s.at
		if f := s.value(); f != nil {
			return f
		}
		if f := member(key, keyAt, span{from, s.at}); f != nil {
			return f
		}
		s.space()
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return s.broken("a comma or } is expected here")
		}
	}
}

// value passes one value.
func (s *scanner) value() *failure {
	if s.at == len(s.text) {
		return s.broken("the text ends where a value is expected")
	}
	switch c := s.text[s.at]; c {
	case '"':
		from := s.at
		s.at++
		if !s.str() {
			return s.broken("a string does not end")
		}
		// One that is short may be the model; a long one is a prompt, which is not judged.
		if s.at-from <= 1024 && !json.Valid(s.text[from:s.at]) {
			s.at = from
			return s.broken("a string is not valid JSON")
		}
		return nil
	case '{', '[':
		return s.nested()
	}
	from := s.at
	for s.at < len(s.text) && !bytes.ContainsRune([]byte(" \t\r\n,}]"), rune(s.text[s.at])) {
		s.at++
	}
	if !json.Valid(s.text[from:s.at]) {
		s.at = from
		return s.broken("a value is not valid JSON")
	}
	return nil
}

// str passes a string whose opening quote has been taken.
func (s *scanner) str() bool {
	end := endOfString(s.text, s.at)
	if end < 0 {
		s.at = len(s.text)
		return false
	}
	s.at = end
	return true
}

// unquote gives the value of a JSON string; nil if it is not one. Without escapes it is the text itself.
func unquote(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	plain := true
	for _, c := range inner {
		if c < ' ' {
			return nil
		}
		plain = plain && c != '\\' && c < utf8.RuneSelf
	}
	if plain {
		return inner
	}
	var s string
	if json.Unmarshal(quoted, &s) != nil {
		return nil
	}
	return []byte(s)
}
