package usage

import "bytes"

// scanner follows one JSON object that comes in pieces of any length. It keeps to the places that matter and only counts
// brackets elsewhere. Broken JSON makes it find nothing, or nonsense that no reader of the object could find sense in either.
type scanner struct {
	position
	key     [32]byte
	numbers numbers
	found   Report
	has     bool // found is set
	serial  int64
	tally   Tally // of the text
	silent  bool  // the text is not looked at
	model   model
}

// position is where in an object the scanner is.
type position struct {
	mode    mode
	escaped bool // the last byte of the piece before was a backslash that escapes the first of this one
	keyDue  bool // in an object, where the next string is a key
	scalar  bool // a number or word has begun
	whole   bool // of a number: no point or exponent has come
	depth   int8
	keyLen  uint8
	next    place // what the value means that comes next
	stack   [10]place
	skip    int // open brackets of what is elsewhere
	number  int64
	last    bool // the event ends Responses' stream
	marks   marks
}

type mode uint8

const (
	between mode = iota
	inKey
	inString
	inText
	inType
	inModel
	over // the object is complete
)

// reset is for the next object. The tally goes on.
func (s *scanner) reset() {
	s.position, s.has = position{marks: marks{state: uninvolved}}, false
}

// feed takes the next piece, which begins at an offset of the caller's. top is where the outermost object is.
func (s *scanner) feed(b []byte, offset int, top place) {
	for i := 0; i < len(b) && s.mode != over; {
		i = s.step(b, i, offset, top)
	}
}

func (s *scanner) step(b []byte, i, offset int, top place) int {
	switch {
	case s.mode != between:
		return s.inQuotes(b, i)
	case s.skip > 0:
		return s.pass(b, i)
	}
	return s.tokens(b, i, offset, top)
}

// lead is how an event began, up to its text. The next one most often begins with the same bytes, and then they need not be
// read again.
type lead struct {
	length int
	text   [384]byte
	at     position
}

// begin is feed for the beginning of an event's data.
func (l *lead) begin(s *scanner, b []byte, offset int) {
	if n := l.length; n > 0 && len(b) >= n && string(b[:n]) == string(l.text[:n]) {
		s.position = l.at
		s.marks.moved(-offset)
		s.tally.begin()
		s.feed(b[n:], offset+n, eventTop)
		return
	}
	i := 0
	for i < len(b) && i <= len(l.text) && s.mode != over && s.mode != inText {
		i = s.step(b, i, offset, eventTop)
	}
	if s.mode == inText && i <= len(l.text) && !s.has {
		l.length, l.at = copy(l.text[:], b[:i]), s.position
		l.at.marks.moved(offset)
	}
	s.feed(b[i:], offset+i, eventTop)
}

// tokens goes on to the next string, or to the next value that is elsewhere.
func (s *scanner) tokens(b []byte, i, offset int, top place) int {
	for ; i < len(b); i++ {
		switch c := b[i]; c {
		case '"':
			s.quote(offset + i)
			return i + 1
		case '{', '[':
			s.open(c, offset+i, top)
			if s.skip > 0 || s.mode == over {
				return i + 1
			}
		case '}', ']':
			s.close(offset + i)
			if s.mode == over {
				return i + 1
			}
		case ',':
			s.endNumber()
			s.next = elsewhere
			s.keyDue = s.depth > 0 && s.stack[s.depth-1].isObject()
			if s.depth == 1 {
				s.marks.comma(offset + i)
			}
		case ':':
			s.keyDue = false
		case ' ', '\t', '\r', '\n':
		default:
			if s.next.isNumber() {
				s.digit(c)
			} else if s.depth == 1 && s.marks.state == valueDue {
				s.marks.literal(c, offset+i)
			}
		}
	}
	return i
}

// quote begins a string.
func (s *scanner) quote(at int) {
	s.escaped = false
	switch {
	case s.depth == 0:
		s.mode = over
	case s.keyDue:
		s.mode, s.keyLen = inKey, 0
		if s.depth == 1 {
			s.marks.key(at)
		}
	default:
		s.mode = inString
		if !s.silent && (s.next == text || s.next == textOrParts) {
			s.mode = inText
			s.tally.begin()
		}
		if s.next == modelName && !s.model.known {
			s.mode, s.model.length = inModel, 0
		}
		if s.depth == 1 {
			if s.next == eventType {
				s.mode, s.keyLen = inType, 0
			}
			s.marks.keeps = s.marks.keeps || s.next == keeps
			s.marks.other()
		}
	}
}

