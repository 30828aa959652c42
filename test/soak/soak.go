package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"
)

// settings are what a run is told.
type settings struct {
	length  time.Duration
	calls   int // in place of length: so many are made, and nothing is said of leaks
	seed    uint64
	apps    int
	sidecar string
}

const (
	progressInterval = 10 * time.Second
	callsLimit       = 10 * time.Minute // that a number of calls may take
	editInterval     = 300 * time.Millisecond
	// settleTries is how often it is tried again, once a second, when goroutines and connections have not come down.
	settleTries = 120
)

// run soaks a sidecar. Its error says all that was wrong.
func run(ctx context.Context, s settings, out io.Writer) error {
	extent := s.length.String()
	if s.calls > 0 {
		extent = fmt.Sprintf("%d calls", s.calls)
	}
	fmt.Fprintf(out, "soak: %s with %d apps, seed %d\n", extent, s.apps, s.seed)
	folder, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	w, err := newWorld(ctx, folder, s)
	if err != nil {
		return err
	}
	defer w.close()

	if s.calls > 0 {
		w.soak(ctx, out, callsLimit, 0)
		v := verdict{w: w}
		return v.judge(ctx, out)
	}
	begun := time.Now()
	warm := min(s.length/6, 2*time.Minute)
	rest := min(s.length/4, time.Minute)
	base, err := w.levels()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "fresh:     %s\n", base)
	w.soak(ctx, out, warm, 0)
	warmed, err := w.levels()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "warmed up: %s\n", warmed)
	base.resident = warmed.resident // memory is kept for the next call; goroutines and connections are not
	w.soak(ctx, out, s.length-rest-time.Since(begun), 1)
	last, err := w.rested(ctx, rest, base)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "rested:    %s\n\n", last)
	v := verdict{w: w, base: base, last: last}
	return v.judge(ctx, out)
}

// soak lets all apps call for so long. Each run of it makes its own choices.
func (w *world) soak(ctx context.Context, out io.Writer, length time.Duration, round uint64) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var running sync.WaitGroup
	for i := range w.settings.apps {
		running.Go(func() {
			a := newApp(w, rand.New(rand.NewPCG(w.settings.seed, round<<32|uint64(i))))
			defer a.close()
			for ctx.Err() == nil && w.wants() {
				a.call()
			}
		})
	}
	apps := make(chan struct{})
	go func() {
		running.Wait()
		close(apps)
	}()
	var edits sync.WaitGroup
	edits.Go(func() { w.edit(ctx, rand.New(rand.NewPCG(w.settings.seed, round<<32|1<<31))) })
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintf(out, "%8s  %s  %s\n", time.Since(w.begun).Round(time.Second), w.counts.line(), w.now())
		case <-apps: // each of them ends its call
			cancel()
			edits.Wait()
			return
		}
	}
}

// wants tells whether another call is to be made.
func (w *world) wants() bool {
	return w.settings.calls == 0 || w.begunCalls.Add(1) <= int64(w.settings.calls)
}

// edit changes the configuration again and again, to another good one.
func (w *world) edit(ctx context.Context, r *rand.Rand) {
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(r.Int64N(int64(2 * editInterval)))):
		}
		if err := w.configure(n % models); err != nil {
			w.counts.wrong("editing the configuration: %v", err)
		}
		w.counts.add("configuration edit", "")
	}
}
