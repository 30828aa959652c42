package assets

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A report says what is being done, how far it is and how long it has taken: each second on a terminal, where it
// overwrites its line, and each half minute anywhere else.
type report struct {
	to       io.Writer
	terminal bool
	began    time.Time
	ticker   *time.Ticker
	stopped  chan struct{}
	ended    chan struct{}

	mu     sync.Mutex
	verb   string
	noun   string
	count  int
	of     int // 0: unknown
	active bool
}

func newReport(to io.Writer) *report {
	r := &report{to: to, began: time.Now(), stopped: make(chan struct{}), ended: make(chan struct{})}
	interval := 30 * time.Second
	if f, ok := to.(*os.File); ok {
		status, err := f.Stat()
		r.terminal = err == nil && status.Mode()&os.ModeCharDevice != 0
	}
	if r.terminal {
		interval = time.Second
	}
	r.ticker = time.NewTicker(interval)
	go func() {
		defer close(r.ended)
		for {
			select {
			case <-r.ticker.C:
				r.print()
			case <-r.stopped:
				return
			}
		}
	}()
	return r
}

func (r *report) stage(verb, noun string, of int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verb, r.noun, r.count, r.of, r.active = verb, noun, 0, of, true
}

func (r *report) step() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.of = max(r.of, r.count*min(r.of, 1)) // an estimate that proves too low is raised
}

func (r *report) print() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.active {
		return
	}
	line := fmt.Sprintf("Kubernetes: %5s  %s %d %s", time.Since(r.began).Round(time.Second), r.verb, r.count, r.noun)
	if r.of > 0 {
		line = fmt.Sprintf("Kubernetes: %5s  %s %d of %d %s", time.Since(r.began).Round(time.Second), r.verb, r.count, r.of, r.noun)
		if r.of-r.count <= 3 { // the programs themselves: their link is the last thing, and long
			line += ", linking"
		}
	}
	if r.terminal {
		fmt.Fprintf(r.to, "\r%s\033[K", line)
		return
	}
	fmt.Fprintln(r.to, line)
}

func (r *report) done() {
	r.stop()
	if r.terminal {
		fmt.Fprint(r.to, "\r\033[K")
	}
	fmt.Fprintf(r.to, "Kubernetes: built in %s\n", time.Since(r.began).Round(time.Second))
}

// stop ends the ticking; again, it does nothing.
func (r *report) stop() {
	r.mu.Lock()
	active := r.active
	r.active = false
	r.mu.Unlock()
	if active {
		r.ticker.Stop()
		close(r.stopped)
		<-r.ended
	}
}
