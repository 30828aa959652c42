package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	controllerlog "sigs.k8s.io/controller-runtime/pkg/log"

	"remora.dev/remora/test/cluster/controlplane"
	installed "remora.dev/remora/test/installation"
)

// admitted is an installed Remora, seen through kubectl.
type admitted struct {
	*installed.Installation
	t         *testing.T
	namespace string
}

// What was there before there was a webhook, as from another version: a route that is invalid, and one that does not even fit
// the Go types.
const admittedOnce = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: invalid}
spec: {host: old, gateways: [Istio_Ingress], rules: [{backendRefs: [{providerHost: llm.example.com}]}]}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: unreadable}
spec: {host: older, rules: [{backendRefs: [{providerHost: llm.example.com}], timeouts: {request: 9999999999h}}]}
`

// The whole installation serves all of these; each has a namespace of its own.
func TestAdmission(t *testing.T) {
	t.Parallel()
	cp, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	t.Run("ItIsNotReadyWithDefinitionsThatAreMissingOrOfAnotherProduct", func(t *testing.T) {
		definitionsAreJudged(&admitted{Installation: &installed.Installation{ControlPlane: cp}, t: t})
	})
	in := &admitted{Installation: &installed.Installation{ControlPlane: cp}, t: t}
	in.kubectl(t, "", "create", "namespace", "objects-that-an-older-version-admitted")
	in.kubectl(t, admittedOnce, "-n", "objects-that-an-older-version-admitted", "apply", "-f", "-")
	if in.Installation, err = installed.Start(t.Context(), cp); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		run  func(*admitted)
	}{
		{"objects-that-an-older-version-admitted", anOlderVersionsObjectsAreNotFrozen},
		{"all-faults-at-once", allFaultsAtOnce},
		{"a-folder-in-any-order", aFolderInAnyOrder},
		{"a-plan-before-the-edit", aPlanBeforeTheEdit},
		{"who-has-a-host-keeps-it", whoHasAHostKeepsIt},
		{"two-at-once", twoAtOnce},
		{"what-an-edit-does-to-others", whatAnEditDoesToOthers},
		{"a-provider-that-is-exported", aProviderThatIsExported},
		{"nobody-says-what-authors-may-read", nobodySaysWhatAuthorsMayRead},
		{"istios-objects-are-warned-of", istiosObjectsAreWarnedOf},
		{"the-webhook-is-gone", theWebhookIsGone},
		{"the-webhook-stops", theWebhookStops},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(in.in(t, test.name)) })
	}
}

// in gives the same installation with a namespace of its own.
func (in *admitted) in(t *testing.T, namespace string) *admitted {
	t.Helper()
	if _, err := in.Kubectl(t.Context(), "get", "namespace", namespace); err != nil {
		in.kubectl(t, "", "create", "namespace", namespace)
	}
	return &admitted{in.Installation, t, namespace}
}

// kubectl must succeed.
func (in *admitted) kubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := in.KubectlWith(t.Context(), stdin, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// apply gives what kubectl prints, and whether it says that all is well.
func (in *admitted) apply(t *testing.T, manifests string, args ...string) (string, bool) {
	t.Helper()
	out, err := in.KubectlWith(t.Context(), manifests, append([]string{"-n", in.namespace, "apply", "-f", "-"}, args...)...)
	return out, err == nil
}

func (in *admitted) refused(t *testing.T, manifests, want string, args ...string) {
	t.Helper()
	if out, ok := in.apply(t, manifests, args...); ok || !strings.Contains(out, want) {
		t.Errorf("accepted: %v; it prints\n%s\nwant\n%s", ok, out, want)
	}
}

func (in *admitted) accepted(t *testing.T, manifests, want string, args ...string) {
	t.Helper()
	if out, ok := in.apply(t, manifests, args...); !ok || !strings.Contains(out, want) || want == "" && strings.Contains(out, "Warning") {
		t.Errorf("accepted: %v; it prints\n%s\nwant\n%s", ok, out, want)
	}
}

func definitionsAreJudged(in *admitted) {
	t := in.t
	controllerlog.SetLogger(logr.Discard())
	mapper, err := knownResources(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := client.New(in.Config(), client.Options{Scheme: runtime.NewScheme(), Mapper: mapper})
	if err != nil {
		t.Fatal(err)
	}
	look := func(want string) {
		t.Helper()
		d := newDefinitions(reader)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // one look
		known, err := d.look(t.Context())
		if got := fmt.Sprint(err); !known || !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
		d.watch(ctx)
		if d.ready(nil) == nil {
			t.Error("it is ready, though the API server has not been asked")
		}
	}
	look("llmroutes.istio.alibabacloud.com does not exist: apply config/crd")
	in.kubectl(t, "", "apply", "--server-side", "-f", "../config/crd/istio.alibabacloud.com_llmproviders.yaml", "-f", "../config/crd/istio.alibabacloud.com_llmroutes.yaml")
	in.kubectl(t, "", "wait", "--for=condition=Established", "crd", "--all")
	look("<nil>")
	in.kubectl(t, "", "label", "crd", "llmroutes.istio.alibabacloud.com", "app.kubernetes.io/part-of-")
	look("llmroutes.istio.alibabacloud.com is not of this installation")
	in.kubectl(t, "", "label", "crd", "llmroutes.istio.alibabacloud.com", "app.kubernetes.io/part-of=remora")
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// flag gives the value of a flag of the running webhook.
func (in *admitted) flag(t *testing.T, name string) string {
	t.Helper()
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", in.Webhook.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(line), "--"+name+"=")
	value, _, _ := strings.Cut(rest, "\x00")
	return value
}

func theWebhookIsGone(in *admitted) {
	t := in.t
	in.accepted(t, providerNamed("p", "llm.example.com"), "created")
	in.Webhook.Kill()
	in.refused(t, providerNamed("q", "other.example.com"), `failed calling webhook "llmproviders.remora.dev"`)
	in.refused(t, providerNamed("p", "evil.example.com"), `failed calling webhook "llmproviders.remora.dev"`)
	in.kubectl(t, "", "-n", in.namespace, "create", "configmap", "nothing-of-ours")
	in.kubectl(t, "", "-n", in.namespace, "delete", "llmprovider", "p")
	if err := in.Webhook.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	in.accepted(t, providerNamed("q", "other.example.com"), "created")
}

func theWebhookStops(in *admitted) {
	t := in.t
	health := "http://" + in.flag(t, "health")
	if status, body := get(t, health+"/readyz"); status != http.StatusOK {
		t.Fatal(body)
	}
	ctx, cancel := context.WithTimeout(t.Context(), noticeTime+drainTime)
	defer cancel()
	began, ended := time.Now(), make(chan error, 1)
	go func() { ended <- in.Webhook.Stop(ctx) }()
	for {
		status, body := get(t, health+"/readyz")
		if status == http.StatusServiceUnavailable && body == "it is stopping\n" {
			break
		} else if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	in.accepted(t, providerNamed("late", "llm.example.com"), "created") // by an API server that has not noticed yet
	if err := <-ended; err != nil || time.Since(began) < noticeTime {
		t.Errorf("it ended after %v: %v", time.Since(began), err)
	}
	log, err := os.ReadFile(in.Webhook.Log())
	if err != nil {
		t.Fatal(err)
	}
	if _, end, found := strings.Cut(string(log), "stopping: "); !found || strings.Contains(end, `"level":"error"`) {
		t.Errorf("it ended with errors, or without a word:\n%s", log)
	}
	if err := in.Webhook.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestReadinessGivesItsReasons(t *testing.T) {
	failing := errors.New("not all have been read")
	r := &readiness{log: logr.Discard(), checks: []check{
		{"one", func(*http.Request) error { return failing }},
		{"two", func(*http.Request) error { return nil }},
		{"three", func(*http.Request) error { return errors.New("no certificate") }},
	}}
	server := httptest.NewServer(r.handler())
	defer server.Close()
	if status, body := get(t, server.URL+"/readyz"); status != http.StatusServiceUnavailable || body != "one: not all have been read\nthree: no certificate\n" {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get(t, server.URL+"/livez"); status != http.StatusOK {
		t.Errorf("not alive: %d", status)
	}
	r.checks = r.checks[1:2]
	if status, body := get(t, server.URL+"/readyz"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("%d %s", status, body)
	}
}

func TestAWebhookThatStopsKeepsNoConnection(t *testing.T) {
	r := &readiness{log: logr.Discard()}
	server := httptest.NewServer(r.parting(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	defer server.Close()
	closes := func() bool {
		resp, err := server.Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.Close
	}
	if closes() {
		t.Error("a connection is closed while all is well")
	}
	r.drain()
	if !closes() {
		t.Error("a connection is kept, and will be closed under a question")
	}
}

func TestAWrongCommandLineIsExplained(t *testing.T) {
	for args, want := range map[string]string{
		"serve --listen 9443":      `webhook: the command line is wrong: --listen "9443" is not an address: write HOST:PORT or :PORT`,
		"serve --health :0":        `--health ":0" has no port from 1 to 65535`,
		"serve --port 1":           "flag provided but not defined: -port",
		"serve now":                `"now" is not a flag`,
		"serve --kubeconfig /none": "",
	} {
		var stderr strings.Builder
		code := run(t.Context(), strings.Fields(args), io.Discard, &stderr)
		if wantCode := map[bool]int{true: 1, false: 2}[want == ""]; code != wantCode || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: %d %s", args, code, stderr.String())
		}
	}
}