func (s *scanner) open(c byte, at int, top place) {
	var into place
	switch {
	case s.depth == 0 && c == '[':
		s.mode = over // nothing that matters is in an array
		return
	case s.depth == 0:
		into = top
	case c == '[':
		into = s.next.array()
	default:
		if into = s.stack[s.depth-1].element(); into == choice {
			s.marks.choices = true
		}
		if into == elsewhere && s.next.isObject() {
			into = s.next
		}
	}
	if s.depth == 1 && into != report {
		s.marks.keeps = s.marks.keeps || s.next == keeps
		s.marks.other()
	}
	if into == elsewhere || int(s.depth) == len(s.stack) {
		s.skip = 1
		return
	}
	if into == report {
		s.numbers = noNumbers
	}
	s.stack[s.depth] = into
	s.depth++
	s.keyDue = c == '{'
	s.next = elsewhere
	if s.depth == 1 {
		s.marks.open(at)
	}
}

func (s *scanner) close(at int) {
	s.endNumber()
	s.keyDue, s.next = false, elsewhere
	if s.depth == 0 {
		s.mode = over
		return
	}
	s.depth--
	if s.stack[s.depth] == report {
		if found, ok := s.numbers.report(); ok {
			s.found, s.has = found, true
		}
		if s.depth == 1 {
			s.marks.object(at + 1)
		}
	}
	if s.depth == 0 {
		s.marks.close(at)
		s.mode = over
	}
}

func (s *scanner) digit(c byte) {
	if !s.scalar {
		s.scalar, s.whole, s.number = true, true, -1
	}
	switch {
	case !s.whole:
	case c < '0' || c > '9':
		s.whole = false
		if c == '-' || c == 'e' || c == 'E' {
			s.number = -1
		}
	case s.number > maxTokens:
	default:
		s.number = max(s.number, 0)*10 + int64(c-'0')
	}
}

func (s *scanner) endNumber() {
	if !s.scalar {
		return
	}
	s.scalar = false
	switch {
	case s.number < 0 || s.number > maxTokens:
	case s.next == sequenceNumber:
		s.serial = s.number
	default:
		s.numbers.set(s.next, s.number)
	}
}

// structural tells apart the bytes that pass looks at.
var structural = [256]bool{'"': true, '{': true, '}': true, '[': true, ']': true}

// pass goes on through what is elsewhere.
func (s *scanner) pass(b []byte, i int) int {
	for ; i < len(b); i++ {
		if !structural[b[i]] {
			continue
		}
		switch b[i] {
		case '"':
			s.mode, s.escaped = inString, false
			return i + 1
		case '{', '[':
			s.skip++
		default:
			if s.skip--; s.skip == 0 {
				return i + 1
			}
		}
	}
	return i
}

// inQuotes goes on to the end of a string.
func (s *scanner) inQuotes(b []byte, from int) int {
	end, ended := s.stringEnd(b, from)
	switch s.mode {
	case inText:
		s.tally.add(b[from:end])
	case inKey:
		s.keyPiece(b[from:end], ended)
	case inType:
		if name := s.name(b[from:end], ended); ended {
			s.last = endsResponse(name)
		}
	case inModel:
		s.model.piece(b[from:end], ended)
	default:
	}
	if !ended {
		return end
	}
	s.mode = between
	return end + 1
}

// stringEnd finds the quote that ends a string, or the end of what is here of it.
func (s *scanner) stringEnd(b []byte, i int) (end int, ended bool) {
	if s.escaped {
		s.escaped = false
		i++
	}
	for from := i; ; {
		j := bytes.IndexByte(b[i:], '"')
		if j < 0 {
			j = len(b)
			s.escaped = backslashes(b[from:])%2 == 1
			return j, false
		}
		j += i
		if j == i || b[j-1] != '\\' || backslashes(b[from:j])%2 == 0 {
			return j, true
		}
		i = j + 1
	}
}

// backslashes counts those at the end.
func backslashes(b []byte) int {
	n := 0
	for n < len(b) && b[len(b)-1-n] == '\\' {
		n++
	}
	return n
}

func endsResponse(event []byte) bool {
	switch string(event) {
	case "response.completed", "response.incomplete", "response.failed":
		return true
	}
	return false
}

// name puts together the pieces of a short string. What it gives of one that has not ended means nothing.
func (s *scanner) name(b []byte, ended bool) []byte {
	key := b
	if s.keyLen > 0 || !ended {
		if int(s.keyLen)+len(b) > len(s.key) {
			s.keyLen = uint8(len(s.key)) // longer than all that matter
			key = nil
		} else {
			s.keyLen += uint8(copy(s.key[s.keyLen:], b))
			key = s.key[:s.keyLen]
		}
	}
	return key
}

func (s *scanner) keyPiece(b []byte, ended bool) {
	key := s.name(b, ended)
	if !ended {
		return
	}
	at := s.stack[s.depth-1]
	s.next = at.at(key)
	if s.depth == 1 && at == eventTop {
		s.marks.meaning(s.next)
	}
}
