//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// change shows what admission refuses, what it explains, and an edit that takes effect while calls run.
func (d *demo) change() error {
	d.title("Bad configuration is refused, an edit is explained, and takes effect at once")
	if err := os.WriteFile(d.file("5-faulty.yaml"), []byte(d.adapted(faulty)), 0o600); err != nil {
		return err
	}
	if err := d.showFile("5-faulty.yaml"); err != nil {
		return err
	}
	out, err := d.refused("kubectl apply -f " + d.file("5-faulty.yaml"))
	if err != nil {
		return err
	}
	for _, field := range []string{"spec.host", "user-type", "providerHost"} {
		if !strings.Contains(out, field) {
			return fmt.Errorf("it says nothing of %s", field)
		}
	}
	d.notice("All faults at once, each with its field and its remedy.")
	d.pause()
	before, after := d.file("4-demo-llm-server.yaml"), d.file("5-all-to-moonshot.yaml")
	d.say("Now a sound edit, tried first:")
	compare := "diff " + before + " " + after + " | grep weight"
	d.command(compare)
	if out, _ = d.sh(compare); out == "" { // that they differ is the exit code 1
		return errors.New("there is no edit")
	}
	d.output(out)
	if out, err = d.show("kubectl apply --dry-run=server -f " + after); err != nil {
		return err
	}
	if !strings.Contains(out, "50 % of calls move from "+d.qwen+" to "+d.moonshot) {
		return errors.New("it does not say what will move")
	}
	d.notice("`kubectl apply` is a plan: the warning says which calls move. Now for real, while the app calls without pause:")
	return d.edit()
}

// faulty has three faults.
const faulty = `apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata:
  name: faulty
spec:
  host: http://llm.example.com
  rules:
  - matches:
    - headers:
        user-type:
          regex: gold(
    backendRefs:
    - providerHost: api.moonshot.cn:443
`

// tally counts the calls of several clients.
type tally struct {
	mu      sync.Mutex
	calls   int
	failed  []string
	lastOld time.Time // when the last answer of the old route came
	newOnes int       // since then
}

func (t *tally) add(answer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls++
	switch {
	case strings.Contains(answer, `"model":"qwen`):
		t.lastOld, t.newOnes = time.Now(), 0
	case strings.Contains(answer, `"model":"moonshot`):
		t.newOnes++
	default:
		t.failed = append(t.failed, answer)
	}
}

func (t *tally) read(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

// clients is how many call at the same time.
const clients = 4

// callers call without pause until the file is there, and say of each call what came of it, in a line.
var callers = fmt.Sprintf(`kubectl exec -i deployment/sleep -- sh <<'EOF'
rm -f /tmp/enough
call() {
  n=0
  until [ -e /tmp/enough ] || [ $((n += 1)) -gt 5000 ]; do
    answer=$(curl --silent --show-error http://%s --data '{"messages": [{"role": "user", "content": "hi"}]}' 2>&1)
    echo "$answer"
    sleep 0.03
  done
}
for i in $(seq %d); do call & done
wait
EOF`, virtual, clients)

func (d *demo) edit() error {
	var t tally
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- d.lines(ctx, callers, t.add) }()
	enough := func() error {
		if err := d.quiet("exec", "deployment/sleep", "--", "touch", "/tmp/enough"); err != nil {
			return err
		}
		return <-ended
	}
	if err := d.until(ended, func() bool { return t.calls > 20 && !t.lastOld.IsZero() }, &t); err != nil {
		return err
	}
	began := time.Now()
	_, err := d.show("kubectl apply -f " + d.file("5-all-to-moonshot.yaml"))
	applied := time.Now()
	if err == nil {
		// Half of the calls were old; that none of so many is would be a strange chance.
		err = d.until(ended, func() bool { return t.newOnes >= 60 }, &t)
	}
	if err := errors.Join(err, enough()); err != nil {
		return err
	}
	if len(t.failed) > 0 {
		return fmt.Errorf("%d of %d calls failed, the first with %s", len(t.failed), t.calls, t.failed[0])
	}
	when := "before it was back"
	if late := t.lastOld.Sub(applied); late > 0 {
		when = fmt.Sprintf("%d ms after it was back", late.Milliseconds())
	}
	d.notice("%d calls of %d clients, 0 failed. kubectl took %d ms; the last answer on the old route came %d ms after it was started, %s.",
		t.calls, clients, applied.Sub(began).Milliseconds(), max(0, t.lastOld.Sub(began).Milliseconds()), when)
	d.pause()
	return nil
}

// until waits for what the tally is to show.
func (d *demo) until(ended <-chan error, enough func() bool, t *tally) error {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(time.Minute); ; {
		yes, said := false, ""
		t.read(func() {
			yes = enough()
			if len(t.failed) > 0 {
				said = t.failed[0]
			}
		})
		switch {
		case yes:
			return nil
		case said != "":
			return fmt.Errorf("a call failed: %s", said)
		}
		select {
		case <-again.C:
		case err := <-ended:
			return fmt.Errorf("the clients have ended: %w", err)
		case <-deadline:
			return fmt.Errorf("the edit had no effect within a minute, in %d calls", t.calls)
		case <-d.ctx.Done():
			return d.ctx.Err()
		}
	}
}
