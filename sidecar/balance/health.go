package balance

import "time"

// Fault is how a call failed.
type Fault uint8

// The faults.
const (
	Failing Fault = iota // an error was answered, or the answer ended in its middle
	Gateway              // 502, 503 or 504 was answered, or nothing
	Refused              // no connection could be made
	Silent               // no connection could be made in all the time that there is for it
)

// Limits say when one that fails is left alone, and for how long.
type Limits struct {
	After        int           // failures in a row; 0: never
	AfterGateway int           // of Gateway and those without a connection in a row; 0: never
	Time         time.Duration // the first time; doubled each further time, up to maxTimes
	// AtOnce: one that no connection can be made to is left alone at once. Its time is short at first: see firstRefused.
	AtOnce bool
}

const (
	maxTimes     = 10 // how much longer than the first a time can get
	firstRefused = 500 * time.Millisecond
	firstSilent  = 5 * time.Second // to find out costs the call all its time for a connection
	lastRefused  = 30 * time.Second
)

// Health is how one that takes calls is doing: a provider, or a server. One that fails again and again is left alone; after
// a while one call is the probe, whose answer brings it back, and whose failure doubles the time. The zero value is in good health.
// It is not to be used by several goroutines at once.
type Health struct {
	early, late int       // failures in a row: before the answer began, in its middle
	gateway     int       // of early, those in a row that count for Limits.AfterGateway
	out         bool      // left alone, until a probe is answered
	unreachable bool      // since there was no connection
	until       time.Time // before which there is no probe
	probing     bool
	times       int    // that it was left alone without a complete answer in between
	turn        uint64 // of when it was last left alone or came back: calls from before that say nothing about what came after
}

// Trial is what a call has shown so far. It begins with the number of the last event at any of those that share a count of turns.
type Trial struct {
	Turn     uint64
	Probe    bool
	Answered bool
}

// Out tells whether it is left alone.
func (h *Health) Out() bool { return h.out }

// Unreachable tells whether it is left alone since no connection could be made.
func (h *Health) Unreachable() bool { return h.out && h.unreachable }

// Probing tells whether a probe is under way.
func (h *Health) Probing() bool { return h.probing }

// Failures counts those in a row.
func (h *Health) Failures() int { return h.early + h.late }

// Troubled tells whether anything is known against it.
func (h *Health) Troubled() bool { return h.out || h.early+h.late+h.times > 0 }

// Concerns tells whether a call is recent enough to say anything.
func (h *Health) Concerns(t *Trial) bool { return t.Turn >= h.turn }

// Due tells whether it is time for a probe.
func (h *Health) Due(now time.Time) bool { return h.out && !h.probing && !now.Before(h.until) }

// Probe makes a call the probe.
func (h *Health) Probe(t *Trial) { h.probing, t.Probe = true, true }

// Answers notes that an answer has begun, for the first time of a call. If it is true, that one is back by it, in the turn given.
func (h *Health) Answers(t *Trial, l *Limits, turn uint64) bool {
	if !h.Concerns(t) {
		return false
	}
	h.early, h.gateway = 0, 0
	if !h.out {
		return false
	}
	if !h.unreachable {
		// Who only ever begins its answers has to show a complete one first.
		h.late = max(l.After-1, 0)
	}
	h.out, h.unreachable, h.probing, t.Probe = false, false, false, false
	h.turn, t.Turn = turn, turn
	return true
}

// Completes notes that all of an answer has come.
func (h *Health) Completes(t *Trial) {
	if h.Concerns(t) {
		h.early, h.late, h.gateway, h.times = 0, 0, 0, 0
	}
}

// Fails notes a failure. If it is true, Leave is due.
func (h *Health) Fails(t *Trial, f Fault, l *Limits) bool {
	switch {
	case !h.Concerns(t) || h.out && !t.Probe:
		return false // it is known already
	case t.Answered:
		h.late++
	default:
		h.early++
	}
	if h.gateway++; f == Failing {
		h.gateway = 0
	}
	return h.out || f.unreached() && l.AtOnce || l.After > 0 && h.early+h.late >= l.After || l.AfterGateway > 0 && h.gateway >= l.AfterGateway
}

// Leave has it left alone from now on, in the turn given, and gives how long.
func (h *Health) Leave(f Fault, l *Limits, now time.Time, turn uint64) time.Duration {
	first, last := l.Time, maxTimes*l.Time
	h.unreachable = f.unreached() && l.AtOnce
	if h.unreachable {
		first, last = firstRefused, lastRefused
		if f == Silent {
			first = firstSilent
		}
	}
	length := min(first<<min(h.times, 6), last)
	h.out, h.probing = true, false
	h.until, h.turn = now.Add(length), turn
	h.times++
	return length
}

// Abandon gives up a probe that has shown nothing.
func (h *Health) Abandon(t *Trial) {
	if t.Probe && h.out && h.Concerns(t) {
		h.probing = false
	}
}

func (f Fault) unreached() bool { return f == Refused || f == Silent }
