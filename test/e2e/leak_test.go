//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/stage"
)

func TestNoPromptLeavesAPodInPlainText(t *testing.T) {
	t.Parallel()
	marker := fmt.Sprintf("prompt-%016x", rand.Uint64())
	providers := raiseLeakProviders(t)
	packets := watchPackets(t, marker)
	in := injected(t, "e2e-leak")

	// One starts before there is anything at all.
	first := talk(t, in, "first", marker, []string{steady}, leakTold)
	first.diagnose(t)
	first.await(t, "calls while there is no configuration", time.Time{}, map[string]int{steady: 503, leakTold: 503})
	for _, c := range first.calls(t) {
		if c.status == 200 {
			t.Errorf("there is no configuration, and a call was answered: %v", c)
		}
	}
	configured := time.Now()
	apply(t, leakProvider("steady", "apiKey: sk-x"), "-n", in)
	first.await(t, "calls with a configuration", configured, map[string]int{steady: 200, leakTold: 200})
	apply(t, leakObjects, "-n", in)
	k, again := talk(t, in, "talker", marker, leakKept, leakTold), talk(t, in, "again", marker, leakKept, leakTold)
	k.diagnose(t)
	again.diagnose(t)
	k.await(t, "calls of all hosts", time.Time{},
		map[string]int{steady: 200, guarded: 200, gone: 200, routed: 200, both: 200, distrusted: 502, leakTold: 200})

	t.Run("WhenObjectsAreDeleted", func(t *testing.T) { leakDeleted(t, in, k) })
	t.Run("AtOnce", func(t *testing.T) {
		for name, run := range map[string]func(*testing.T){
			"WhenThePodIsStartedAnew": func(t *testing.T) { t.Helper(); leakAnew(t, again) },
			"WhenThePodIsKilled":      func(t *testing.T) { t.Helper(); leakKilledPod(t, first) },
			"WhenTheSidecarIsKilled":  func(t *testing.T) { t.Helper(); leakKilled(t, k) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t)
			})
		}
	})
	t.Run("WhenTheNamespaceIsNoLongerLabelled", func(t *testing.T) { leakUnlabelled(t, in, k) })
	t.Run("WhenTheSidecarHangsAndTheAppRestarts", func(t *testing.T) { leakFrozen(t, k) })
	t.Run("WhenThePodEnds", func(t *testing.T) { leakEnd(t, k) })

	var told []string
	for _, c := range slices.Concat(first.calls(t), k.calls(t), again.calls(t)) {
		if c.status != 200 {
			continue
		}
		switch c.host {
		case leakTold:
			told = append(told, c.prompt)
		case unready, distrusted:
			t.Errorf("something has answered where nobody can: %v", c)
		}
	}
	packets.stop(t, told)
	leakReceived(t, providers, marker)
}

// leakLeft is what comes of the calls once most objects have been deleted.
var leakLeft = map[string]int{steady: 200, guarded: 503, gone: 503, routed: 503, both: 503, distrusted: 502, leakTold: 200}

func leakDeleted(t *testing.T, in string, k *talker) {
	t.Helper()
	kubectl(t, "-n", in, "delete", "secret/guarded", "llmprovider/gone", "llmprovider/both", "llmroute/routed")
	k.await(t, "calls with what is left", time.Now(), leakLeft)
	kubectl(t, "-n", in, "delete", "llmroute/both")
	k.await(t, "calls with what is left", time.Now(), leakLeft)
	// Nor is one accepted that would send what is sent over TLS in plain text, with its key.
	out, err := cluster.KubectlWith(t.Context(), strings.Replace(leakProvider("steady", "apiKey: sk-x"), "spec:", "spec:\n  tls: {mode: DISABLE}", 1),
		"-n", in, "apply", "-f", "-")
	if err == nil {
		t.Errorf("a key over plain HTTP was accepted: %s", out)
	}
}

// leakKilled looks at what an app sees when its sidecar dies: refusals at once, and then all as before.
func leakKilled(t *testing.T, k *talker) {
	t.Helper()
	_, before := k.process(t, v1beta1.SidecarContainer)
	killed := time.Now()
	k.signal(t, v1beta1.SidecarContainer, unix.SIGKILL)
	k.awaitAnother(t, v1beta1.SidecarContainer, before)
	again := time.Now()
	k.await(t, "calls after the sidecar was killed", killed, leakLeft)
	k.wantRefusals(t, killed, again)
	t.Logf("%v from its death to calls that are as before", time.Since(killed).Round(time.Millisecond))
}

// awaitAnother waits until a container runs that is not that of before.
func (k *talker) awaitAnother(t *testing.T, container, before string) {
	t.Helper()
	eventually(t, container+" runs again", func() (string, bool) {
		_, id := k.process(t, container)
		return id, id != before
	})
}

