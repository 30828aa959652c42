package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

// plan says how much is measured.
type plan struct {
	rounds        int
	laps          int // of requests, per round and case: short turns meet the same disturbances
	requests      int // of 1 KB, per lap and contestant
	largeRequests int // of 64 KiB, per lap and contestant
	connections   int
	streams       int // open at once
	chunks        int // per stream
	changes       int // of Remora's configuration
	spread        time.Duration
	settle        time.Duration // between start and the first look at the memory
}

var (
	fullPlan = plan{
		rounds: 3, laps: 3, requests: 10_000, largeRequests: 2_000, connections: 32,
		streams: 200, chunks: 100, changes: 50,
		spread: time.Second, settle: 2 * time.Second,
	}
	quickPlan = plan{
		rounds: 1, laps: 1, requests: 200, largeRequests: 40, connections: 8,
		streams: 10, chunks: 5, changes: 5,
		spread: 50 * time.Millisecond, settle: 50 * time.Millisecond,
	}
)

// figure is one line of the report. Its values are in its unit, one per round or lap.
type figure struct {
	label, unit string
	digits      int
	compared    bool // with bare fasthttp
}

var (
	smallCPU    = figure{"CPU per request, 1 KB prompt", "µs", 1, true}
	englishCPU  = figure{"CPU per request, 64 KiB, one English text", "µs", 1, true}
	messagesCPU = figure{"CPU per request, 64 KiB, many short messages", "µs", 1, true}
	chineseCPU  = figure{"CPU per request, 64 KiB, one Chinese text", "µs", 1, true}
	chunkCPU    = figure{"CPU per chunk of a stream", "µs", 1, true}
	firstMedian = figure{"time to the first chunk, p50", "ms", 2, false}
	firstSlow   = figure{"time to the first chunk, p99", "ms", 2, false}
	chunkMedian = figure{"delay of a chunk, p50", "ms", 2, false}
	chunkSlow   = figure{"delay of a chunk, p99", "ms", 2, false}
	idleMemory  = figure{"resident memory, idle", "MiB", 1, false}
	usedMemory  = figure{"resident memory, after the streams", "MiB", 1, false}
)

var figures = []figure{
	smallCPU, englishCPU, messagesCPU, chineseCPU, chunkCPU,
	firstMedian, firstSlow, chunkMedian, chunkSlow, idleMemory, usedMemory,
}

// direct is the column of the calls that went to the upstream with no proxy between.
const direct = "no proxy"

// sheet holds every value measured, by contestant and figure.
type sheet map[string]map[figure][]float64

func (s sheet) add(contestant string, f figure, value float64) {
	if s[contestant] == nil {
		s[contestant] = map[figure][]float64{}
	}
	s[contestant][f] = append(s[contestant][f], value)
}

const mebibyte = 1 << 20

func (s sheet) addMemory(r *running, f figure) error {
	bytes, err := r.resident()
	s.add(r.name, f, bytes/mebibyte)
	return err
}

func (s sheet) addDelays(contestant string, d delays) {
	s.add(contestant, firstMedian, milliseconds(quantile(d.first, 0.5)))
	s.add(contestant, firstSlow, milliseconds(quantile(d.first, 0.99)))
	s.add(contestant, chunkMedian, milliseconds(quantile(d.chunk, 0.5)))
	s.add(contestant, chunkSlow, milliseconds(quantile(d.chunk, 0.99)))
}

// measure runs every case against every contestant, in turns, so that what disturbs the machine
// disturbs them alike. Only a wrong answer is an error.
func (p plan) measure(ctx context.Context, all []*running, noProxy func() *load, progress io.Writer) (sheet, error) {
	s := sheet{}
	select {
	case <-time.After(p.settle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for _, r := range all {
		if err := s.addMemory(r, idleMemory); err != nil {
			return nil, r.explain(err)
		}
	}
	cases := []struct {
		figure figure
		prompt string
		count  int
	}{
		{smallCPU, "small", p.requests},
		{englishCPU, "english", p.largeRequests},
		{messagesCPU, "messages", p.largeRequests},
		{chineseCPU, "chinese", p.largeRequests},
	}
	for round := range p.rounds {
		for _, c := range cases {
			fmt.Fprintf(progress, "round %d of %d: %s:", round+1, p.rounds, c.figure.label)
			for range p.laps {
				for _, r := range all {
					each, err := p.requestsThrough(ctx, r, prompts()[c.prompt], c.count)
					if err != nil {
						return nil, r.explain(err)
					}
					s.add(r.name, c.figure, each)
					fmt.Fprintf(progress, " %s %.1f", r.name, each)
				}
			}
			fmt.Fprintln(progress)
		}
		fmt.Fprintf(progress, "round %d of %d: %s:", round+1, p.rounds, chunkCPU.label)
		for _, r := range all {
			d, each, err := p.streamsThrough(ctx, r)
			if err != nil {
				return nil, r.explain(err)
			}
			s.add(r.name, chunkCPU, each)
			fmt.Fprintf(progress, " %s %.1f", r.name, each)
			s.addDelays(r.name, d)
			if err := s.addMemory(r, usedMemory); err != nil {
				return nil, r.explain(err)
			}
		}
		fmt.Fprintln(progress)
		d, err := p.streamsOf(ctx, noProxy(), func() error { return nil })
		if err != nil {
			return nil, fmt.Errorf("%s: %w", direct, err)
		}
		s.addDelays(direct, d)
	}
	return s, nil
}

// requestsThrough returns the processor time, in microseconds, that the proxy spent on each of count requests.
func (p plan) requestsThrough(ctx context.Context, r *running, prompt prompt, count int) (float64, error) {
	l := r.load()
	defer l.close()
	// A tenth first, so that connections, pools and caches are warm on both sides.
	if err := l.requests(ctx, prompt, p.connections, max(count/10, p.connections)); err != nil {
		return 0, err
	}
	before, err := r.used()
	if err != nil {
		return 0, err
	}
	if err := l.requests(ctx, prompt, p.connections, count); err != nil {
		return 0, err
	}
	after, err := r.used()
	return microseconds(after-before) / float64(count), err
}

// streamsThrough returns what the clients waited, and the processor time that the proxy spent on each chunk, in microseconds.
func (p plan) streamsThrough(ctx context.Context, r *running) (delays, float64, error) {
	var before time.Duration
	d, err := p.streamsOf(ctx, r.load(), func() (err error) {
		before, err = r.used()
		return err
	})
	if err != nil {
		return d, 0, err
	}
	after, err := r.used()
	return d, microseconds(after-before) / float64(p.streams*p.chunks), err
}

// streamsOf opens all connections with short streams, says so, and then runs the streams.
func (p plan) streamsOf(ctx context.Context, l *load, warm func() error) (delays, error) {
	defer l.close()
	if _, err := l.streams(ctx, p.streams, 3, 0); err != nil {
		return delays{}, err
	}
	if err := warm(); err != nil {
		return delays{}, err
	}
	return l.streams(ctx, p.streams, p.chunks, p.spread)
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// quantile is the value that a share q of all values do not exceed; it sorts values.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}
