package main

import (
	"fmt"
	"slices"
	"time"
)

// times are durations of the same thing.
type times []time.Duration

// String gives p50 and p99.
func (t times) String() string {
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", t.quantile(0.5), t.quantile(0.99))
}

// quantile gives what a share q of all does not exceed, in milliseconds.
func (t times) quantile(q float64) float64 {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Nanoseconds()) / 1e6
}
