//go:build linux

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/stage"
)

// bound is YAML of a host of the gateway, port 80, whose calls go to a Service of the same namespace by a policy, and of the Service. What ought to
// be different is for the caller to add.
func bound(host, name, policy string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[2]s}
spec: {selector: {app: %[4]s}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: %[2]s}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [%[1]s]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %[2]s}
spec:
  hosts: [%[1]s]
  gateways: [%[2]s]
  http: [{route: [{destination: {host: %[2]s, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[2]s}
spec: {host: %[2]s, trafficPolicy: %[3]s}
`, host, name, policy, stage.APILabel)
}

// gatewayLosses takes pods away in each way in which they go, under load.
func gatewayLosses(t *testing.T) {
	t.Helper()
	in := labelled(t, "e2e-gateway-losses")
	servers(t, in, stage.API{Name: "api", Replicas: 3, Delay: 20 * time.Millisecond})
	const host = "losses.example.com"
	apply(t, bound(host, "losses", `{loadBalancer: {simple: ROUND_ROBIN}}`), "-n", in)
	c := through(t, host, 80)
	answers(t, c, host+" is served", stage.Answer.OK)
	load := c.Begin(t.Context(), 3, 10*time.Millisecond)
	defer load.Stop()
	_ = t.Run("AServerThatIsKilledTakesItsStreamAlongAndNothingElse", func(t *testing.T) { killed(t, in, c, load) }) &&
		t.Run("ARollingUpdateLosesNoCall", func(t *testing.T) { replaced(t, in, load) }) &&
		t.Run("WithoutTheAPIServerTheLastServersAreCalled", func(t *testing.T) { unheard(t, in, load) })
	if end := load.Stop(); len(end.Failed) > 0 {
		t.Errorf("%v", end)
	} else {
		t.Logf("%d calls, 0 failed", end.Calls)
	}
}

func apiPods(t *testing.T, in string) []corev1.Pod {
	t.Helper()
	list, err := client.CoreV1().Pods(in).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + stage.APILabel})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// killed kills a server in the middle of a stream. That stream cannot be saved, and says so; calls that the server had not answered to any byte may
// not be made again, either, so that the load waits meanwhile: what comes after must not fail.
func killed(t *testing.T, in string, c stage.Caller, load *stage.Load) {
	t.Helper()
	r, err := c.Request(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(`{"model":"any","stream":true,"messages":[{"role":"user","content":"hi"}]}`)), -1
	r.Header.Set(llmserver.FaultHeader, "chunks=100000")
	transport := &http.Transport{DialContext: dialOf(c)}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for events := 0; events < 5 && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data: ") {
			events++
		}
	}
	pod := response.Header.Get(llmserver.NameHeader)
	all := apiPods(t, in)
	i := slices.IndexFunc(all, func(p corev1.Pod) bool { return p.Name == pod })
	if i < 0 {
		t.Fatalf("the stream is of %q, status %d", pod, response.StatusCode)
	}
	pid, err := processOf(all[i])
	if err != nil {
		t.Fatal(err)
	}
	before := load.Tally()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	last := ""
	for lines.Scan() {
		if lines.Text() != "" {
			last = lines.Text()
		}
	}
	if lines.Err() == nil && strings.Contains(last, "[DONE]") {
		t.Error("the stream seems to have ended well")
	}
	t.Logf("the stream ended with %v, after %q", lines.Err(), last)
	// The others take the calls at once, and the one that was killed some when it is there again.
	load.Mark()
	if err := load.Until(t.Context(), func(t stage.Tally) bool { return t.Shares[pod] >= 10 }); err != nil {
		t.Fatal(err)
	}
	after := load.Tally()
	// Those that it had begun to answer, or had under way: at most one of each client.
	if lost := len(after.Failed) - len(before.Failed); lost > 3 {
		t.Errorf("%d calls failed at its end: %v", lost, after.Failed)
	}
	load.Forgive()
}

func dialOf(c stage.Caller) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx) }
}

// replaced replaces all servers, one after the other.
func replaced(t *testing.T, in string, load *stage.Load) {
	t.Helper()
	old := apiPods(t, in)
	kubectl(t, "-n", in, "rollout", "restart", "deployment/api")
	kubectl(t, "-n", in, "rollout", "status", "deployment/api", "--timeout="+patience.String())
	settledShares(t, load, 3, old)
}

// settledShares waits until so many pods share the calls, and none of the old ones.
func settledShares(t *testing.T, load *stage.Load, pods int, old []corev1.Pod) {
	t.Helper()
	eventually(t, "the new servers share the calls", func() (string, bool) {
		load.Mark()
		if err := load.Until(t.Context(), func(t stage.Tally) bool { return t.Answered() >= 30*pods }); err != nil {
			t.Fatal(err)
		}
		tally := load.Tally()
		for _, p := range old {
			if tally.Shares[p.Name] > 0 {
				return tally.String(), false
			}
		}
		return tally.String(), len(tally.Shares) == pods
	})
}

// unheard has the gateway hear nothing of the API server, while a server goes. What it does not hear it finds out.
func unheard(t *testing.T, in string, load *stage.Load) {
	t.Helper()
	const apiServer = "10.96.0.1" // the Service kubernetes
	inTheGateway(t, "iptables", "-I", "OUTPUT", "-d", apiServer, "-p", "tcp", "-j", "DROP")
	heard := false
	hear := func() {
		if !heard {
			heard = true
			inTheGateway(t, "iptables", "-D", "OUTPUT", "-d", apiServer, "-p", "tcp", "-j", "DROP")
		}
	}
	defer hear()
	old := apiPods(t, in)
	kubectl(t, "-n", in, "delete", "pod", old[0].Name)
	settledShares(t, load, 2, old[:1])
	hear()
	settledShares(t, load, 3, old[:1])
}
