package integration

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// calls are those of some apps beside a sidecar, one after the other, until stop.
type calls struct {
	end  context.CancelFunc
	apps sync.WaitGroup

	mu       sync.Mutex
	answered map[string]int // by provider, or by what went wrong
	total    int
	failed   []string
	counted  chan struct{} // closed at the next answer
}

// pauseOfAnApp is between two calls of an app, so that others on this machine may work too.
const pauseOfAnApp = 4 * time.Millisecond

// call lets apps call a host.
func (s *sidecar) call(t *testing.T, apps int, host string) *calls {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	c := &calls{end: cancel, answered: map[string]int{}, counted: make(chan struct{})}
	for range apps {
		c.apps.Go(func() {
			pause := time.NewTicker(pauseOfAnApp)
			defer pause.Stop()
			for {
				a, err := s.ask(context.WithoutCancel(ctx), host) // what is under way may end
				c.count(a, err)
				select {
				case <-pause.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	t.Cleanup(c.stop)
	return c
}

func (c *calls) count(a answer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total++
	switch {
	case err != nil:
		c.failed = append(c.failed, err.Error())
	case a.status != http.StatusOK:
		c.failed = append(c.failed, fmt.Sprint(a.status, " ", a.code))
	default:
		c.answered[a.provider]++
	}
	close(c.counted)
	c.counted = make(chan struct{})
}

// stop ends the calls.
func (c *calls) stop() {
	c.end()
	c.apps.Wait()
}

var errStuck = errors.New("calls are not answered any more")

// more waits until n more calls have been answered.
func (c *calls) more(t *testing.T, n int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	deadline := time.After(30 * time.Second)
	for goal := c.total + n; c.total < goal; {
		counted := c.counted
		c.mu.Unlock()
		var err error
		select {
		case <-counted:
		case <-deadline:
			err = errStuck
		}
		c.mu.Lock()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// noneFailed stops the calls and demands that all of them were answered well.
func (c *calls) noneFailed(t *testing.T) {
	t.Helper()
	c.stop()
	if len(c.failed) > 0 {
		t.Errorf("of %d calls %d failed; the first: %v", c.total, len(c.failed), c.failed[:min(5, len(c.failed))])
	}
}
