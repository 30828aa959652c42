package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/injector"
)

// cluster is what an API server has now, and what our watches have heard of it so far.
type cluster struct {
	t    *testing.T
	pods *pods

	mu       sync.Mutex
	labels   map[string]string // of the namespace "team"
	image    string            // of the sidecar
	away     bool
	askedFor []string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, image: "sidecar:v1"}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL}
	n, err := newNamespaces(config, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSettings(config, "remora-system", logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	if c.pods, err = newPods(n, s); err != nil {
		t.Fatal(err)
	}
	return c
}

// ServeHTTP answers as the API server does.
func (c *cluster) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.askedFor = append(c.askedFor, req.URL.Path)
	if c.away {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	var answer any = c.template()
	if strings.HasSuffix(req.URL.Path, "/namespaces/team") {
		answer = &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}, ObjectMeta: metav1.ObjectMeta{Name: "team", Labels: c.labels}}
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		c.t.Error(err)
	}
}

func (c *cluster) template() *corev1.PodTemplate {
	return &corev1.PodTemplate{
		TypeMeta: metav1.TypeMeta{Kind: "PodTemplate", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Namespace: "remora-system", Name: v1beta1.SidecarName},
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: v1beta1.RedirectContainer, Image: "redirect:v1"}},
			Containers:     []corev1.Container{{Name: v1beta1.SidecarContainer, Image: c.image}},
		}},
	}
}

// heard is that a watch has told of the namespace's label, as it was then, and of the PodTemplate.
func (c *cluster) heard(inject string) {
	c.t.Helper()
	if err := c.pods.namespaces.informer.GetStore().Add(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "team", Labels: injectLabel(inject)}}); err != nil {
		c.t.Fatal(err)
	}
	c.pods.settings.take(c.template())
}

func injectLabel(value string) map[string]string {
	if value == "" {
		return nil
	}
	return map[string]string{v1beta1.InjectLabel: value}
}

func request(t *testing.T, raw string) admission.Request {
	t.Helper()
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Namespace: "team", Operation: admissionv1.Create, Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Object: runtime.RawExtension{Raw: []byte(raw)},
	}}
}

// asked is the answer to the first question about a pod with a label.
func (c *cluster) asked(label string) admission.Response {
	raw := fmt.Sprintf(`{"metadata":{"generateName":"app-","labels":{%q:%q}},"spec":{"containers":[{"name":"app"}]}}`, v1beta1.InjectLabel, label)
	if label == "" {
		raw = `{"metadata":{"generateName":"app-"},"spec":{"containers":[{"name":"app"}]}}`
	}
	return c.pods.sure(c.pods.inject)(c.t.Context(), request(c.t, raw))
}

func (c *cluster) judged(pod map[string]any) admission.Response {
	return c.pods.sure(c.pods.judge)(c.t.Context(), request(c.t, mustJSON(c.t, pod)))
}

// The API server asks because it has the label already, or refuses nobody any more; the watch here has yet to tell.
func TestAnOldViewOfANamespaceNeitherRefusesAPodNorLetsItInWithoutASidecar(t *testing.T) {
	for name, f := range map[string]struct{ heard, now, pod, want string }{
		"it has just been labelled":                                    {"", "enabled", "", "injected"},
		"it has just been labelled for pods that ask":                  {"", "pods", "enabled", "injected"},
		"it was disabled until now":                                    {"disabled", "enabled", "", "injected"},
		"nobody asks any more, and the API server has not heard of it": {"", "", "", "left"},
		"it does not take part":                                        {"", "", "enabled", "denied"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.heard(f.heard)
			c.labels = injectLabel(f.now)
			answer := c.asked(f.pod)
			got := "denied"
			if answer.Allowed && strings.Contains(string(answer.Patch), v1beta1.SidecarContainer) {
				got = "injected"
			} else if answer.Allowed {
				got = "left"
			}
			if got != f.want {
				t.Errorf("%s, want %s: %v", got, f.want, answer.Result)
			}
		})
	}
	t.Run("it is not known, and the API server does not answer", func(t *testing.T) {
		c := newCluster(t)
		c.away = true
		if answer := c.asked(""); answer.Allowed || answer.Result.Code != http.StatusInternalServerError {
			t.Errorf("%v %v", answer.Allowed, answer.Result)
		}
	})
}

