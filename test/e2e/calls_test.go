//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// calls are made by clients in an app without pause.
type calls struct {
	in, app string
	ended   chan error
	cancel  context.CancelFunc

	mu      sync.Mutex
	answers []string // each begins with its status
}

// callers is how many call at the same time.
const callers = 3

// callAllTheTime has them call a host until they are stopped.
func callAllTheTime(t *testing.T, in, app, host, words string) *calls {
	t.Helper()
	script := fmt.Sprintf(`
call() {
  until [ -e /tmp/enough ]; do
    echo "$(curl --silent --show-error --max-time 120 --write-out ' %%{http_code}' http://%s --data '%s' 2>&1 | tr '\n' ' ')"
    sleep 0.05
  done
}
rm -f /tmp/enough
for i in $(seq %d); do call & done
wait`, host, question(words), callers)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, cluster.Binary("kubectl"), "--kubeconfig="+cluster.Kubeconfig(), "-n", in, "exec", "-i", app, "--", "sh")
	var complaint bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(script), &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &calls{in: in, app: app, ended: make(chan error, 1), cancel: cancel}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.mu.Lock()
			c.answers = append(c.answers, lines.Text())
			c.mu.Unlock()
		}
		_, _ = io.Copy(io.Discard, out)
		err := cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, complaint.String())
		}
		c.ended <- err
	}()
	return c
}

// await waits until the answers so far show something. It ends at a call that failed.
func (c *calls) await(t *testing.T, what string, shown func(answers []string) bool) {
	t.Helper()
	eventually(t, what, func() (string, bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if failed := c.failed(); len(failed) > 0 {
			t.Fatalf("%d of %d calls failed, the first with %s", len(failed), len(c.answers), failed[0])
		}
		select {
		case err := <-c.ended:
			t.Fatalf("the callers have ended: %v", err)
		default:
		}
		last := "no call"
		if len(c.answers) > 0 {
			last = c.answers[len(c.answers)-1]
		}
		return fmt.Sprintf("%d calls, the last: %s", len(c.answers), last), shown(c.answers)
	})
}

// awaitMore waits for some more calls.
func (c *calls) awaitMore(t *testing.T, n int) {
	t.Helper()
	c.mu.Lock()
	so := len(c.answers)
	c.mu.Unlock()
	c.await(t, "more calls", func(answers []string) bool { return len(answers) >= so+n })
}

func (c *calls) failed() (failed []string) {
	for _, a := range c.answers {
		if !strings.HasSuffix(strings.TrimSpace(a), " 200") {
			failed = append(failed, a)
		}
	}
	return failed
}

// stop ends them. None of their calls may have failed.
func (c *calls) stop(t *testing.T) string {
	t.Helper()
	kubectl(t, "-n", c.in, "exec", c.app, "--", "touch", "/tmp/enough")
	select {
	case err := <-c.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the callers do not end")
	}
	failed := c.failed()
	if len(failed) > 0 {
		t.Errorf("%d of %d calls failed, the first with %s", len(failed), len(c.answers), failed[0])
	}
	return fmt.Sprintf("%d calls of %d clients, %d failed", len(c.answers), callers, len(failed))
}

func contains(answers []string, words string) bool {
	for _, a := range answers {
		if strings.Contains(a, words) {
			return true
		}
	}
	return false
}
