//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/crds"
	"remora.dev/remora/test/stage"
)

const gatewayYAML = root + "/config/gateway"

// TestTheGateway installs it into a cluster that knows nothing of Istio yet, and tries it: each part in a namespace of its own, and side by side.
func TestTheGateway(t *testing.T) {
	t.Parallel()
	began := time.Now()
	kubectl(t, "apply", "--server-side", "-k", gatewayYAML)
	t.Cleanup(func() { // after the parts, which are parallel
		if t.Failed() {
			t.Log(gatewayDiagnosis(t))
		}
		kubectl(t, "delete", "-k", gatewayYAML, "--wait=false")
	})
	kubectl(t, "-n", v1beta1.GatewayName, "wait", "--for=condition=Available", "deployment", "--all", "--timeout="+patience.String())
	t.Logf("the gateway was available after %v", time.Since(began).Round(time.Millisecond))
	// The kinds come when all that watches them runs.
	manifest, err := crds.Manifest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	apply(t, manifest, "--server-side")
	for _, name := range crds.All {
		kubectl(t, "wait", "--for=condition=Established", "crd/"+name, "--timeout="+patience.String())
	}
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"ExecutesTheFourResources", fourResources},
		{"EndsTLS", gatewayTLS},
		{"RoutesByHeadersAndSubsets", gatewayRoutes},
		{"GoesOnWhilePodsAreLostAndReplaced", gatewayLosses},
		{"IsTheWayOut", gatewayEgress},
		{"NamesWhatIsWrong", gatewayFaults},
		{"HasTheSamePoliciesAsSidecars", sidecarBalance},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.run(t)
		})
	}
}

// gatewayPods are the pods of the gateway that run and are to stay.
func gatewayPods(t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := client.CoreV1().Pods(v1beta1.GatewayName).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + v1beta1.GatewayName})
	if err != nil {
		t.Fatal(err)
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil || p.Status.PodIP == "" })
	if len(pods) == 0 {
		t.Fatal("there is no pod of the gateway")
	}
	return pods
}

// through makes callers of a host that come through the gateway: each connection to the next of its pods.
func through(t *testing.T, host string, port int) stage.Caller {
	t.Helper()
	var addresses []string
	for _, p := range gatewayPods(t) {
		addresses = append(addresses, net.JoinHostPort(p.Status.PodIP, fmt.Sprint(port)))
	}
	var next atomic.Uint32
	return stage.Caller{Host: host, Dial: func(ctx context.Context) (net.Conn, error) {
		return cluster.Dial(ctx, "tcp", addresses[int(next.Add(1))%len(addresses)])
	}}
}

// servers brings servers into a namespace, and gives their pods when all are ready.
func servers(t *testing.T, in string, a stage.API) {
	t.Helper()
	manifest, err := a.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	apply(t, manifest, "-n", in)
	kubectl(t, "-n", in, "rollout", "status", "deployment/"+a.Name, "--timeout="+patience.String())
}

// answers waits until all pods of the gateway know the host: so many calls in turn, each on a connection of its own, are answered so.
func answers(t *testing.T, c stage.Caller, what string, so func(stage.Answer) bool) {
	t.Helper()
	c.Apart = true
	eventually(t, what, func() (string, bool) {
		for i := range 2 * len(gatewayPods(t)) {
			ctx, cancel := context.WithTimeout(t.Context(), talkTime)
			a := c.Call(ctx, i)
			cancel()
			if !so(a) {
				return a.String(), false
			}
		}
		return "", true
	})
}

// shared makes calls of which none may fail, and gives the pods' shares.
func shared(t *testing.T, c stage.Caller, calls, clients int) map[string]int {
	t.Helper()
	shares, failed := stage.Shares(c.Calls(t.Context(), calls, clients))
	if len(failed) > 0 {
		t.Errorf("%d of %d calls failed, the first with %v", len(failed), calls, failed[0])
	}
	return shares
}

// wantEven complains where pods do not take turns: those of the gateway count for themselves.
func wantEven(t *testing.T, what string, shares map[string]int, calls, pods int) {
	t.Helper()
	if len(shares) != pods {
		t.Errorf("%s: %v; want the shares of %d pods", what, shares, pods)
	}
	for pod, n := range shares {
		if off := n - calls/pods; max(off, -off) > len(gatewayPods(t)) {
			t.Errorf("%s: of %d calls, %s has %d: %v", what, calls, pod, n, shares)
		}
	}
}

// wantChance complains where a share is one that chance has once in a thousand million times.
func wantChance(t *testing.T, what string, n, calls int, probability float64) {
	t.Helper()
	if low, high := stage.Between(calls, probability); n < low || n > high {
		t.Errorf("%s: %d of %d calls; want between %d and %d", what, n, calls, low, high)
	}
}

// inTheGateway runs a program in the network namespace of each pod of the gateway.
func inTheGateway(t *testing.T, name string, args ...string) {
	t.Helper()
	for _, p := range gatewayPods(t) {
		err := inNetworkOf(func() (int, error) { return processOf(p) }, func() error {
			out, err := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%s in the network of %s: %w: %s", name, p.Name, err, out)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func gatewayDiagnosis(t *testing.T) string {
	t.Helper()
	var text bytes.Buffer
	for _, args := range [][]string{
		{"-n", v1beta1.GatewayName, "get", "all", "-o", "wide"},
		{"-n", v1beta1.GatewayName, "get", "events"},
		{"-n", v1beta1.GatewayName, "logs", "-l", "app=" + v1beta1.GatewayName, "--tail=60", "--prefix"},
		{"-n", system, "logs", "-l", "app.kubernetes.io/name=" + v1beta1.ControllerName, "--tail=30", "--prefix"},
	} {
		out, err := cluster.Kubectl(context.WithoutCancel(t.Context()), args...)
		fmt.Fprintf(&text, "--- %s (%v):\n%s\n", strings.Join(args, " "), err, out)
	}
	return text.String()
}
