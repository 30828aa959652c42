package stage

import "testing"

func TestTheBoundsOfChanceAreThoseOfTheBinomialDistribution(t *testing.T) {
	f := func(n int, p float64, low, high int) {
		t.Helper()
		if l, h := Between(n, p); l != low || h != high {
			t.Errorf("Between(%d, %v) = %d, %d; want %d, %d", n, p, l, h, low, high)
		}
	}
	f(100, 0, 0, 0)
	f(100, 1, 100, 100)
	f(20, 0.5, 0, 20) // 2^-20 is not as rare as that
	f(40, 0.5, 3, 37) // that of 2 or fewer is 7.5e-10
	f(1, 1e-10, 0, 0)
	f(1000, 0.5, 405, 595)
}