// wantRefusals wants that every call while there was no sidecar was either answered, or told that it has no connection, rather than left
// to wait.
func (k *talker) wantRefusals(t *testing.T, from, to time.Time) {
	t.Helper()
	ended := map[string]int{}
	for _, c := range k.since(t, from) {
		ended[fmt.Sprintf("status %d, curl %d", c.status, c.exit)]++
		switch {
		case c.began.Add(c.took).After(to): // one that has just begun may be slow, where the machine is busy
		case c.status != 0 || c.host == unready: // the kernel does not always say at once that there is no endpoint
		case c.exit != curlRefused && c.exit != curlEmpty && c.exit != curlReset:
			t.Errorf("a call got neither an answer nor an error of its connection: %v", c)
		}
	}
	t.Logf("calls since then: %v", ended)
}

// leakAnew has the kubelet make the pod's sandbox anew, with another network namespace, and run all of its init containers again.
func leakAnew(t *testing.T, k *talker) {
	t.Helper()
	awaitReady(t, k.in, "pod/"+k.name)
	_, before := k.process(t, v1beta1.SidecarContainer)
	pause := processIn(k.uid, "pause")
	if pause == 0 {
		t.Fatal("the pod has no sandbox")
	}
	killed := time.Now()
	if err := unix.Kill(pause, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	k.awaitAnother(t, v1beta1.SidecarContainer, before)
	k.await(t, "calls after the sandbox was killed", killed, map[string]int{steady: 200, guarded: 503, distrusted: 502, leakTold: 200})
	t.Logf("%v from the death of the sandbox to calls that are as before", time.Since(killed).Round(time.Millisecond))
	k.end(t, "--grace-period=1")
}

func leakUnlabelled(t *testing.T, in string, k *talker) {
	t.Helper()
	kubectl(t, "label", "namespace", in, v1beta1.InjectLabel+"-")
	k.await(t, "calls after the label was taken away", time.Now(), leakLeft)
}

// leakFrozen stops the sidecar without an end, so that calls hang, then kills it while the kubelet has reason to wait before it starts
// it again; meanwhile the app itself is started anew.
func leakFrozen(t *testing.T, k *talker) {
	t.Helper()
	_, sidecar := k.process(t, v1beta1.SidecarContainer)
	_, app := k.process(t, "app")
	frozen := time.Now()
	k.signal(t, v1beta1.SidecarContainer, unix.SIGSTOP)
	eventually(t, "calls hang", func() (string, bool) {
		hang := 0
		for _, c := range k.since(t, frozen) {
			if c.exit == curlTimeout && c.host != unready {
				hang++
			}
		}
		return fmt.Sprint(hang), hang >= len(leakKept)-1
	})
	k.signal(t, v1beta1.SidecarContainer, unix.SIGKILL)
	killed := time.Now()
	k.await(t, "calls after its death", killed, map[string]int{steady: 0, gone: 0, leakTold: 0})
	k.signal(t, "app", unix.SIGKILL)
	k.awaitAnother(t, "app", app)
	k.awaitAnother(t, v1beta1.SidecarContainer, sidecar)
	again := time.Now()
	k.await(t, "calls after it runs again", killed, leakLeft)
	k.wantRefusals(t, killed, again)
	t.Logf("%v from its second death to calls that are as before", time.Since(killed).Round(time.Millisecond))
}

// leakEnd deletes the pod: its app calls on while it takes its time to end, and is answered.
func leakEnd(t *testing.T, k *talker) {
	t.Helper()
	told := time.Now()
	k.end(t)
	last := k.since(t, told)
	for _, c := range last {
		if want := leakLeft[c.host]; c.status != want && c.host != unready {
			t.Errorf("a call of an app that ends: %v; want status %d", c, want)
		}
	}
	if len(last) < len(leakKept) {
		t.Errorf("the app made %d calls while it ended", len(last))
	}
	t.Logf("%d calls from the deletion to the end", len(last))
}

// leakKilledPod deletes one that does not end in time, so that app and sidecar are killed in any order.
func leakKilledPod(t *testing.T, k *talker) {
	t.Helper()
	k.end(t, "--grace-period=1")
	t.Logf("%d calls up to the end", len(k.calls(t)))
}

// end deletes the pod and waits until it has gone, and the logs with it.
func (k *talker) end(t *testing.T, args ...string) {
	t.Helper()
	kubectl(t, append([]string{"-n", k.in, "delete", "pod", k.name, "--wait=false"}, args...)...)
	eventually(t, k.name+" has ended", func() (string, bool) {
		k.calls(t)
		out, _ := cluster.Kubectl(t.Context(), "-n", k.in, "get", "pod", k.name, "--ignore-not-found", "-o", "name")
		return out, out == ""
	})
}

// leakReceived asks the other side: what came was encrypted, but for what was told.
func leakReceived(t *testing.T, providers []stage.Provider, marker string) {
	t.Helper()
	kept, told := 0, 0
	for _, p := range providers {
		for _, r := range received(t, p, marker) {
			if bytes.Contains(r.Body, []byte(marker+toldPrompt)) {
				told++
				continue
			}
			kept++
			if !r.TLS {
				t.Errorf("%s received in plain text for %s: %s", p.Name, r.Host, r.Body)
			}
		}
	}
	if kept < 20 || told < 20 {
		t.Errorf("the providers received only %d prompts over TLS and %d others", kept, told)
	}
	t.Logf("the providers received %d prompts over TLS, and %d in plain text of those that were to be", kept, told)
}
