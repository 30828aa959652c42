package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/controlplane"
)

// patience is how long a test waits for what takes well under a second on an idle machine.
const patience = 60 * time.Second

// statusRig is a real API server with the CRDs and no admission webhook, and one controller with the rights of its service account.
type statusRig struct {
	*controlplane.ControlPlane
	admin      client.WithWatch
	kubeconfig string // the controller's
	log        *lockedBuffer
	stop       func() // ends the controller and waits for its end
	metrics    string // its address
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// all gives what was written.
func (b *lockedBuffer) all() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// String gives the end of what was written.
func (b *lockedBuffer) String() string {
	all := b.all()
	return all[max(0, len(all)-3000):]
}

func newStatusRig(tb testing.TB) *statusRig {
	tb.Helper()
	binaries, err := assets.Dir(tb.Context(), os.Stderr)
	if err != nil {
		tb.Fatal(err)
	}
	cp, err := controlplane.Start(tb.Context(), controlplane.Options{Binaries: binaries})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cp.Stop)
	r := &statusRig{ControlPlane: cp, log: &lockedBuffer{}}
	for _, args := range [][]string{
		{"apply", "-k", "../config/crd"},
		{"wait", "--for=condition=Established", "crd", "--all"},
		{"create", "namespace", v1beta1.InstallationNamespace},
		{"apply", "-f", "../config/rbac/controller.yaml"},
	} {
		if out, err := cp.Kubectl(tb.Context(), args...); err != nil {
			tb.Fatalf("%v\n%s", err, out)
		}
	}
	token, err := cp.Kubectl(tb.Context(), "-n", v1beta1.InstallationNamespace, "create", "token", v1beta1.ControllerName, "--duration=24h")
	if err != nil {
		tb.Fatalf("%v\n%s", err, token)
	}
	if r.kubeconfig, err = cp.TokenKubeconfig("controller", strings.TrimSpace(token)); err != nil {
		tb.Fatal(err)
	}
	s := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(s), v1beta1.AddToScheme(s)); err != nil {
		tb.Fatal(err)
	}
	if r.admin, err = client.NewWithWatch(cp.Config(), client.Options{Scheme: s}); err != nil {
		tb.Fatal(err)
	}
	return r
}

// start runs a controller in this process until the test ends or stop is called.
func (r *statusRig) start(tb testing.TB, args ...string) {
	tb.Helper()
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		tb.Fatal(err)
	}
	health := fmt.Sprintf("127.0.0.1:%d", ports[0])
	r.metrics = fmt.Sprintf("127.0.0.1:%d", ports[1])
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	f, err := parseControlFlags(append([]string{"--kubeconfig", r.kubeconfig, "--health", health, "--metrics", r.metrics}, args...))
	if err != nil {
		tb.Fatal(err)
	}
	config, err := restConfig(f.kubeconfig)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := newController(config, f, funcr.NewJSON(func(line string) { fmt.Fprintln(r.log, line) }, funcr.Options{}))
	if err != nil {
		tb.Fatal(err)
	}
	go func() { ended <- m.Start(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("the controller ended with an error: %v\n%s", err, r.log)
		}
	})
	tb.Cleanup(r.stop)
	r.eventually(tb, "the controller to be ready", func(ctx context.Context) error { return controlplane.Probe("http://" + health + "/readyz")(ctx) })
}

// eventually asks again and again. It is for what sends no event of its own.
func (r *statusRig) eventually(tb testing.TB, what string, ask func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			tb.Fatalf("waited in vain for %s: %v\n%s", what, err, r.log)
		}
	}
}

// apply creates or replaces objects written as YAML in a namespace, which it makes.
func (r *statusRig) apply(tb testing.TB, namespace, yaml string) {
	tb.Helper()
	_, _ = r.Kubectl(tb.Context(), "create", "namespace", namespace) // it may be there
	if out, err := r.KubectlWith(tb.Context(), yaml, "-n", namespace, "apply", "-f", "-"); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
}

func (r *statusRig) delete(tb testing.TB, namespace string, args ...string) {
	tb.Helper()
	if out, err := r.Kubectl(tb.Context(), append([]string{"-n", namespace, "delete"}, args...)...); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
}

// shown is an object as a user sees it.
type shown struct {
	metav1.ObjectMeta `json:"metadata"`
	Status            v1beta1.Status `json:"status"`
}

