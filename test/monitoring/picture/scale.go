package picture

import (
	"math"
	"strconv"
)

// tick is the distance of the marks of an axis that reaches from 0 to most: 1, 2 or 5 times a power of ten, for three to five of them.
func tick(most float64) float64 {
	if !(most > 0) || math.IsInf(most, 0) {
		return 1
	}
	decade := math.Pow(10, math.Floor(math.Log10(most/5)))
	for _, m := range []float64{1, 2, 5} {
		if m*decade*5 >= most*(1-1e-9) {
			return m * decade
		}
	}
	return 10 * decade
}

// amount writes a value with its unit in two parts, since a stat shows them in two sizes.
func amount(v float64, unit string) (value, suffix string) {
	round := func(v float64) string {
		digits := 0
		if v != 0 {
			digits = max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
		}
		p := math.Pow(10, float64(digits))
		return strconv.FormatFloat(math.Round(v*p)/p, 'f', -1, 64)
	}
	switch {
	case unit == "percentunit":
		return round(100 * v), "%"
	case unit == "s" && v != 0 && math.Abs(v) < 1:
		return round(1000 * v), "ms"
	case unit == "s":
		return round(v), "s"
	case unit == "reqps":
		return round(v), "req/s"
	case math.Abs(v) >= 1e6:
		return round(v / 1e6), "M"
	case math.Abs(v) >= 1e3:
		return round(v / 1e3), "k"
	}
	return round(v), ""
}

// mark writes a value beside its axis, which has the unit written above it where that is the same for all.
func mark(v float64, unit string) string {
	value, suffix := amount(v, unit)
	if v == 0 {
		return "0"
	}
	switch suffix {
	case "req/s", "":
		return value
	case "%", "k", "M":
		return value + suffix
	}
	return value + " " + suffix
}

// clock writes a time of the horizontal axis, in minutes and seconds.
func clock(seconds float64) string {
	s := int(math.Round(seconds))
	return strconv.Itoa(s/60) + ":" + strconv.Itoa(s%60/10) + strconv.Itoa(s%10)
}

// beat is the distance of the marks of the horizontal axis: five to ten of them, at times that people count in.
func beat(seconds float64) float64 {
	for _, b := range []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800} {
		if seconds/b <= 8 {
			return b
		}
	}
	return 3600
}
