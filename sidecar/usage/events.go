package usage

import "bytes"

// lines follows the lines of server-sent events.
type lines struct {
	line    lineState
	matched uint8 // bytes of the field's name
	bom     uint8 // bytes of the byte order mark
	mark    uint8 // bytes of [DONE]
	marking bool  // the event's data may be [DONE]
	blank   bool  // nothing of the line has come
	value   bool  // the event has data
	afterCR bool  // a line feed now belongs to the line end before
	dropped bool  // the event before was dropped
	torn    bool  // some of the event has been passed on already
	data    bool  // an event with data has come
	said    bool  // the last event with data said that it is the last
	start   int   // offset of the event
	scanned int   // offset of what is new
}

type lineState uint8

const (
	inName lineState = iota
	afterName
	inValue
	otherLine
)

const (
	byteOrderMark = "\xEF\xBB\xBF"
	dataName      = "data:"
	doneMark      = "[DONE]"
)

func (l *lines) reset() { *l = lines{blank: true} }

// Pass reads what is new in b: an answer of events as it has arrived, without what was passed on before (see Passed). In
// AskedEvents it removes what the app did not ask for, so that n bytes of b are left. The first whole ones of them are whole
// events.
func (m *Meter) Pass(b []byte) (n, whole int) {
	l := &m.lines
	from, to := l.start, l.start // of the current event: where it is, and where it goes
	for i := l.scanned; i < len(b); {
		if l.afterCR {
			l.afterCR = false
			if b[i] == '\n' {
				if i++; i-1 == from { // it belongs to the event before
					if !l.dropped {
						b[to] = '\n'
						to++
					}
					from = i
				}
				continue
			}
		}
		end := i + lineLength(b[i:])
		m.piece(b[i:end], i)
		if end == len(b) {
			break
		}
		i = end + 1
		if b[end] == '\r' {
			if l.afterCR = i == len(b); !l.afterCR && b[i] == '\n' {
				i++
			}
		}
		if l.blank {
			to = m.endEvent(b, to, from, i)
			from = i
		}
		l.line, l.matched, l.blank, l.bom = inName, 0, true, uint8(len(byteOrderMark))
	}
	n = len(b)
	if to != from {
		n = to + copy(b[to:], b[from:])
		m.scan.marks.moved(from - to)
	}
	l.start, l.scanned = to, n
	return n, to
}

// Finish is for the end of the answer: what Pass left behind the whole events is taken for an event, as lenient readers do. It
// gives how many bytes are left of it all.
func (m *Meter) Finish(b []byte) int {
	l := &m.lines
	n := m.endEvent(b, l.start, l.start, len(b))
	l.start, l.scanned = n, n
	return n
}

// Passed says that the first n bytes of what Pass left have been passed on, and are not in the next b.
func (m *Meter) Passed(n int) {
	l := &m.lines
	l.torn = l.torn || n > l.start
	l.start = max(l.start-n, 0)
	l.scanned -= n
	m.scan.marks.moved(n)
}

// Tear is for an event that is too long to be held: it gives how many bytes of b, which is what Pass left, can be passed on
// before the event is complete. That is all of them, unless the last ones may have to be removed. n bytes of b are left.
func (m *Meter) Tear(b []byte) (n, pass int) {
	k := &m.scan.marks
	if m.form != AskedEvents {
		return len(b), len(b)
	}
	if k.removes && k.from >= 0 {
		b = append(b[:k.from], b[k.to:]...)
		m.lines.scanned = len(b)
	}
	k.removes = false
	return len(b), k.held(len(b))
}

// lineLength finds the end of the line.
func lineLength(b []byte) int {
	if b[0] == '\n' {
		return 0
	}
	n := len(b)
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		n = i
	}
	if i := bytes.IndexByte(b[:n], '\r'); i >= 0 {
		n = i
	}
	return n
}

// piece takes what is here of a line.
func (m *Meter) piece(b []byte, offset int) {
	l := &m.lines
	for ; l.bom < uint8(len(byteOrderMark)) && len(b) > 0; offset++ {
		if b[0] != byteOrderMark[l.bom] {
			if l.bom > 0 {
				l.line = otherLine
			}
			l.bom = uint8(len(byteOrderMark))
			break
		}
		l.bom++
		l.blank = l.bom == uint8(len(byteOrderMark))
		b = b[1:]
	}
	if len(b) == 0 {
		return
	}
	l.blank = false
	if l.line == inName {
		for l.matched < uint8(len(dataName)) && len(b) > 0 {
			if b[0] != dataName[l.matched] {
				l.line = otherLine
				return
			}
			l.matched++
			b = b[1:]
			offset++
		}
		if l.matched < uint8(len(dataName)) {
			return
		}
		l.line = afterName
	}
	if l.line == afterName && len(b) > 0 {
		if b[0] == ' ' {
			b = b[1:]
			offset++
		}
		l.line = inValue
	}
	if l.line == inValue && len(b) > 0 {
		m.value(b, offset)
	}
}

// value takes what is here of an event's data.
func (m *Meter) value(b []byte, offset int) {
	l := &m.lines
	if !l.value {
		l.value, l.marking, l.mark = true, b[0] == doneMark[0], 0
		if !l.marking {
			m.lead.begin(&m.scan, b, offset)
			return
		}
	}
	if !l.marking {
		m.scan.feed(b, offset, eventTop)
		return
	}
	for _, c := range b {
		switch {
		case l.mark == uint8(len(doneMark)):
			return
		case c != doneMark[l.mark]:
			l.marking, m.scan.mode = false, over // an array has nothing that matters
			return
		}
		l.mark++
	}
}

// endEvent brings an event from where it is to where it goes, without what is to be removed, and gives its end there.
func (m *Meter) endEvent(b []byte, to, from, end int) int {
	l := &m.lines
	l.dropped = false
	if l.value {
		l.value, l.data = false, true
		done := l.marking && l.mark == uint8(len(doneMark))
		l.said = done || m.scan.last
		if m.scan.has {
			if m.scan.found.Output > m.report.Output {
				m.scan.tally.reset() // the text so far is in it
			}
			m.report, m.reported = m.scan.found, true
		}
		k, torn, ended := m.scan.marks, l.torn, m.scan.mode == over
		m.scan.reset()
		l.torn = false
		if !done {
			m.events++
		}
		if m.form == AskedEvents && k.removes && ended {
			if k.report && !k.choices && !k.keeps && !torn {
				l.dropped = true
				m.events--
				return to
			}
			if k.from >= from {
				to += copy(b[to:], b[from:k.from])
				from = k.to
			}
		}
	}
	l.torn = false
	if to == from {
		return end
	}
	return to + copy(b[to:], b[from:end])
}
