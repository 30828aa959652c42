package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/bench/pinned"
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
	manyStreams   int // open at once while memory is looked at
	openLoop      int // short streams that are asked for at fixed times, per round and contestant
	foreign       int // short foreign connections per round
	largeForeign  int // bytes that go through a long one
	changes       int // of Remora's configuration
	spread        time.Duration
	settle        time.Duration // between start and the first look at the memory
}

var (
	fullPlan = plan{
		rounds: 3, laps: 2, requests: 5_000, largeRequests: 1_000, connections: 32,
		streams: 200, chunks: 30, manyStreams: 1_000, openLoop: 2_000, foreign: 500, largeForeign: 128 << 20, changes: 50,
		spread: time.Second, settle: 4 * time.Second,
	}
	quickPlan = plan{
		rounds: 1, laps: 1, requests: 200, largeRequests: 40, connections: 8,
		streams: 10, chunks: 5, manyStreams: 20, openLoop: 50, foreign: 10, largeForeign: 1 << 20, changes: 5,
		spread: 50 * time.Millisecond, settle: 50 * time.Millisecond,
	}
)

// openLoopRate is how many streams are asked for in a second of the open loop.
const openLoopRate = 1_000

var (
	smallCPU     = figures.Compare("CPU per request, 1 KB prompt", "µs", 1)
	englishCPU   = figures.Compare("CPU per request, 64 KiB, one English text", "µs", 1)
	messagesCPU  = figures.Compare("CPU per request, 64 KiB, many short messages", "µs", 1)
	chineseCPU   = figures.Compare("CPU per request, 64 KiB, one Chinese text", "µs", 1)
	chunkCPU     = figures.Compare("CPU per chunk of a stream", "µs", 1)
	firstMedian  = figures.Alone("added until the first chunk, 1,000 new streams a second, p50", "µs", 0)
	firstSlow    = figures.Alone("the same, p99", "µs", 0)
	chunkMedian  = figures.Alone("delay of a chunk, p50", "ms", 2)
	chunkSlow    = figures.Alone("delay of a chunk, p99", "ms", 2)
	idleMemory   = figures.Alone("resident memory, idle", "MiB", 1)
	idlePrivate  = figures.Alone("of it private, not shared through the page cache", "MiB", 1)
	loadedMemory = figures.Alone("resident memory, 1,000 streams", "MiB", 1)
)

var rows = []figures.Figure{
	smallCPU, englishCPU, messagesCPU, chineseCPU, chunkCPU,
	firstMedian, firstSlow, chunkMedian, chunkSlow, idleMemory, idlePrivate, loadedMemory,
}

// yardstick is the contestant that the others are compared with.
const yardstick = "fasthttp"

// direct is the column of the calls that went to the upstream with no proxy between.
const direct = "no proxy"

const mebibyte = 1 << 20

func addIdle(s figures.Sheet, r *running) error {
	m, err := r.Resident()
	s.Add(r.Name, idleMemory, m.All/mebibyte)
	s.Add(r.Name, idlePrivate, m.Private/mebibyte)
	return err
}