// Whoever reaches the webhook may ask as the API server does, but have it ask the API server for nothing else.
func TestWhatIsNoNameOfANamespaceIsNotAskedFor(t *testing.T) {
	for _, name := range []string{"../secrets/team", "..", "team/../../nodes", "TEAM", ""} {
		c := newCluster(t)
		c.labels = injectLabel("enabled")
		r := request(t, `{"spec":{"containers":[{"name":"app"}]}}`)
		r.Namespace = name
		if answer := c.pods.sure(c.pods.inject)(t.Context(), r); answer.Allowed || len(c.askedFor) > 0 {
			t.Errorf("%q: %v, and asked for %v", name, answer.Allowed, c.askedFor)
		}
	}
}

func TestAPodWhoseNamespaceIsKnownIsDecidedWithoutAsking(t *testing.T) {
	c := newCluster(t)
	c.heard("enabled")
	c.away = true
	answer := c.asked("")
	if !answer.Allowed || len(answer.Patch) == 0 || len(c.askedFor) > 0 {
		t.Errorf("%v, and asked for %v", answer.Result, c.askedFor)
	}
}

// One replica gives a pod its sidecar, another one judges it, and the image is changed in between.
func TestAPodIsNotRefusedBecauseTheImageWasJustChanged(t *testing.T) {
	c := newCluster(t)
	c.heard("enabled")
	c.labels = injectLabel("enabled")
	old := injectedBy(t, c)
	c.image = "sidecar:v2"
	next := newCluster(t)
	next.image, next.labels = c.image, c.labels
	next.heard("enabled")
	recent := injectedBy(t, next)

	if answer := c.judged(recent); !answer.Allowed {
		t.Errorf("a replica that has not heard of the change refuses: %v", answer.Result.Message)
	}
	c.heard("enabled")
	for name, pod := range map[string]map[string]any{"before": old, "after": recent} {
		if answer := c.judged(pod); !answer.Allowed {
			t.Errorf("a pod from %s the change is refused: %v", name, answer.Result.Message)
		}
	}
	c.pods.settings.changed = c.pods.settings.changed.Add(-2 * formerTime)
	if answer := c.judged(old); answer.Allowed || !strings.Contains(answer.Result.Message, "image") {
		t.Errorf("an image of long ago is let in: %v", answer.Result)
	}
}

// injectedBy is a pod as it is after the first question.
func injectedBy(t *testing.T, c *cluster) map[string]any {
	t.Helper()
	const raw = `{"metadata":{"generateName":"app-"},"spec":{"containers":[{"name":"app","image":"app"}]}}`
	answer := c.pods.sure(c.pods.inject)(t.Context(), request(t, raw))
	if !answer.Allowed {
		t.Fatal(answer.Result)
	}
	return applied(t, []byte(raw), answer.Patch)
}

// Nothing is to be injected, so it does not matter that nobody has said what.
func TestAPodThatCannotHaveASidecarSaysWhyAndRuns(t *testing.T) {
	c := newCluster(t)
	c.heard("enabled")
	c.pods.settings.usable = false
	const raw = `{"metadata":{"name":"app"},"spec":{"hostNetwork":true,"containers":[{"name":"app"}]}}`
	answer := c.pods.sure(c.pods.inject)(t.Context(), request(t, raw))
	if !answer.Allowed || len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], "hostNetwork") {
		t.Fatalf("%v, with the warnings %q", answer.Result, answer.Warnings)
	}
	pod := applied(t, []byte(raw), answer.Patch)
	if got := typed(t, pod); got.Labels[v1beta1.InjectedLabel] != "false" || !strings.HasPrefix(got.Annotations[v1beta1.SkipReason], "HostNetwork: ") {
		t.Errorf("%v %v", got.Labels, got.Annotations)
	}
	if answer := c.judged(pod); !answer.Allowed {
		t.Error(answer.Result)
	}
	if answer := c.asked(""); answer.Allowed || answer.Result.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Result.Message, "PodTemplate remora-system/remora-sidecar") {
		t.Errorf("one that could have one: %v", answer.Result)
	}
}

