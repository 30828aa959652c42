package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"remora.dev/remora/apis/v1beta1"
)

// webhookAnswers is what the webhook's health address says to a path.
func webhookAnswers(t *testing.T, flag, path string) (int, string) {
	t.Helper()
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", installed.Webhook.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(line), "--"+flag+"=")
	address, _, _ := strings.Cut(rest, "\x00")
	answer, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// within tries until it is true.
func within(t *testing.T, limit time.Duration, what string, try func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); !try(); {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v", what, limit)
		case <-tick.C:
		}
	}
}

// template changes the PodTemplate that says what is injected.
func template(t *testing.T, patch string) {
	t.Helper()
	out, err := installed.Kubectl(context.WithoutCancel(t.Context()), "-n", v1beta1.InstallationNamespace, "patch", "podtemplate", v1beta1.SidecarName, "-p", patch)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

const (
	sidecarImage = `{"template":{"spec":{"containers":[{"name":"remora-sidecar","image":"IMAGE"}]}}}`
	command      = `{"template":{"spec":{"containers":[{"name":"remora-sidecar","command":["sh"]}]}}}`
	noCommand    = `{"template":{"spec":{"containers":[{"name":"remora-sidecar","command":null}]}}}`
)

func TestTheNextPodHasTheImageThatTheInstallationWasGiven(t *testing.T) {
	n := wants(t)
	if got := n.created(t, app()).Spec.InitContainers[1].Image; got != "remora.dev/sidecar:latest" {
		t.Errorf("at first it has %s", got)
	}
	t.Cleanup(func() { template(t, strings.Replace(sidecarImage, "IMAGE", "remora.dev/sidecar:latest", 1)) })
	template(t, strings.Replace(sidecarImage, "IMAGE", "registry.example.com/sidecar:v2", 1))
	within(t, 5*time.Second, "the new image", func() bool {
		return n.created(t, app()).Spec.InitContainers[1].Image == "registry.example.com/sidecar:v2"
	})
}

func TestAFaultyTemplateIsToldAndTheLastGoodOneGoesOn(t *testing.T) {
	n := wants(t)
	t.Cleanup(func() { template(t, noCommand) })
	template(t, command)
	within(t, 5*time.Second, "the fault", func() bool {
		status, body := webhookAnswers(t, "health", "/readyz")
		return status == http.StatusOK && strings.Contains(body, "PodTemplate remora-system/remora-sidecar") && strings.Contains(body, "template.spec.containers[0].command")
	})
	if got := outcome(n.create(t.Context(), app())); got != "injected" {
		t.Error(got)
	}
	template(t, noCommand)
	within(t, 5*time.Second, "that all is well", func() bool {
		_, body := webhookAnswers(t, "health", "/readyz")
		return body == "ok\n"
	})
}

// Nobody is let in without a sidecar, and whoever is refused knows whom to ask.
func TestWithoutAnyTemplateTheWebhookIsNotReadyAndPodsAreRefused(t *testing.T) {
	n := wants(t)
	shipped := kubectl(t, "-n", v1beta1.InstallationNamespace, "get", "podtemplate", v1beta1.SidecarName, "-o", "yaml")
	kubectl(t, "-n", v1beta1.InstallationNamespace, "delete", "podtemplate", v1beta1.SidecarName)
	installed.Webhook.Kill()
	ended := make(chan error, 1)
	go func() { ended <- installed.Webhook.Start(t.Context()) }()
	within(t, 20*time.Second, "the refusal", func() bool {
		_, err := n.create(t.Context(), app())
		if err == nil {
			t.Fatal("a pod was let in")
		}
		return apierrors.IsServiceUnavailable(err) && strings.Contains(err.Error(), "PodTemplate remora-system/remora-sidecar") && strings.Contains(err.Error(), "config/webhook/sidecar.yaml")
	})
	select {
	case err := <-ended:
		t.Errorf("it is ready: %v", err)
	default:
	}
	if out, err := installed.KubectlWith(t.Context(), shipped, "create", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := outcome(n.create(t.Context(), app())); got != "injected" {
		t.Error(got)
	}
}

func TestWhileNoWebhookAnswersOnlyPodsThatWantASidecarWait(t *testing.T) {
	wanting, asking, others := wants(t), newTeam(t, map[string]string{v1beta1.InjectLabel: v1beta1.InjectPods}), newTeam(t, nil)
	installed.Webhook.Kill()
	for _, f := range []struct {
		n     *team
		value string
		fails bool
	}{{wanting, "", true}, {wanting, "disabled", false}, {asking, "enabled", true}, {asking, "", false}, {others, "", false}, {others, "disabled", false}} {
		pod := app()
		if f.value != "" {
			pod = app(labelled(f.value))
		}
		_, err := f.n.create(t.Context(), pod)
		if failed := err != nil; failed != f.fails || failed && !strings.Contains(err.Error(), "failed calling webhook") {
			t.Errorf("in a namespace of %s, a pod of %q: %v", f.n.name, f.value, err)
		}
	}
	if err := installed.Webhook.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := outcome(wanting.create(t.Context(), app())); got != "injected" {
		t.Error(got)
	}
}

func TestWhatBecomesOfPodsIsCounted(t *testing.T) {
	n := wants(t)
	counted := func(labels string) string {
		_, body := webhookAnswers(t, "metrics", "/metrics")
		_, rest, _ := strings.Cut(body, "remora_admission_pods_total{"+labels+"} ")
		number, _, _ := strings.Cut(rest, "\n")
		return number
	}
	labels := map[string]string{}
	for _, l := range []string{`code="NamespaceAsks",verdict="Inject"`, `code="HostNetwork",verdict="Skip"`, `code="LabelValue",verdict="Deny"`} {
		labels[l] = counted(l)
	}
	n.created(t, app())
	n.created(t, app(onTheHost))
	if _, err := n.create(t.Context(), app(labelled("yes"))); err == nil {
		t.Error("let in")
	}
	if _, err := n.create(t.Context(), app(), "All"); err != nil { // a dry run makes no pod
		t.Error(err)
	}
	for l, was := range labels {
		if got := counted(l); got != plusOne(t, was) {
			t.Errorf("%s was %q, and is %q", l, was, got)
		}
	}
}

func plusOne(t *testing.T, number string) string {
	t.Helper()
	if number == "" {
		return "1"
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(n + 1)
}
