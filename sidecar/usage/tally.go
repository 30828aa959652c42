package usage

// Tally estimates how many tokens a text has, while it passes as the inside of JSON strings. What a tokenizer does is
// guessed from the classes of neighbouring characters: a word costs most where it begins, a Chinese character costs the same
// everywhere.
type Tally struct {
	sum     int64 // in 1/256 tokens
	counted int64 // bytes that are in sum
	skipped int64 // bytes that are not
	inside  int   // bytes of the string so far
	last    class
	escape  uint8 // 1: after a backslash; 2 to 5: the digits of \u that are still to come, and one more
	code    uint16
}

// maxCounted bounds what is looked at of one string; the rest is taken to be like it.
const maxCounted = 4 << 10

type class uint8

const (
	lower class = iota
	upper
	digit
	space
	newline
	punctuation
	han      // Chinese, Japanese
	alphabet // of two bytes: accents, Greek, Cyrillic, Arabic and others
	script   // of three bytes: Hangul, Thai, Devanagari and others
	symbol   // dashes, quotes, arrows
	emoji
	classCount
	within     // a continuation byte
	backslash_ // begins an escape
)

func (t *Tally) reset() { *t = Tally{last: newline} }

// begin says that a string begins.
func (t *Tally) begin() { t.escape, t.inside = 0, 0 }

// Tokens gives the estimate so far.
func (t *Tally) Tokens() int64 {
	if t.counted == 0 {
		return 0
	}
	sum := t.sum + int64(float64(t.sum)*float64(t.skipped)/float64(t.counted))
	return (sum + 255) / 256
}

func (t *Tally) add(b []byte) {
	if room := maxCounted - t.inside; len(b) > room {
		room = max(room, 0)
		t.skipped += int64(len(b) - room)
		t.inside += len(b) - room
		b = b[:room]
	}
	t.inside += len(b)
	t.counted += int64(len(b))
	for _, c := range b {
		if t.escape > 0 {
			t.unescape(c)
			continue
		}
		k := classes[c]
		if k > classCount {
			if k == backslash_ {
				t.escape = 1
			}
			continue
		}
		t.sum += int64(costs[t.last][k])
		t.last = k
	}
}

func (t *Tally) character(k class) {
	t.sum += int64(costs[t.last][k])
	t.last = k
}

// unescape takes the next byte of an escape.
func (t *Tally) unescape(c byte) {
	if t.escape == 1 {
		t.escape = 0
		switch c {
		case 'u':
			t.escape, t.code = 5, 0
		case 'n', 'r':
			t.character(newline)
		case 't':
			t.character(space)
		default:
			t.character(punctuation)
		}
		return
	}
	d := uint16(c & 15)
	if c > '9' {
		d += 9
	}
	t.code = t.code<<4 | d&15
	if t.escape--; t.escape == 1 {
		t.escape = 0
		t.character(classOf(t.code))
	}
}

// classOf is the class of a UTF-16 code unit.
func classOf(u uint16) class {
	switch {
	case u < 0x80:
		return min(classes[u], emoji)
	case u < 0x800:
		return alphabet
	case u < 0x2000:
		return script
	case u < 0x3000:
		return symbol
	case u < 0xA000:
		return han
	case u < 0xD800:
		return script
	case u < 0xDC00:
		return emoji
	case u < 0xE000: // its second half
		return lower
	}
	return han // full-width forms
}

// classes are those of bytes; of a character of several, the first one counts.
var classes = func() (all [256]class) {
	for c := range all {
		switch {
		case c == '\\':
			all[c] = backslash_
		case 'a' <= c && c <= 'z':
			all[c] = lower
		case 'A' <= c && c <= 'Z':
			all[c] = upper
		case '0' <= c && c <= '9':
			all[c] = digit
		case c == ' ' || c == '\t':
			all[c] = space
		case c < ' ':
			all[c] = newline
		case c < 0x80:
			all[c] = punctuation
		case c < 0xC0:
			all[c] = within
		case c < 0xE0:
			all[c] = alphabet
		case c == 0xE2:
			all[c] = symbol
		case 0xE3 <= c && c <= 0xE9, c == 0xEF:
			all[c] = han
		case c < 0xF0:
			all[c] = script
		default:
			all[c] = emoji
		}
	}
	return all
}()

// costs are what a character costs after another, in 1/256 tokens: fitted to what the tokenizer o200k_base makes of English and
// Chinese texts, code, JSON and YAML.
var costs = [classCount][classCount]uint16{
	lower:       {6, 55, 217, 47, 258, 0, 28, 143, 154, 242, 512},
	upper:       {175, 23, 390, 0, 679, 155, 483, 111, 154, 134, 512},
	digit:       {381, 749, 45, 78, 290, 72, 294, 102, 154, 248, 512},
	space:       {186, 70, 423, 9, 496, 73, 198, 0, 154, 127, 520},
	newline:     {128, 505, 243, 302, 0, 180, 0, 93, 154, 247, 512},
	punctuation: {431, 329, 443, 285, 0, 45, 0, 433, 154, 201, 569},
	han:         {101, 239, 266, 0, 151, 488, 190, 102, 154, 582, 512},
	alphabet:    {361, 230, 179, 0, 206, 388, 179, 64, 154, 276, 512},
	script:      {230, 230, 179, 26, 179, 205, 179, 102, 154, 256, 512},
	symbol:      {105, 213, 145, 59, 168, 102, 425, 122, 154, 287, 512},
	emoji:       {230, 230, 179, 68, 179, 227, 179, 102, 154, 256, 512},
}
