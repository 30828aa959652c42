//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/test/llmserver"
)

// caller is what an app does that calls from its first moment to its last: without pause until it is told to end, and some more
// while it does so. What came of it, it says at its end.
func caller(words string) string {
	return `
calls=0 failed=0 first=none
call() {
  calls=$((calls + 1))
  out=$(` + ask(example, words) + ` 2>&1) && return
  failed=$((failed + 1))
  [ "$first" != none ] || first="of call $calls: $out"
}
trap 'ending=yes' TERM
until [ "$ending" ]; do call; sleep 0.05; done
alive=$calls
while [ $calls -lt $((alive + 20)) ]; do call; sleep 0.05; done
printf '{"calls":%d,"failed":%d}\n%s' $calls $failed "$first" >/dev/termination-log
`
}

// farewells collects what apps say at their end: their pods' last status is seen, and then no more.
type farewells struct {
	mu   sync.Mutex
	said map[string]string // by pod
	left map[string]bool   // pods that are there
}

func listen(t *testing.T, in, selector string) *farewells {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	watch, err := client.CoreV1().Pods(in).Watch(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	f := &farewells{said: map[string]string{}, left: map[string]bool{}}
	go func() {
		for event := range watch.ResultChan() {
			p, ok := event.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			f.mu.Lock()
			if f.left[p.Name] = true; event.Type == "DELETED" {
				delete(f.left, p.Name)
			}
			for _, s := range p.Status.ContainerStatuses {
				if end := s.State.Terminated; end != nil {
					f.said[p.Name] = fmt.Sprintf("%s\n(exit code %d)", end.Message, end.ExitCode)
				}
			}
			f.mu.Unlock()
		}
	}()
	return f
}

// await gives what pods have said, when so many have ended and none is left.
func (f *farewells) await(t *testing.T, pods int) map[string]string {
	t.Helper()
	eventually(t, "all pods have ended", func() (string, bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return fmt.Sprintf("said: %v, left: %v", f.said, f.left), len(f.said) == pods && len(f.left) == 0
	})
	return f.said
}

// callsOf reads the farewell of a caller. No call may have failed.
func callsOf(t *testing.T, pod, said string) (calls int) {
	t.Helper()
	var count struct{ Calls, Failed int }
	head, rest, _ := strings.Cut(said, "\n")
	if err := json.Unmarshal([]byte(head), &count); err != nil {
		t.Errorf("%s ended without a word (%v): %s", pod, err, said)
	}
	if count.Failed != 0 {
		t.Errorf("%s: %d of %d calls failed, the first error was %s", pod, count.Failed, count.Calls, rest)
	}
	return count.Calls
}

func TestNoCallIsLostWhileADeploymentIsReplaced(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-rolling")
	apply(t, exampleProvider("sk-of-rolling"), "-n", in)
	ends := listen(t, in, "app=caller")
	apply(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller}
spec:
  replicas: 2
  selector: {matchLabels: {app: caller}}
  template:
    metadata: {labels: {app: caller}}
    spec:
      terminationGracePeriodSeconds: 300
      containers: [`+container("app", caller("of the rolling update"))+`]
`, "-n", in)
	rolledOut := func() {
		kubectl(t, "-n", in, "rollout", "status", "deployment/caller", "--timeout="+patience.String())
	}
	rolledOut()
	kubectl(t, "-n", in, "rollout", "restart", "deployment/caller")
	rolledOut()
	kubectl(t, "-n", in, "scale", "deployment/caller", "--replicas=0")
	made := 0
	for pod, said := range ends.await(t, 4) {
		calls := callsOf(t, pod, said)
		t.Logf("%s: %d calls", pod, calls)
		made += calls
	}
	ok := 0
	for _, r := range received(t, atAnybody, "of the rolling update") {
		if r.TLS && r.Status == 200 && r.Header.Get("Authorization") == "Bearer sk-of-rolling" {
			ok++
		}
	}
	if ok != made || made < 80 {
		t.Errorf("the apps made %d calls, the provider answered %d", made, ok)
	}
}

func TestAStreamThatRunsAtTheDeletionOfItsPodIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-deletion")
	apply(t, exampleProvider("sk-of-deletion"), "-n", in)
	ends := listen(t, in, "app=reader")
	apply(t, strings.Replace(pod("reader", container("app", `
trap 'told=yes' TERM
curl --silent --show-error --no-buffer --header '`+llmserver.FaultHeader+`: chunks=60 hold-until=end-is-near' http://`+example+` \
  --data '{"stream":true,"messages":[{"role":"user","content":"of a stream to the end"}]}' >/tmp/events 2>&1 &
until [ "$told" ]; do sleep 0.1; done
before=$(grep -c '^data: ' /tmp/events)
reader=$!
`+ask(example, "end-is-near")+` >/tmp/told 2>&1
wait $reader
`+ask(example, "after the stream")+` >/tmp/after 2>&1 || cp /tmp/after /dev/termination-log
printf '%s %s %s' $before $(grep -c '^data: ' /tmp/events) "$(tail -n 2 /tmp/events | tr -d '\n')" >>/dev/termination-log
`)), "terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 300", 1), "-n", in)
	eventually(t, "the stream runs", func() (string, bool) {
		r := received(t, atAnybody, "of a stream to the end")
		return fmt.Sprintf("%+v", r), len(r) == 1
	})
	began := time.Now()
	kubectl(t, "-n", in, "delete", "pod", "reader", "--wait=false")
	for _, said := range ends.await(t, 1) {
		var before, after int
		var last string
		if _, err := fmt.Sscan(said, &before, &after); err == nil {
			_, last, _ = strings.Cut(said, "data: ")
		}
		if before >= after-30 || !strings.HasPrefix(last, "[DONE]") {
			t.Errorf("events before it was told to end, events in all, the last one: %s", said)
		}
		t.Logf("%s: gone %v after the deletion", said, time.Since(began).Round(time.Millisecond))
	}
	if r := received(t, atAnybody, "of a stream to the end"); len(r) != 1 || r[0].Aborted || r[0].Status != 200 {
		t.Errorf("the provider's side of the stream: %+v", r)
	}
	if r := received(t, atAnybody, "after the stream"); len(r) != 1 || r[0].Status != 200 {
		t.Errorf("the provider's side of the call afterwards: %+v", r)
	}
}
