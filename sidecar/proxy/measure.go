package proxy

import "remora.dev/remora/sidecar/usage"

// maxHeld is how much of an event that is not complete yet is held back. A longer one is passed on in
// pieces.
const maxHeld = 64 << 10

// measure lets the meter read what is new, which removes from it what the app did not ask for.
func (s *stream) measure() {
	switch {
	case s.form != usage.Whole:
		var n int
		n, s.whole = s.meter.Pass(s.out)
		s.out = s.out[:n]
	case s.counted:
		s.meter.Read(s.out[s.read:])
		s.read = len(s.out)
	}
	if s.events {
		s.begun = s.begun || s.meter.Data()
	} else {
		s.begun = s.begun || len(s.out) > 0
	}
}

// ready gives how much of what has come can be passed on.
func (s *stream) ready() int {
	switch {
	case s.form == usage.Whole:
		return len(s.out)
	case s.complete:
		s.out = s.out[:s.meter.Finish(s.out)]
		return len(s.out)
	case !s.events, s.whole == 0 && len(s.out) > 2*maxHeld:
		s.torn = true
		return len(s.out)
	case s.whole == 0 && len(s.out) > maxHeld:
		s.torn = true
		n, pass := s.meter.Tear(s.out)
		s.out = s.out[:n]
		return pass
	case s.whole > 0:
		s.torn = false
	}
	return s.whole
}

// passed forgets what has been passed on.
func (s *stream) passed(n int) {
	if s.form != usage.Whole {
		s.meter.Passed(n)
	}
	s.out = append(s.out[:0], s.out[n:]...)
	s.whole, s.read = 0, len(s.out) // what is left may begin the key, and has been measured
}
