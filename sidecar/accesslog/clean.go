package accesslog

import "unicode/utf8"

// nameRoom is how many bytes of a line one name may take. All of them together leave a line below 8 KiB.
const nameRoom = 256

const (
	unreadable = "\uFFFD" // in place of what has no place in a line
	more       = "…"      // in place of the rest
)

// isClean tells whether a value can be written as it is: most can.
func isClean[text string | []byte](value text) bool {
	if len(value) > nameRoom {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// clean appends a value without what could end a line, end a string, move the cursor of a terminal or turn the direction of text, and not
// more of it than takes up nameRoom bytes of JSON.
func clean(b []byte, value string) []byte {
	room := nameRoom - len(more)
	for i := 0; i < len(value); {
		c, size := utf8.DecodeRuneInString(value[i:])
		part, cost := value[i:i+size], size
		switch {
		case c == utf8.RuneError && size == 1, isControl(c):
			part, cost = unreadable, len(unreadable)
		case c == '"', c == '\\':
			cost = 2
		}
		if room -= cost; room < 0 {
			if room+len(more) >= 0 && i+size == len(value) {
				return append(b, part...) // the last one fits where the sign would be
			}
			return append(b, more...)
		}
		b = append(b, part...)
		i += size
	}
	return b
}

// isControl tells whether a character acts rather than shows: what ends a line for somebody, what terminals obey, what turns the direction
// of text, and what is not seen at all.
func isControl(c rune) bool {
	switch {
	case c < ' ', c >= 0x7f && c < 0xa0, isHidden(c):
		return true
	case c == 0x2028, c == 0x2029, c >= 0x202a && c <= 0x202e, c >= 0x2066 && c <= 0x2069:
		return true
	}
	return false
}

// isHidden tells whether a character has no width: a word with some of them reads as ever, and is another one for a program.
func isHidden(c rune) bool {
	return c == 0xad || c >= 0x200b && c <= 0x200f || c >= 0x2060 && c <= 0x2064 || c == 0xfeff || c >= 0xe0000 && c <= 0xe007f
}
