package balance

import (
	"math"
	"sync/atomic"
)

// average follows a number that changes: one part in averaged of each new value.
type average struct{ bits atomic.Uint64 } // of a float64; 0: there was none

const averaged = 32

func (a *average) value() float64 { return math.Float64frombits(a.bits.Load()) }

func (a *average) add(v float64) {
	for {
		before := a.bits.Load()
		now := math.Float64frombits(before)
		if before == 0 {
			now = v
		} else {
			now += (v - now) / averaged
		}
		if a.bits.CompareAndSwap(before, math.Float64bits(now)) {
			return
		}
	}
}

// StillToCome gives how many tokens are taken to be still to come of an answer that was expected to have so many and has written of them. It is
// half of what was expected at least: the lengths of answers have long tails, so that one which goes on beyond what was expected
// has much to come, and however little that is, it takes a place at its server until then. In docs/balancing.md is what that is worth.
func StillToCome(expected, written int64) int64 { return max(expected-written, expected/2, 1) }
