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

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/llmserver"
)

// What the README says of each part that is away, one after the other. Nothing runs beside this test: for as long, no other pod would start.
func TestPodsGoOnWhileWhatMadeThemIsAway(t *testing.T) {
	in, other := injected(t, "e2e-away"), labelled(t, "e2e-away-unlabelled")
	labelled(t, "e2e-away-new")
	const marker = "while-all-is-away"
	apply(t, awayProvider("small")+awaySecret("sk-one")+strings.NewReplacer("example", "spare", "api.", "spare.").Replace(provider), "-n", in)
	k := talk(t, in, "talker", marker, []string{example}, inhouse)
	k.diagnose(t)
	k.await(t, "calls", time.Time{}, map[string]int{example: 200, inhouse: 200})
	began := time.Now()
	t.Cleanup(func() { // whatever has failed: others need them
		scale(t, v1beta1.WebhookName, "2")
		scale(t, v1beta1.ControllerName, "2")
		settled(t)
	})
	a := &away{in: in, other: other, marker: marker, k: k}

	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"TheController", a.controller},
		{"TheWebhookToo", a.webhook},
		{"NothingAnyMore", a.nothing},
		{"TheAPIServer", a.server},
	} {
		if !t.Run(step.name, step.run) {
			break // each builds on those before
		}
	}
	for _, c := range k.since(t, began) {
		keyless := c.host == example && c.status == 503 && c.began.After(a.revoked.from) && c.began.Before(a.revoked.to)
		if c.status != 200 && !keyless && (a.frozen.IsZero() || c.began.Before(a.frozen)) {
			t.Errorf("a call of a pod that runs: %v", c)
		}
	}
}

type away struct {
	in, other, marker string
	k                 *talker
	revoked           struct{ from, to time.Time } // when there was no key
	frozen            time.Time
}

func awayProvider(model string) string {
	return strings.NewReplacer("model: small", "model: "+model, "apiKey: x", "apiKeyRef: {name: away}").Replace(exampleProvider("x"))
}

func awaySecret(key string) string {
	return "---\napiVersion: v1\nkind: Secret\nmetadata: {name: away}\nstringData: {apiKey: " + key + "}\n---\n"
}

// arrives waits for a request with a model and a key.
func (a *away) arrives(t *testing.T, model, key string) {
	t.Helper()
	eventually(t, "a call with model "+model+" and key "+key, func() (string, bool) {
		all := received(t, atAnybody, a.marker)
		last := slices.IndexFunc(all, func(r llmserver.Request) bool {
			return r.TLS && strings.Contains(string(r.Body), fmt.Sprintf("%q:%q", "model", model)) && r.Header.Get("Authorization") == "Bearer "+key
		})
		return fmt.Sprintf("%d calls", len(all)), last >= 0
	})
}

func scale(t *testing.T, deployment, replicas string) {
	t.Helper()
	kubectl(t, "-n", system, "scale", "deployment", deployment, "--replicas="+replicas)
	if replicas == "0" {
		kubectl(t, "-n", system, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name="+deployment, "--timeout="+patience.String())
	}
}

// refused runs kubectl with a manifest that nobody may let in.
func (a *away) refused(t *testing.T, in, manifest string, words ...string) {
	t.Helper()
	out, err := cluster.KubectlWith(t.Context(), manifest, "-n", in, "apply", "-f", "-")
	if err == nil {
		t.Errorf("it was let in:\n%s\n%s", manifest, out)
	}
	has(t, "the refusal", out, words...)
}

func (a *away) controller(t *testing.T) {
	t.Helper()
	scale(t, v1beta1.ControllerName, "0")
	apply(t, awaySecret("sk-two"), "-n", a.in)
	kubectl(t, "label", "namespace", "e2e-away-new", v1beta1.InjectLabel+"="+v1beta1.InjectEnabled)
	apply(t, pod("waits", container("app", idle)), "-n", "e2e-away-new")
	// Admission and sidecars go on.
	a.refused(t, a.in, strings.Replace(awayProvider("small"), "name: example", "name: second", 1), "spec.host")
	apply(t, awayProvider("edited-without-a-controller"), "-n", a.in)
	a.arrives(t, "edited-without-a-controller", "sk-one")
	generations := kubectl(t, "-n", a.in, "get", "llmprovider", "example", "-o", "jsonpath={.metadata.generation} {.status.conditions[0].observedGeneration}")
	if now, judged, _ := strings.Cut(generations, " "); now == judged {
		t.Errorf("without a controller, the status is of generation %s, too", judged)
	}
	eventually(t, "the new namespace's pod waits for its identity", func() (string, bool) {
		out := kubectl(t, "-n", "e2e-away-new", "get", "pod", "waits")
		events := kubectl(t, "-n", "e2e-away-new", "get", "events")
		return out + events, strings.Contains(out, "Init:0/2") && strings.Contains(events, "FailedMount") && strings.Contains(events, v1beta1.AccessSecret)
	})
	t.Log(kubectl(t, "-n", "e2e-away-new", "get", "pods"))
}

func (a *away) webhook(t *testing.T) {
	t.Helper()
	scale(t, v1beta1.WebhookName, "0")
	eventually(t, "nobody judges", func() (string, bool) {
		out, err := cluster.KubectlWith(t.Context(), pod("new", container("app", idle)), "-n", a.in, "apply", "--dry-run=server", "-f", "-")
		return out, err != nil
	})
	a.refused(t, a.in, pod("new", container("app", idle)), "failed calling webhook", "pods.remora.dev", v1beta1.WebhookName)
	a.refused(t, a.in, awayProvider("nobody-judges"), "failed calling webhook", "llmproviders.remora.dev", v1beta1.WebhookName)
	a.refused(t, a.other, strings.Replace(pod("asks", container("app", idle)), "app: asks", "app: asks, remora.dev/inject: enabled", 1), "failed calling webhook")
	kubectl(t, "-n", a.in, "delete", "llmprovider", "spare")
	apply(t, strings.Replace(pod("without", container("app", idle)), "app: without", "app: without, remora.dev/inject: disabled", 1), "-n", a.in)
	apply(t, pod("elsewhere", container("app", idle)), "-n", a.other)
	awaitReady(t, a.in, "pod/without")
	awaitReady(t, a.other, "pod/elsewhere")
	apply(t, awayDeployment, "-n", a.in)
	eventually(t, "events say why a Deployment has no pod", func() (string, bool) {
		events := kubectl(t, "-n", a.in, "get", "events")
		return events, strings.Contains(events, "FailedCreate") && strings.Contains(events, "pods.remora.dev")
	})
	a.k.await(t, "calls", time.Now(), map[string]int{example: 200, inhouse: 200})
	// A key that was stolen can be taken from the sidecars, too.
	a.revoked.from = time.Now()
	kubectl(t, "-n", a.in, "delete", "secret", v1beta1.KeysSecret)
	a.k.await(t, "calls without a key", a.revoked.from, map[string]int{example: 503, inhouse: 200})
}

const awayDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: patient}
spec:
  selector: {matchLabels: {app: patient}}
  template:
    metadata: {labels: {app: patient}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: app, image: remora.dev/demo-provider:latest, imagePullPolicy: IfNotPresent, args: [":8443", "x="]}]}
