package main

import (
	"maps"
	"math"
	"slices"
	"time"
)

// Rates is what has happened in a span of time. Percentiles are of the first token, in milliseconds; absent where there was none.
type Rates struct {
	Requests float64            `json:"requestsPerSecond"`
	Input    float64            `json:"inputTokensPerSecond"` // that providers reported, as Output
	Output   float64            `json:"outputTokensPerSecond"`
	AboutIn  float64            `json:"estimatedInputTokensPerSecond"` // beside those reported, as AboutOut
	AboutOut float64            `json:"estimatedOutputTokensPerSecond"`
	First50  *float64           `json:"firstTokenP50Milliseconds,omitempty"`
	First99  *float64           `json:"firstTokenP99Milliseconds,omitempty"`
	Failed   float64            `json:"errorsPerSecond"`
	Cost     map[string]float64 `json:"costPerHour,omitempty"` // by currency
	InFlight float64            `json:"requestsInFlight"`
}

// more is what a counter has grown by. One that is less than before has begun anew, with its process.
func more(before, now float64) float64 {
	switch {
	case math.IsNaN(now) || math.IsInf(now, 0):
		return 0
	case now < before:
		return now
	}
	return now - before
}

// since gives what has been counted between two readings of one process. What the first reading does not have was 0 then, but where there
// is none: nobody knows since when it counts.
func since(before, now *reading) map[series]*tally {
	grown := map[series]*tally{}
	if before == nil {
		return grown
	}
	for id, n := range now.calls {
		b := before.calls[id]
		if b == nil || n.requests < b.requests { // its process has begun anew
			b = &tally{}
		}
		t := &tally{
			requests: more(b.requests, n.requests), failed: more(b.failed, n.failed),
			exact: n.exact.since(b.exact), estimated: n.estimated.since(b.estimated),
			cost: map[string]float64{}, first: map[float64]float64{},
		}
		for currency, c := range n.cost {
			t.cost[currency] = more(b.cost[currency], c)
		}
		for limit, c := range n.first {
			t.first[limit] = more(b.first[limit], c)
		}
		grown[id] = t
	}
	return grown
}

// plus adds what another process or series has counted.
func (t *tally) plus(other *tally) {
	t.requests += other.requests
	t.failed += other.failed
	t.exact, t.estimated = t.exact.plus(other.exact), t.estimated.plus(other.estimated)
	if t.cost == nil {
		t.cost, t.first = map[string]float64{}, map[float64]float64{}
	}
	for currency, c := range other.cost {
		t.cost[currency] += c
	}
	for limit, c := range other.first {
		t.first[limit] += c
	}
}

// over gives the rates of what has been counted in a span of time.
func (t *tally) over(span time.Duration, waiting float64) Rates {
	s := span.Seconds()
	r := Rates{
		Requests: t.requests / s, Failed: t.failed / s, InFlight: waiting,
		Input: t.exact.input / s, Output: t.exact.output / s, AboutIn: t.estimated.input / s, AboutOut: t.estimated.output / s,
		First50: percentile(t.first, 0.50), First99: percentile(t.first, 0.99),
	}
	for currency, c := range t.cost {
		if c > 0 {
			if r.Cost == nil {
				r.Cost = map[string]float64{}
			}
			r.Cost[currency] = c / s * time.Hour.Seconds()
		}
	}
	return r
}

// percentile gives, in milliseconds, what Prometheus' histogram_quantile would: within a bucket, all values are equally likely. buckets are
// cumulative, by their upper limits in seconds.
func percentile(buckets map[float64]float64, q float64) *float64 {
	limits := slices.Sorted(maps.Keys(buckets))
	if len(limits) == 0 || buckets[limits[len(limits)-1]] == 0 {
		return nil
	}
	rank := q * buckets[limits[len(limits)-1]]
	lower, below := 0.0, 0.0
	for _, limit := range limits {
		if count := buckets[limit]; count >= rank && count > below {
			value := lower
			if !math.IsInf(limit, 1) {
				value += (limit - lower) * (rank - below) / (count - below)
			}
			value *= 1000
			return &value
		}
		if !math.IsInf(limit, 1) {
			lower, below = limit, max(below, buckets[limit])
		}
	}
	lower *= 1000
	return &lower
}
