package proxy

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// endOfString gives the offset after the quote that ends the string whose text begins at from; -1 where
// there is none. Most strings of a body are a word, and for those a call of IndexByte costs more than its
// speed is worth: so their bytes are compared here, eight at a time.
func endOfString(text []byte, from int) int {
	const (
		ones   = 0x0101010101010101
		highs  = 0x8080808080808080
		quotes = '"' * ones
	)
	for i := from; i+8 <= len(text) && i < from+16; {
		// A byte that is a quote becomes 0, and the subtraction sets its highest bit. The lowest bit that is
		// set is right; those above it may come from the borrow, and are not looked at.
		x := binary.LittleEndian.Uint64(text[i:]) ^ quotes
		found := (x - ones) &^ x & highs
		if found == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(found)/8 + 1
		if text[i-2] != '\\' {
			return i
		}
		break
	}
	return endOfLongString(text, from)
}

// endOfLongString is endOfString for strings that are likely to be long.
func endOfLongString(text []byte, at int) int {
	for {
		i := bytes.IndexByte(text[at:], '"')
		if i < 0 {
			return -1
		}
		at += i + 1
		escapes := 0
		for text[at-escapes-2] == '\\' { // the opening quote ends it at the latest
			escapes++
		}
		if escapes%2 == 0 {
			return at
		}
	}
}

// What nearly all messages of a chat begin with. A comparison is done sooner than a search, and a long
// conversation has hundreds of them.
const (
	roleBegins    = `"role":"`
	contentBegins = `,"content":"`
)

// nested passes an object or array without judging what is in it, but for its brackets and strings.
func (s *scanner) nested() *failure {
	var arrays [maxDepth / 64]uint64 // which of the open brackets are [
	depth := 0
	text := s.text
	for i := s.at; i < len(text); {
		c := text[i]
		i++
		switch c {
		default:
			continue
		case '{', '[':
			if depth == maxDepth {
				s.at = i - 1
				return s.broken("the nesting is too deep")
			}
			bit := uint64(1) << (depth % 64)
			if c == '[' {
				arrays[depth/64] |= bit
			} else {
				arrays[depth/64] &^= bit
			}
			depth++
			if len(text)-i < len(roleBegins) || string(text[i:i+len(roleBegins)]) != roleBegins {
				continue
			}
			i += len(roleBegins)
		case '}', ']':
			depth--
			if isArray := arrays[depth/64]&(1<<(depth%64)) != 0; isArray != (c == ']') {
				s.at = i - 1
				return s.broken("a bracket closes another kind of bracket")
			}
			if depth == 0 {
				s.at = i
				return nil
			}
			continue
		case '"':
		}
		// Here a string has begun.
		i = endOfString(text, i)
		if i >= 0 && len(text)-i >= len(contentBegins) && string(text[i:i+len(contentBegins)]) == contentBegins {
			i = endOfLongString(text, i+len(contentBegins))
		}
		if i < 0 {
			s.at = len(text)
			return s.broken("a string does not end")
		}
	}
	s.at = len(text)
	return s.broken("a bracket is not closed")
}