func (s *shown) condition(kind string) metav1.Condition {
	if c := meta.FindStatusCondition(s.Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// says tells whether a condition of the present generation has a status, a reason and a part of a message.
func (s *shown) says(kind string, status metav1.ConditionStatus, reason, part string) bool {
	c := s.condition(kind)
	return c.ObservedGeneration == s.Generation && c.Status == status && c.Reason == reason && strings.Contains(c.Message, part)
}

func (s *shown) accepted(part string) bool {
	return s.says(v1beta1.ConditionAccepted, metav1.ConditionTrue, "Accepted", part)
}

func (s *shown) resolved() bool {
	return s.says(v1beta1.ConditionResolvedRefs, metav1.ConditionTrue, "ResolvedRefs", "")
}

func (s *shown) refused(reason, part string) bool {
	return s.says(v1beta1.ConditionAccepted, metav1.ConditionFalse, reason, part)
}

func (s *shown) unresolved(reason, part string) bool {
	return s.says(v1beta1.ConditionResolvedRefs, metav1.ConditionFalse, reason, part)
}

// await follows an object until it is as wanted.
func (r *statusRig) await(tb testing.TB, kind, namespace, name string, wanted func(*shown) bool) *shown {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(v1beta1.GroupVersion.WithKind(kind + "List"))
	var last []byte
	for ctx.Err() == nil {
		w, err := r.admin.Watch(ctx, list, client.InNamespace(namespace), client.MatchingFields{"metadata.name": name})
		if err != nil {
			continue // the API server is away
		}
		for e := range w.ResultChan() {
			u, ok := e.Object.(*unstructured.Unstructured)
			if !ok || e.Type == watch.Deleted {
				continue
			}
			var s shown
			last, _ = json.MarshalIndent(u.Object["status"], "", " ")
			whole, _ := u.MarshalJSON()
			if json.Unmarshal(whole, &s) == nil && wanted(&s) {
				w.Stop()
				return &s
			}
		}
	}
	tb.Fatalf("%s %s/%s never became as wanted. Its status:\n%s\nThe log:\n%s", kind, namespace, name, last, r.log)
	return nil
}

// versions gives the resource versions of all objects, by kind, namespace and name.
func (r *statusRig) versions(tb testing.TB) map[string]string {
	tb.Helper()
	all := map[string]string{}
	for _, gvk := range statusKinds {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		if err := r.admin.List(tb.Context(), list); err != nil {
			tb.Fatal(err)
		}
		for i := range list.Items {
			u := &list.Items[i]
			all[gvk.Kind+" "+u.GetNamespace()+"/"+u.GetName()] = u.GetResourceVersion()
		}
	}
	return all
}

// statusWrites is how many writes of a status the API server has answered.
func (r *statusRig) statusWrites(tb testing.TB) int {
	tb.Helper()
	return r.answered(tb, `subresource="status"`, `group="istio.alibabacloud.com"`)
}

// answered is how many requests the API server has answered, of those whose labels in its metrics have all the words.
func (r *statusRig) answered(tb testing.TB, words ...string) (n int) {
	tb.Helper()
	out, err := r.Kubectl(tb.Context(), "get", "--raw", "/metrics")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(out) {
		missing := slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
		if missing || !strings.HasPrefix(line, "apiserver_request_total{") {
			continue
		}
		count, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " ")+1:]), 64)
		if err != nil {
			tb.Fatal(err)
		}
		n += int(count)
	}
	return n
}

// get gives an object as it is.
func (r *statusRig) get(tb testing.TB, kind, namespace, name string) *shown {
	tb.Helper()
	return r.await(tb, kind, namespace, name, func(*shown) bool { return true })
}

// eventsOf gives "TYPE REASON: NOTE" of the events of an object, sorted by time.
func (r *statusRig) eventsOf(ctx context.Context, tb testing.TB, kind, namespace, name string) []string {
	tb.Helper()
	var list eventsv1.EventList
	if err := r.admin.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		tb.Fatal(err)
	}
	var all []string
	for i := range list.Items {
		if e := &list.Items[i]; e.Regarding.Kind == kind && e.Regarding.Name == name {
			all = append(all, e.Type+" "+e.Reason+": "+e.Note)
			if len(e.Note) > 1024 || e.ReportingController != v1beta1.ControllerName {
				tb.Errorf("an event has a note of %d bytes, by %s", len(e.Note), e.ReportingController)
			}
		}
	}
	return all
}

// metric gives the lines of the controller's metrics that begin so.
func (r *statusRig) metric(ctx context.Context, prefix string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.metrics+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	var found []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, prefix) {
			found = append(found, line)
		}
	}
	return strings.Join(found, ""), err
}

func secretOf(namespace, name string, kind corev1.SecretType, data map[string]string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: kind, StringData: data}
}
