package stage

import "math"

// Rare is how seldom a test may fail by chance alone.
const Rare = 1e-9

// Between gives how many of n draws with probability p there are, but for chances as small as Rare on either side.
func Between(n int, p float64) (low, high int) {
	tail := func(from, step int) int {
		sum := 0.0
		for k := from; ; k += step {
			if sum += probability(n, k, p); sum > Rare {
				return k
			}
		}
	}
	switch {
	case p <= 0:
		return 0, 0
	case p >= 1:
		return n, n
	}
	return tail(0, 1), tail(n, -1)
}

// probability is that of k of n draws, each with probability p.
func probability(n, k int, p float64) float64 {
	gamma := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	return math.Exp(gamma(n) - gamma(k) - gamma(n-k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}
