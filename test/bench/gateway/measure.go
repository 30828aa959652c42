package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"remora.dev/remora/test/bench/figures"
)

// policy is a way to balance, by Istio's word.
type policy string

const (
	roundRobin   policy = "ROUND_ROBIN"
	leastRequest policy = "LEAST_REQUEST"
	random       policy = "RANDOM"
)

var policies = []policy{roundRobin, leastRequest, random}

// yardstick is what the others are compared with.
const yardstick = "fasthttp"

// The figures of a policy.
func cpuOf(p policy) figures.Figure {
	return figures.Compare(fmt.Sprintf("CPU per request, 1 KB, %s", p), "µs", 1)
}

func unevenOf(p policy) figures.Figure {
	return figures.Alone(fmt.Sprintf("the server with most calls above its third, %s", p), "%", 2)
}

func slowOf(p policy) figures.Figure {
	return figures.Alone(fmt.Sprintf("one server 20 ms slower: its share, %s", p), "%", 1)
}

func waitOf(p policy) figures.Figure {
	return figures.Alone(fmt.Sprintf("the same, mean time of a call, %s", p), "ms", 1)
}

var idleMemory = figures.Alone("resident memory, idle", "MiB", 1)

func rows() []figures.Figure {
	var all []figures.Figure
	for _, of := range []func(policy) figures.Figure{cpuOf, unevenOf, slowOf, waitOf} {
		for _, p := range policies {
			all = append(all, of(p))
		}
	}
	return append(all, idleMemory)
}

// measure asks every contestant in turns, so that what disturbs the machine disturbs them alike.
func (o options) measure(ctx context.Context, all []*running, progress io.Writer) (figures.Sheet, error) {
	s := figures.Sheet{}
	select {
	case <-time.After(o.settle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for _, r := range all {
		if r.policy != roundRobin {
			continue
		}
		m, err := r.Resident()
		if err != nil {
			return nil, r.Explain(err)
		}
		s.Add(r.program, idleMemory, m.All/(1<<20))
	}
	for round := range o.rounds {
		for _, p := range policies {
			fmt.Fprintf(progress, "round %d of %d: %s:", round+1, o.rounds, p)
			for range o.laps {
				for _, r := range all {
					if r.policy != p || r.wrong != nil {
						continue
					}
					if err := o.lap(ctx, r, s); err != nil {
						if err := r.drop(ctx, err); err != nil {
							return nil, err
						}
						continue
					}
					last := s[r.program][cpuOf(p)]
					fmt.Fprintf(progress, " %s %.1f", r.program, last[len(last)-1])
				}
			}
			fmt.Fprintln(progress)
		}
	}
	return s, nil
}

// lap notes what one contestant does with the requests of a lap.
func (o options) lap(ctx context.Context, r *running, s figures.Sheet) error {
	l := openLoad(r.address, 0)
	defer l.close()
	// A tenth first, so that connections, pools and caches are warm on both sides.
	if _, err := l.requests(ctx, o.connections, max(o.requests/10, o.connections)); err != nil {
		return err
	}
	before, err := r.Used()
	if err != nil {
		return err
	}
	all, err := l.requests(ctx, o.connections, o.requests)
	if err != nil {
		return err
	}
	after, err := r.Used()
	if err != nil {
		return err
	}
	s.Add(r.program, cpuOf(r.policy), float64((after-before).Nanoseconds())/1e3/float64(o.requests))
	s.Add(r.program, unevenOf(r.policy), uneven(all.by[:]))
	slow := openLoad(r.address, slowBy)
	defer slow.close()
	all, err = slow.requests(ctx, o.connections, o.slowRequests)
	if err != nil {
		return err
	}
	s.Add(r.program, slowOf(r.policy), 100*float64(all.by[count-1])/float64(o.slowRequests))
	s.Add(r.program, waitOf(r.policy), figures.Milliseconds(mean(all.took)))
	return nil
}

// uneven gives by how many percent the server with most calls has more than its share.
func uneven(by []int) float64 {
	sum := 0
	for _, n := range by {
		sum += n
	}
	return 100 * (float64(slices.Max(by))*float64(len(by))/float64(sum) - 1)
}

func mean(all []time.Duration) (m time.Duration) {
	for _, d := range all {
		m += d / time.Duration(len(all))
	}
	return m
}