`

// nothing waits for what happens by itself when all is there again.
func (a *away) nothing(t *testing.T) {
	t.Helper()
	scale(t, v1beta1.WebhookName, "2")
	scale(t, v1beta1.ControllerName, "2")
	settled(t)
	a.arrives(t, "edited-without-a-controller", "sk-two")
	a.revoked.to = time.Now()
	awaitReady(t, "e2e-away-new", "pod/waits")
	kubectl(t, "-n", a.in, "rollout", "status", "deployment/patient", "--timeout="+patience.String())
	kubectl(t, "-n", a.in, "wait", "--for=condition=Accepted", "llmprovider/example", "--timeout="+patience.String())
}

func settled(t *testing.T) {
	t.Helper()
	for _, name := range []string{v1beta1.WebhookName, v1beta1.ControllerName} {
		kubectl(t, "-n", system, "rollout", "status", "deployment/"+name, "--timeout="+patience.String())
	}
}

// server stops the API server so that it answers nobody, and kills the sidecar.
func (a *away) server(t *testing.T) {
	t.Helper()
	sidecar, _ := a.k.process(t, v1beta1.SidecarContainer)
	app, _ := a.k.process(t, "app")
	server, err := cluster.Component("kube-apiserver")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(server, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := func() { _ = unix.Kill(server, unix.SIGCONT) }
	defer goOn()
	a.frozen = time.Now()
	a.k.await(t, "calls while the API server is away", a.frozen, map[string]int{example: 200, inhouse: 200})
	for _, c := range a.k.since(t, a.frozen) {
		if c.status != 200 {
			t.Errorf("a call while the API server is away: %v", c)
		}
	}
	killed := time.Now()
	if err := unix.Kill(sidecar, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	a.k.await(t, "calls of a sidecar that started while the API server is away", killed, map[string]int{example: 200, inhouse: 200})
	t.Logf("%v from its death to the first calls", time.Since(killed).Round(time.Millisecond))
	a.k.wantRefusals(t, killed, killed.Add(time.Second)) // no kubelet is faster
	text := a.config(t, app)
	has(t, "/config", text, "the API server has not been reachable since", "the configuration is the one that was saved at", "https://"+example)
	if strings.Contains(text, "sk-two") {
		t.Errorf("/config shows the key:\n%s", text)
	}
	goOn()
	t.Logf("the API server was away for %v", time.Since(a.frozen).Round(time.Millisecond))
	eventually(t, "the sidecar hears of the API server again", func() (string, bool) {
		text := a.config(t, app)
		return text, !strings.Contains(text, "has not been reachable")
	})
	settled(t)
	apply(t, awayProvider("edited-after-the-outage"), "-n", a.in)
	a.arrives(t, "edited-after-the-outage", "sk-two")
}

// config is what the pod's own containers see of the sidecar's table.
func (a *away) config(t *testing.T, app int) string {
	t.Helper()
	text, err := configOf(t.Context(), func() (int, error) { return app, nil })
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// configOf is what is seen of the configuration in the network of a process.
func configOf(ctx context.Context, process func() (int, error)) (text string, err error) {
	err = inNetworkOf(process, func() error {
		conn, err := (&net.Dialer{Timeout: talkTime}).DialContext(ctx, "tcp", "127.0.0.1:14020") // here, in this thread
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /config HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
			return err
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		all, err := io.ReadAll(response.Body)
		text = string(all)
		return err
	})
	return text, err
}
