package usage

// marks is where in an event the member usage stands, with the comma that has to go with it.
type marks struct {
	state   markState
	first   bool // no member stands before it
	null    bool
	removes bool // from and to are final
	choices bool // there are some
	keeps   bool // there is something that the app needs, choices or not
	report  bool // it is an object
	from    int
	to      int
}

type markState uint8

const (
	undecided  markState = iota // the key is not known yet
	uninvolved                  // another member
	valueDue                    // the value of usage comes next, or is being read
	valueEnded
	keyDue // the next key ends what is to go
	settled
)

func (m *marks) open(at int) { m.state, m.first, m.from = undecided, true, at+1 }

func (m *marks) key(at int) {
	switch {
	case m.state == keyDue:
		m.to, m.state, m.removes = at, settled, true
	case m.state == undecided && m.first:
		m.from = at
	}
}

func (m *marks) meaning(p place) {
	if m.state != undecided {
		return
	}
	if m.state = uninvolved; p == report {
		m.state = valueDue
	}
}

// literal begins a word or number that is the value of usage.
func (m *marks) literal(c byte, at int) {
	if c == 'n' && !m.null {
		m.null, m.to = true, at+len("null")
	} else if !m.null || at >= m.to {
		m.other()
	}
}

// other says that the value is of another kind: it is nothing that was asked for.
func (m *marks) other() {
	if m.state == valueDue {
		m.state = settled
	}
}

func (m *marks) object(to int) {
	if m.state == valueDue {
		m.report, m.to, m.state = true, to, valueEnded
	}
}

func (m *marks) comma(at int) {
	if m.state == valueDue && m.null && at >= m.to {
		m.state = valueEnded
	}
	switch {
	case m.state == valueEnded && m.first:
		m.state = keyDue
	case m.state == valueEnded:
		m.state, m.removes = settled, true
	case m.state == uninvolved || m.state == undecided:
		m.state, m.first, m.from = undecided, false, at
	}
}

// close ends the object.
func (m *marks) close(at int) {
	if m.state == valueDue && m.null && at >= m.to {
		m.state = valueEnded
	}
	if m.state == valueEnded {
		m.state, m.removes = settled, true
	}
}

// held gives the offset from which on it is not known yet whether it goes; end where it is.
func (m *marks) held(end int) int {
	if m.state == uninvolved || m.state == settled {
		return end
	}
	return max(min(m.from, end), 0)
}

// moved says that the offsets are smaller by n now.
func (m *marks) moved(n int) {
	m.from -= n
	m.to -= n
}