func TestWhatIsNoCreationOfAPodIsNotLetThrough(t *testing.T) {
	c := newCluster(t)
	c.heard("enabled")
	for name, edit := range map[string]func(*admission.Request){
		"an update":     func(r *admission.Request) { r.Operation = admissionv1.Update },
		"another kind":  func(r *admission.Request) { r.Kind.Kind = "Deployment" },
		"a subresource": func(r *admission.Request) { r.SubResource = "ephemeralcontainers" },
		"no object":     func(r *admission.Request) { r.Object.Raw = nil },
		"no JSON":       func(r *admission.Request) { r.Object.Raw = []byte("{") },
	} {
		req := request(t, `{"spec":{}}`)
		edit(&req)
		for _, answer := range []admission.Response{c.pods.sure(c.pods.inject)(t.Context(), req), c.pods.sure(c.pods.judge)(t.Context(), req)} {
			if answer.Allowed || answer.Result.Code != http.StatusInternalServerError {
				t.Errorf("%s: %v", name, answer.Result)
			}
		}
	}
	panics := c.pods.sure(func(context.Context, question) (admission.Response, error) { panic("secret") })
	if answer := panics(t.Context(), request(t, `{}`)); answer.Allowed || strings.Contains(answer.Result.Message, "secret") {
		t.Errorf("after a panic: %v", answer.Result)
	}
}

// Two hundred pods a second come, for a second.
func TestManyPodsAtOnceAreDecidedInTime(t *testing.T) {
	c := newCluster(t)
	c.heard("enabled")
	server := httptest.NewServer(c.pods.handler())
	defer server.Close()
	body := mustJSON(t, map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": map[string]any{
		"uid": "1", "namespace": "team", "operation": "CREATE", "kind": map[string]any{"version": "v1", "kind": "Pod"},
		"object": json.RawMessage(`{"kind":"Pod","apiVersion":"v1","metadata":{"generateName":"app-"},"spec":{"containers":[{"name":"app"}]}}`),
	}})
	var mu sync.Mutex
	var took []time.Duration
	var all sync.WaitGroup
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 200 {
		<-tick.C
		all.Go(func() {
			began := time.Now()
			answer, err := http.Post(server.URL+injectPath, "application/json", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			var review admissionv1.AdmissionReview
			if err := json.NewDecoder(answer.Body).Decode(&review); err != nil || !review.Response.Allowed || len(review.Response.Patch) == 0 {
				t.Errorf("%v: %v", err, review.Response)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(began))
		})
	}
	all.Wait()
	slices.Sort(took)
	if len(took) < 200 {
		t.Fatalf("%d of 200 were answered", len(took))
	}
	t.Logf("half of them took %v, 99 of 100 at most %v", took[len(took)/2], took[len(took)*99/100])
}

func TestARefusalIsPlainAndBounded(t *testing.T) {
	c := newCluster(t)
	c.heard("enabled")
	raw := mustJSON(t, map[string]any{
		"metadata": map[string]any{"name": "a\x1b[31mb", "annotations": map[string]string{v1beta1.PortsAnnotation: strings.Repeat("\x1b", 100_000)}},
		"spec":     map[string]any{"containers": []any{map[string]any{"name": "app"}}},
	})
	answer := c.pods.sure(c.pods.inject)(t.Context(), request(t, raw))
	if answer.Allowed || answer.Result.Code != http.StatusUnprocessableEntity || !strings.Contains(answer.Result.Message, v1beta1.PortsAnnotation) {
		t.Fatalf("%v", answer.Result)
	}
	if text := mustJSON(t, answer.Result); len(text) > 8000 || strings.Contains(text, `\u001b`) {
		t.Errorf("%d bytes: %.300s", len(text), text)
	}
	d := injector.Decision{Verdict: injector.VerdictDeny, Code: injector.LabelValue, Message: "no\nway"}
	answer = forbidden(question{&admission.Request{}, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "app-"}}}, d)
	if got := answer.Result.Details.Causes[0]; answer.Result.Message != `pods "app" is forbidden: no way` || got.Field != "metadata.labels[remora.dev/inject]" || got.Type != "LabelValue" {
		t.Errorf("%q %v", answer.Result.Message, got)
	}
}