// measure runs every case against every contestant, in turns, so that what disturbs the machine
// disturbs them alike. Only a wrong answer is an error, and only of Remora or the yardstick: another contestant is measured
// no more then.
func (p plan) measure(ctx context.Context, all []*running, noProxy func() *load, progress io.Writer) (figures.Sheet, error) {
	s := figures.Sheet{}
	select {
	case <-time.After(p.settle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for _, r := range all {
		if err := addIdle(s, r); err != nil {
			return nil, r.Explain(err)
		}
	}
	cases := []struct {
		figure figures.Figure
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
			fmt.Fprintf(progress, "round %d of %d: %s:", round+1, p.rounds, c.figure.Label)
			for range p.laps {
				for r := range right(all) {
					each, err := p.requestsThrough(ctx, r, prompts()[c.prompt], c.count)
					if err != nil {
						if err := r.drop(ctx, err); err != nil {
							return nil, err
						}
						continue
					}
					s.Add(r.Name, c.figure, each)
					fmt.Fprintf(progress, " %s %.1f", r.Name, each)
				}
			}
			fmt.Fprintln(progress)
		}
		fmt.Fprintf(progress, "round %d of %d: %s:", round+1, p.rounds, chunkCPU.Label)
		for range p.laps {
			for r := range right(all) {
				d, each, err := p.streamsThrough(ctx, r)
				if err != nil {
					if err := r.drop(ctx, err); err != nil {
						return nil, err
					}
					continue
				}
				s.Add(r.Name, chunkCPU, each)
				fmt.Fprintf(progress, " %s %.1f", r.Name, each)
				s.Add(r.Name, chunkMedian, milliseconds(quantile(d.chunk, 0.5)))
				s.Add(r.Name, chunkSlow, milliseconds(quantile(d.chunk, 0.99)))
			}
		}
		fmt.Fprintf(progress, "\nround %d of %d: %s:", round+1, p.rounds, firstMedian.Label)
		base, err := p.firstChunks(ctx, noProxy())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", direct, err)
		}
		s.Add(direct, firstMedian, microseconds(quantile(base, 0.5)))
		s.Add(direct, firstSlow, microseconds(quantile(base, 0.99)))
		for r := range right(all) {
			waited, err := p.firstChunks(ctx, r.load())
			if err != nil {
				if err := r.drop(ctx, err); err != nil {
					return nil, err
				}
				continue
			}
			added := quantile(waited, 0.5) - quantile(base, 0.5)
			s.Add(r.Name, firstMedian, microseconds(added))
			s.Add(r.Name, firstSlow, microseconds(quantile(waited, 0.99)-quantile(base, 0.99)))
			fmt.Fprintf(progress, " %s %v", r.Name, added)
		}
		fmt.Fprintln(progress)
	}
	for r := range right(all) {
		fmt.Fprintf(progress, "%d streams through %s\n", p.manyStreams, r.Name)
		if err := p.manyThrough(ctx, r, s); err != nil {
			if err := r.drop(ctx, err); err != nil {
				return nil, err
			}
		}
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
	before, err := r.Used()
	if err != nil {
		return 0, err
	}
	if err := l.requests(ctx, prompt, p.connections, count); err != nil {
		return 0, err
	}
	after, err := r.Used()
	return microseconds(after-before) / float64(count), err
}

// streamsThrough returns what the clients waited, and the processor time that the proxy spent on each chunk, in microseconds.
func (p plan) streamsThrough(ctx context.Context, r *running) (delays, float64, error) {
	l := r.load()
	defer l.close()
	const first = 3 // short streams open all connections
	counted, err := r.counting(p.streams * (first + p.chunks))
	if err != nil {
		return delays{}, 0, err
	}
	if _, err := l.streams(ctx, streaming{count: p.streams, chunks: first, pace: briskPace}); err != nil {
		return delays{}, 0, err
	}
	before, err := r.Used()
	if err != nil {
		return delays{}, 0, err
	}
	d, err := l.streams(ctx, streaming{count: p.streams, chunks: p.chunks, spread: p.spread, pace: briskPace})
	if err != nil {
		return d, 0, err
	}
	after, err := r.Used()
	if err != nil {
		return d, 0, err
	}
	return d, microseconds(after-before) / float64(p.streams*p.chunks), counted(ctx)
}

// counting notes what a contestant has counted so far, and returns what waits until it has counted exactly so many output
// tokens more: one for each chunk, as the provider reports.
func (r *running) counting(tokens int) (wait func(context.Context) error, err error) {
	if r.outputTokens == nil {
		return func(context.Context) error { return nil }, nil
	}
	before, err := r.outputTokens(r.place)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		limit := time.Now().Add(10 * time.Second)
		attempts := time.NewTicker(20 * time.Millisecond)
		defer attempts.Stop()
		for {
			now, err := r.outputTokens(r.place)
			switch {
			case err != nil || now == before+tokens:
				return err
			case now > before+tokens, time.Now().After(limit):
				return fmt.Errorf("%s has counted %d output tokens of %d", r.Name, now-before, tokens)
			}
			select {
			case <-attempts.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}, nil
}

// firstChunks returns how long the first chunks of an open loop took.
func (p plan) firstChunks(ctx context.Context, l *load) ([]time.Duration, error) {
	defer l.close()
	if _, err := l.streams(ctx, streaming{count: p.connections, chunks: 3, pace: briskPace}); err != nil {
		return nil, err
	}
	return l.openLoop(ctx, p.openLoop, openLoopRate)
}

// manyThrough looks at the memory of a proxy while all of many streams have begun and none has ended.
func (p plan) manyThrough(ctx context.Context, r *running, s figures.Sheet) error {
	l := r.load()
	defer l.close()
	var m pinned.Memory
	var looked error
	_, err := l.streams(ctx, streaming{
		count: p.manyStreams, chunks: 4, spread: 2 * p.spread, pace: 20 * briskPace,
		begun: func() { m, looked = r.Resident() },
	})
	if err = errors.Join(err, looked); err == nil {
		s.Add(r.Name, loadedMemory, m.All/mebibyte)
	}
	return err
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
