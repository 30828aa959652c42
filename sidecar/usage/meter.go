package usage

// Form is how an answer is written.
type Form uint8

// The forms.
const (
	Whole  Form = iota // one JSON object
	Events             // server-sent events
	// AskedEvents are server-sent events in which usage was asked for on behalf of an app that did not ask. What that adds
	// is removed.
	AskedEvents
)

// Meter reads one answer. Begin comes first; then Read takes a whole answer in pieces, and Pass one of events.
type Meter struct {
	form     Form
	report   Report
	reported bool
	scan     scanner
	lines    lines
	lead     lead
	events   int
}

// Begin forgets the answer before.
func (m *Meter) Begin(f Form) {
	m.form, m.report, m.reported = f, Report{}, false
	m.scan.tally.reset()
	m.scan.reset()
	m.scan.serial, m.scan.silent = -1, false
	m.scan.model.length, m.scan.model.known = 0, false
	m.events = 0
	m.lines.reset()
	m.lead.length = 0
}

// BeginWithoutText is Begin for an answer whose text is not to be looked at: Text gives nothing then.
func (m *Meter) BeginWithoutText(f Form) {
	m.Begin(f)
	m.scan.silent = true
}

// Read takes the next piece of an answer that is one JSON object.
func (m *Meter) Read(b []byte) {
	m.scan.feed(b, 0, wholeTop)
	if m.scan.has {
		m.report, m.reported = m.scan.found, true
	}
}

// Report gives what the provider reported last; false where it did not.
func (m *Meter) Report() (Report, bool) { return m.report, m.reported }

// Text estimates how many tokens of text have come since the last report.
func (m *Meter) Text() int64 { return m.scan.tally.Tokens() }

// Data tells whether an event with data has come as a whole.
func (m *Meter) Data() bool { return m.lines.data }

// Said tells whether the last event with data said that nothing follows: [DONE], or the end of a response.
func (m *Meter) Said() bool { return m.lines.said }

// Model gives what the answer says that it is of, as it is written in JSON, without quotes; of a longer one the first MaxModel bytes.
// It is valid until the next call, and empty where nothing is said.
func (m *Meter) Model() []byte {
	if !m.scan.model.known {
		return nil
	}
	return m.scan.model.text[:m.scan.model.length]
}

// Count gives how many events with data have been read, but for [DONE] and those that were removed.
func (m *Meter) Count() int { return m.events }

// Sequence gives the last sequence_number of Responses' events; -1 without one.
func (m *Meter) Sequence() int64 { return m.scan.serial }
