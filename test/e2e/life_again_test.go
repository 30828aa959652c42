//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

// The kubelet makes a pod's sandbox anew when that has died, as after a restart of the node: all init containers run again.
func TestAPodWorksAfterItsInitContainersRanAgain(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-again")
	apply(t, exampleProvider("sk-of-again"), "-n", in)
	apply(t, pod("app", container("app", idle), "initContainers: ["+container("first", ask(example, "of its init container"))+"]"), "-n", in)
	awaitReady(t, in, "pod/app")
	shell(t, in, "app", ask(example, "of the first life"))
	p := onePod(t, in, "app=app")

	sandbox, err := cluster.Ctr(t.Context(), "containers", "list", "--quiet",
		`labels."io.kubernetes.pod.uid"==`+string(p.UID)+`,labels."io.cri-containerd.kind"==sandbox`)
	if err != nil || len(strings.Fields(sandbox)) != 1 {
		t.Fatalf("the pod's sandbox: %q, %v", sandbox, err)
	}
	if out, err := cluster.Ctr(t.Context(), "tasks", "kill", "--signal=SIGKILL", strings.TrimSpace(sandbox)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	began := time.Now()
	eventually(t, "all containers run again", func() (string, bool) {
		p = onePod(t, in, "app=app")
		var said strings.Builder
		again := true
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			fmt.Fprintf(&said, "%s: restarted %d times, ready %v\n", s.Name, s.RestartCount, s.Ready)
			again = again && s.RestartCount > 0 && s.Ready
		}
		return said.String(), again
	})
	t.Logf("ready %v after the death of its sandbox", time.Since(began).Round(time.Millisecond))
	shell(t, in, "app", ask(example, "of the second life"))
	for words, n := range map[string]int{"of its init container": 2, "of the first life": 1, "of the second life": 1} {
		if r := received(t, atAnybody, words); len(r) != n || !r[0].TLS {
			t.Errorf("%s, the provider received %+v", words, r)
		}
	}
	wantOneRedirection(t, in, "80")
}

// A second run in the same network namespace, beside a sidecar that is at work.
func TestARedirectionThatIsWrittenAgainDisturbsNoCall(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-rewritten")
	apply(t, exampleProvider("sk-of-rewritten"), "-n", in)
	apply(t, pod("app", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/app")
	calls := callAllTheTime(t, in, "app", example, "of the rewriting")
	calls.awaitMore(t, 10)
	for i, ports := range []string{"80", "80", "80,8080"} {
		out := beside(t, in, fmt.Sprintf("again-%d", i), "--arguments-only", "--", "--ports="+ports)
		has(t, "the redirection", out, "redirect: outbound TCP to port")
		wantOneRedirection(t, in, strings.Split(ports, ",")...)
		calls.awaitMore(t, 5)
	}
	t.Log(calls.stop(t))
}

// wantOneRedirection looks at the rules in the pod named app.
func wantOneRedirection(t *testing.T, in string, ports ...string) {
	t.Helper()
	rules := beside(t, in, fmt.Sprintf("rules-%d", time.Now().UnixNano()), "--", "iptables-nft-save", "-t", "nat")
	if n := strings.Count(rules, "-A OUTPUT "); n != 1 || !strings.Contains(rules, "-A OUTPUT -p tcp -j REMORA_OUTPUT\n") {
		t.Errorf("%d rules of OUTPUT:\n%s", n, rules)
	}
	if n := strings.Count(rules, "-j REDIRECT"); n != len(ports) {
		t.Errorf("%d rules redirect; want one for each of the ports %v:\n%s", n, ports, rules)
	}
	for _, port := range ports {
		has(t, "the rules", rules, "--dport "+port+" -j REDIRECT --to-ports 14001")
	}
}

// beside runs the image of the redirection as a container of the pod named app, to its end, and gives what it prints.
func beside(t *testing.T, in, name string, command ...string) string {
	t.Helper()
	kubectl(t, append([]string{"-n", in, "debug", "app", "--container=" + name, "--image=remora.dev/redirect:latest", "--image-pull-policy=Never",
		"--profile=netadmin", "--quiet"}, command...)...)
	var end *corev1.ContainerStateTerminated
	eventually(t, "container "+name+" has ended", func() (string, bool) {
		p, err := client.CoreV1().Pods(in).Get(t.Context(), "app", metav1.GetOptions{})
		if err != nil {
			return err.Error(), false
		}
		for _, s := range p.Status.EphemeralContainerStatuses {
			if s.Name == name {
				end = s.State.Terminated
			}
		}
		return fmt.Sprintf("%+v", p.Status.EphemeralContainerStatuses), end != nil
	})
	out := kubectl(t, "-n", in, "logs", "app", "-c", name)
	if end.ExitCode != 0 {
		t.Fatalf("container %s ended with %d:\n%s\n%s", name, end.ExitCode, out, kubectl(t, "-n", in, "logs", "app", "-c", v1beta1.SidecarContainer))
	}
	return out
}
