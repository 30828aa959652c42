package balance

import (
	"math"
	"sync/atomic"
)

// leastWeight is what the share of a new server is at least of its full one.
const leastWeight = 0.01

// weight gives the share that a server gets of its full one.
func (v *view) weight(s *Server, now int64) float64 {
	window := v.slow.WindowSeconds
	if s.born == 0 || window <= 0 {
		return 1
	}
	age := float64(now-s.born) / 1e9
	if age >= window {
		return 1
	}
	part := max(age/window, 0)
	if a := v.slow.Aggression; a > 0 && a != 1 {
		part = math.Pow(part, 1/a)
	}
	return max(part, v.slow.MinPercent/100, leastWeight)
}

// load is what a server has to do, for the share that it gets.
func (p *picker) load(n *atomic.Int64, s *Server, warming bool) float64 {
	l := float64(n.Load())
	if warming {
		l /= p.v.weight(s, p.now)
	}
	return l
}
