//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/llmserver"
)

// Each body is within what a request may have; kept all at once, they would be more than the sidecar is.
func TestLargeBodiesDoNotEndASmallSidecar(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-large-bodies")
	runSmall(t, in, "sk-of-large")
	out := shell(t, in, "app", `
{ printf '{"model":"m","messages":[{"role":"user","content":"'; head -c 40000000 /dev/zero | tr '\0' x; printf '"}]}'; } >/tmp/large
{ printf '{"model":"m","messages":[{"role":"user","content":"'; head -c 3000000 /dev/zero | tr '\0' x; printf '"}]}'; } >/tmp/fitting
for body in large large fitting fitting fitting fitting fitting fitting; do
  curl --silent --output /dev/null --max-time 120 --write-out '%{http_code} ' http://`+example+` --json @/tmp/$body &
done
wait`)
	counts := map[string]int{}
	for _, status := range strings.Fields(out) {
		counts[status]++
	}
	if counts["413"] != 2 || counts["200"] == 0 || counts["200"]+counts["413"]+counts["503"] != 8 {
		t.Errorf("large calls ended with %s", out)
	}
	if s := onePod(t, in, "app=app").Status.InitContainerStatuses[1]; s.RestartCount != 0 {
		t.Errorf("the sidecar was restarted: %+v", s.LastTerminationState)
	}
}

// Small bodies are not counted: enough calls that wait for an answer are more than a small sidecar is.
func TestASidecarThatRunsOutOfMemoryIsRestartedAndItsAppSeesAnError(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-memory")
	runSmall(t, in, "sk-of-memory")
	shell(t, in, "app", ask(example, "before it is too much"))
	out := shell(t, in, "app", `
{ printf '{"model":"m","messages":[{"role":"user","content":"it is too much'; head -c 15000 /dev/zero | tr '\0' x; printf '"}]}'; } >/tmp/small
for i in 1 2; do
  curl --silent --parallel --parallel-immediate --parallel-max 300 --output /dev/null --max-time 60 --write-out '%{http_code} %{exitcode} %{time_total}\n' \
    --header '`+llmserver.FaultHeader+`: delay=40s' --json @/tmp/small 'http://`+example+`/?[1-300]' 2>/dev/null &
done
wait`)
	for line := range strings.Lines(out) {
		var status, exit int
		var seconds float64
		if _, err := fmt.Sscan(line, &status, &exit, &seconds); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		// A connection that is refused, closed or reset, while sending (55) or waiting: what is not is answered.
		if status == 0 && exit != curlRefused && exit != curlEmpty && exit != curlSend && exit != curlReset {
			t.Errorf("a call ended with status %d, curl %d after %v s", status, exit, seconds)
		}
	}
	eventually(t, "the sidecar was killed for its memory, and runs again", func() (string, bool) {
		p := onePod(t, in, "app=app")
		s := p.Status.InitContainerStatuses[1]
		last := s.LastTerminationState.Terminated
		return fmt.Sprintf("%+v", s), s.Ready && s.RestartCount >= 1 && last != nil && (last.Reason == "OOMKilled" || last.ExitCode == 137)
	})
	shell(t, in, "app", ask(example, "after it was too much"))
	if p := onePod(t, in, "app=app"); p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("the app was restarted, too")
	}
	for _, r := range received(t, atAnybody, "it") {
		if strings.Contains(string(r.Body), "too much") && !r.TLS {
			t.Error("a prompt arrived in plain text")
		}
	}
	has(t, "kubectl logs --previous", kubectl(t, "-n", in, "logs", "app", "-c", v1beta1.SidecarContainer, "--previous"), "configuration in use")
}

// runSmall runs the pod app with as little memory for its sidecar as one can have.
func runSmall(t *testing.T, in, key string) {
	t.Helper()
	apply(t, exampleProvider(key), "-n", in)
	small := strings.Replace(pod("app", container("app", idle)), "labels: {app: app}", "labels: {app: app}, annotations: {"+v1beta1.MemoryAnnotation+": 32Mi}", 1)
	apply(t, small, "-n", in)
	awaitReady(t, in, "pod/app")
}

// The unit of trust is the pod: its containers may spend the key, and see the rules, but not read the key.
func TestAnAppThatIsRootFindsNoKeyAtTheSidecar(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-curious")
	const key = "sk-of-the-curious"
	apply(t, exampleProvider(key), "-n", in)
	apply(t, pod("app", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/app")
	out := shell(t, in, "app", `
id -u
`+ask(example, "of the curious")+`
echo
curl --silent --fail http://127.0.0.1:14020/config || echo no config
for url in 14020/ 14020/debug/pprof/ 14020/debug/pprof/heap 14020/debug/vars 14021/config 14021/debug/pprof/ 14021/metrics; do
  curl --silent http://127.0.0.1:$url
done
echo mounts; cat /proc/self/mounts
echo processes; cat /proc/[0-9]*/cmdline | tr '\0' ' '
echo search; grep -r -l -e `+key[:12]+` / --exclude-dir=proc --exclude-dir=sys 2>/dev/null
echo ended`)
	has(t, "what the app finds", out, "0\n", "https://"+example+":443", "search\nended")
	for _, word := range []string{key, "remora-access", v1beta1.AccessSecret, v1beta1.KeysSecret, "--last-good", "/run/remora", "goroutine profile", `"memstats"`} {
		if strings.Contains(out, word) {
			t.Errorf("the app finds %q:\n%s", word, out)
		}
	}
	if r := received(t, atAnybody, "of the curious"); len(r) != 1 || r[0].Header.Get("Authorization") != "Bearer "+key {
		t.Errorf("the provider received %+v", r)
	}
	has(t, "what the redirection tells", kubectl(t, "-n", in, "logs", "app", "-c", v1beta1.RedirectContainer), "port 80", "REDIRECT")
}
