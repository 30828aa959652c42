package distribution

import (
	"math"
	"testing"
)

// seldom is how often a test of a right distribution may fail: with ten of them run a thousand times a day, once in three centuries.
const seldom = 1e-9

// even fails where counts are so uneven that equal chances would seldom bring it about.
func even(t *testing.T, what string, counts []int) {
	t.Helper()
	shares := make([]float64, len(counts))
	for i := range shares {
		shares[i] = 1 / float64(len(counts))
	}
	shared(t, what, counts, shares)
}

// shared is even for other shares, which sum up to 1.
func shared(t *testing.T, what string, counts []int, shares []float64) {
	t.Helper()
	if p := chance(counts, shares); p < seldom {
		t.Errorf("%s: %v, which shares of %.3v bring about with a chance of %.1g", what, counts, shares, p)
	}
}

// chance is Pearson's: how often counts that are drawn by shares are further from them than these.
func chance(counts []int, shares []float64) float64 {
	n := 0
	for _, c := range counts {
		n += c
	}
	distance := 0.0
	for i, c := range counts {
		want := float64(n) * shares[i]
		distance += (float64(c) - want) * (float64(c) - want) / want
	}
	return above(float64(len(counts)-1)/2, distance/2)
}

// above is the upper part of the regularised gamma function: by its series where that converges soon, else by its continued fraction.
func above(a, x float64) float64 {
	if x <= 0 {
		return 1
	}
	logGamma, _ := math.Lgamma(a)
	factor := math.Exp(a*math.Log(x) - x - logGamma)
	if x < a+1 {
		term, sum := 1/a, 1/a
		for n := 1.0; term > sum*1e-16; n++ {
			term *= x / (a + n)
			sum += term
		}
		return 1 - factor*sum
	}
	const tiny = 1e-300
	b := x + 1 - a
	c, d := 1/tiny, 1/b
	h := d
	for i := 1.0; i < 1000; i++ {
		an := -i * (i - a)
		b += 2
		if d = an*d + b; math.Abs(d) < tiny {
			d = tiny
		}
		if c = b + an/c; math.Abs(c) < tiny {
			c = tiny
		}
		d = 1 / d
		h *= d * c
		if math.Abs(d*c-1) < 1e-15 {
			break
		}
	}
	return factor * h
}

func TestTheChanceOfADistanceIsThatOfTheTables(t *testing.T) {
	f := func(freedom int, distance, want float64) {
		t.Helper()
		if got := above(float64(freedom)/2, distance/2); math.Abs(got-want) > 1e-3*want {
			t.Errorf("beyond %v with %d degrees of freedom: %v, want %v", distance, freedom, got, want)
		}
	}
	f(1, 3.841459, 0.05)
	f(4, 9.487729, 0.05)
	f(4, 18.466827, 0.001)
	f(4, 2.194698, 0.7)
	f(2, 2*math.Log(1e9), 1e-9) // with two, it is exponential
}
