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
