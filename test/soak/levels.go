package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// levels are what a sidecar holds at an instant.
type levels struct {
	goroutines int
	files      int // connections, nearly all of them
	resident   int64
	heap       int64
}

func (l levels) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d MiB resident, %d MiB of it heap", l.goroutines, l.files, l.resident>>20, l.heap>>20)
}

// A sidecar at rest may hold so much more than a fresh one, and in memory than one that is warm. Goroutines and files do
// not come in such small numbers where each call or each connection leaks; memory is taken in large pieces and given back
// late.
const (
	moreGoroutines = 10
	moreFiles      = 10
	moreMemory     = 32 << 20 // and half of what it was
)

// within tells whether l is no more than base for all that one may say.
func (l levels) within(base levels) bool {
	return l.goroutines <= base.goroutines+moreGoroutines && l.files <= base.files+moreFiles &&
		l.resident <= base.resident+base.resident/2+moreMemory
}

// samples are what /metrics says: by name with labels.
type samples map[string]float64

// sum adds up the series of a name that have all of the labels, each written as name="value".
func (s samples) sum(name string, labels ...string) (total int) {
series:
	for series, value := range s {
		rest, ok := strings.CutPrefix(series, name+"{")
		if !ok {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(","+strings.TrimSuffix(rest, "}")+",", ","+label+",") {
				continue series
			}
		}
		total += int(value)
	}
	return total
}

func (w *world) samples() (samples, error) {
	answer, err := w.get(w.admin, "/metrics")
	if err != nil {
		select {
		case <-w.ended:
			return nil, fmt.Errorf("the sidecar ended:\n%s", &w.said)
		default:
			return nil, err
		}
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("/metrics: %s", answer.Status)
	}
	all := samples{}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, ok := cutLast(lines.Text())
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if all[name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, fmt.Errorf("/metrics: %q: %w", lines.Text(), err)
		}
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	return all, lines.Err()
}

// get asks the sidecar of itself. It takes as long as its own limit says.
func (w *world) get(address, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, err
	}
	return w.watcher.Do(r)
}

func cutLast(line string) (name, value string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}

func (w *world) levels() (levels, error) {
	s, err := w.samples()
	if err != nil {
		return levels{}, err
	}
	return levels{
		goroutines: int(s["go_goroutines"]), files: int(s["process_open_fds"]),
		resident: int64(s["process_resident_memory_bytes"]), heap: int64(s["go_memstats_heap_inuse_bytes"]),
	}, nil
}

// now says what the levels are, for a line of progress.
func (w *world) now() string {
	l, err := w.levels()
	if err != nil {
		return err.Error()
	}
	return l.String()
}

// rested gives the levels when nothing has been asked for so long and they are within the base, or else after a time that
// is longer than any for which the sidecar keeps a connection.
func (w *world) rested(ctx context.Context, rest time.Duration, base levels) (levels, error) {
	timer := time.NewTimer(rest)
	defer timer.Stop()
	for tries := 0; ; tries++ {
		select {
		case <-ctx.Done():
			return levels{}, ctx.Err()
		case <-timer.C:
		}
		l, err := w.levels()
		if err != nil || l.within(base) || tries >= settleTries {
			return l, err
		}
		timer.Reset(time.Second)
	}
}
