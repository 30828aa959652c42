package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/controlplane"
)

// accessRig is a real API server, and a controller with the rights of its service account and times that a test can wait for.
type accessRig struct {
	*statusRig
	times accessTimes
	ahead atomic.Int64 // how far the controller's clock is ahead, in nanoseconds
}

func newAccessRig(tb testing.TB) *accessRig {
	tb.Helper()
	r := &accessRig{statusRig: newStatusRig(tb)}
	if out, err := r.Kubectl(tb.Context(), "apply", "-f", "../config/controller/policy.yaml"); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
	r.times = usualAccessTimes(usualTokenLife)
	r.times.now = func() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }
	r.times.lookAgain, r.times.leave, r.times.leftAgain = 200*time.Millisecond, time.Second, time.Hour
	return r
}

// start runs a controller in this process until the test ends or stop is called.
func (r *accessRig) start(tb testing.TB, args ...string) {
	tb.Helper()
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		tb.Fatal(err)
	}
	health := fmt.Sprintf("127.0.0.1:%d", ports[0])
	r.metrics = fmt.Sprintf("127.0.0.1:%d", ports[1])
	f, err := parseControlFlags(append([]string{
		"--kubeconfig", r.kubeconfig, "--namespace", v1beta1.InstallationNamespace, "--health", health, "--metrics", r.metrics,
	}, args...))
	if err != nil {
		tb.Fatal(err)
	}
	config, err := restConfig(f.kubeconfig)
	if err != nil {
		tb.Fatal(err)
	}
	times := r.times
	times.tokenLife = f.tokenLife
	m, err := newTimedController(config, f, times, funcr.NewJSON(func(line string) { fmt.Fprintln(r.log, line) }, funcr.Options{}))
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
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

// label makes a namespace that asks for sidecars, and the account that its pods run as.
func (r *accessRig) label(tb testing.TB, namespace, value string) {
	tb.Helper()
	r.apply(tb, namespace, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}")
	if out, err := r.Kubectl(tb.Context(), "label", "--overwrite", "namespace", namespace, v1beta1.InjectLabel+"="+value); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
}

// five are what a labelled namespace has, in the order in which it is made.
var five = []string{"serviceaccount/remora-sidecar", "role/remora-sidecar", "rolebinding/remora-sidecar", "secret/remora-sidecar-keys", "secret/remora-sidecar-access"}

// there gives which of the five are there, by an API server that knows nothing of caches.
func (r *accessRig) there(ctx context.Context, tb testing.TB, namespace string) map[string]*unstructured.Unstructured {
	tb.Helper()
	found := map[string]*unstructured.Unstructured{}
	for _, id := range five {
		kind, name, _ := strings.Cut(id, "/")
		u := &unstructured.Unstructured{}
		u.SetAPIVersion("v1")
		u.SetKind(map[string]string{"serviceaccount": "ServiceAccount", "role": "Role", "rolebinding": "RoleBinding", "secret": "Secret"}[kind])
		if strings.HasPrefix(kind, "role") {
			u.SetAPIVersion("rbac.authorization.k8s.io/v1")
		}
		switch err := r.admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, u); {
		case err == nil:
			found[id] = u
		case !apierrors.IsNotFound(err) && ctx.Err() == nil:
			tb.Fatal(err)
		}
	}
	return found
}

// awaitFive waits until all five are there and complete, and gives them.
func (r *accessRig) awaitFive(tb testing.TB, namespace string) map[string]*unstructured.Unstructured {
	tb.Helper()
	var found map[string]*unstructured.Unstructured
	r.eventually(tb, "all five in "+namespace, func(ctx context.Context) error {
		if found = r.there(ctx, tb, namespace); len(found) != len(five) {
			return fmt.Errorf("there are only %v", slices.Sorted(maps.Keys(found)))
		}
		if data, _, _ := unstructured.NestedMap(found[five[4]].Object, "data"); data["token"] == nil {
			return errors.New("there is no token")
		}
		return nil
	})
	return found
}

// awaitSecret follows a Secret until it is as wanted. What wanted is asked of is nil after the Secret was deleted.
func (r *accessRig) awaitSecret(tb testing.TB, namespace, name string, wanted func(*corev1.Secret) bool) *corev1.Secret {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	var last []string
	for ctx.Err() == nil {
		w, err := r.admin.Watch(ctx, &corev1.SecretList{}, client.InNamespace(namespace), client.MatchingFields{"metadata.name": name})
		if err != nil {
			continue // the API server is away
		}
		for e := range w.ResultChan() {
			s, ok := e.Object.(*corev1.Secret)
			if !ok {
				continue
			}
			if e.Type == watch.Deleted {
				s = nil
			} else {
				last = slices.Sorted(maps.Keys(s.Data))
			}
			if wanted(s) {
				w.Stop()
				return s
			}
		}
	}
	tb.Fatalf("Secret %s/%s never became as wanted. It had %q\nThe log:\n%s", namespace, name, last, r.log)
	return nil
}

// holds tells whether a Secret has these entries and no others.
func holds(entries map[string]string) func(*corev1.Secret) bool {
	return func(s *corev1.Secret) bool {
		return s != nil && maps.EqualFunc(s.Data, entries, func(a []byte, b string) bool { return string(a) == b })
	}
}

// sidecar gives a client by the content of an access Secret, and by nothing else.
func (r *accessRig) sidecar(tb testing.TB, s *corev1.Secret) *kubernetes.Clientset {
	tb.Helper()
	c, err := kubernetes.NewForConfig(&rest.Config{
		Host: r.URL(), BearerToken: string(s.Data["token"]), TLSClientConfig: rest.TLSClientConfig{CAData: s.Data["ca.crt"]}, QPS: -1,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// awaitTrouble waits until a namespace has an event of a code, with these parts.
func (r *accessRig) awaitTrouble(tb testing.TB, namespace, code string, parts ...string) {
	tb.Helper()
	r.eventually(tb, "the event "+code, func(ctx context.Context) error {
		all := r.eventsOf(ctx, tb, "Namespace", namespace, namespace)
		for _, e := range all {
			found := strings.HasPrefix(e, "Warning "+code+": ")
			for _, part := range parts {
				found = found && strings.Contains(e, part)
			}
			if found {
				return nil
			}
		}
		return fmt.Errorf("there are only %q", all)
	})
}

// awaitMetric waits until a line of the metrics is there.
func (r *accessRig) awaitMetric(tb testing.TB, line string) {
	tb.Helper()
	r.eventually(tb, line, func(ctx context.Context) error {
		name, _, _ := strings.Cut(line, " ")
		got, err := r.metric(ctx, name)
		if err == nil && !strings.Contains(got, line+"\n") {
			err = errors.New("there is only " + got)
		}
		return err
	})
}

func (r *accessRig) pod(tb testing.TB, namespace, name string, edit func(*corev1.Pod)) *corev1.Pod {
	tb.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{}, Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app.example/app"}}},
	}
	edit(pod)
	if err := r.admin.Create(tb.Context(), pod); err != nil {
		tb.Fatal(err)
	}
	return pod
}

// injected makes a pod what injection makes it, as far as the controller looks.
func injected(p *corev1.Pod) {
	p.Labels[v1beta1.InjectedLabel] = "true"
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{
		Name: v1beta1.AccessVolume, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: v1beta1.AccessSecret}},
	})
}

// errorsOf gives the errors in the log that have a word.
func (r *accessRig) errorsOf(word string) (found []string) {
	for line := range strings.Lines(r.log.all()) {
		if strings.Contains(line, `"error":`) && strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return found
}

// passes waits until the controller has looked at namespaces n times more.
func (r *accessRig) passes(tb testing.TB, n int) {
	tb.Helper()
	count := func(ctx context.Context) (int, error) {
		got, err := r.metric(ctx, `controller_runtime_reconcile_total{controller="access",result="requeue_after"}`)
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(got[strings.LastIndex(strings.TrimSpace(got), " ")+1:]))
	}
	start, err := count(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	r.eventually(tb, "passes", func(ctx context.Context) error {
		now, err := count(ctx)
		if err == nil && now < start+n {
			err = fmt.Errorf("there were %d", now-start)
		}
		return err
	})
}

// awaitNone waits until none of the five is there.
func (r *accessRig) awaitNone(tb testing.TB, namespace string) {
	tb.Helper()
	r.eventually(tb, "the end of all five in "+namespace, func(ctx context.Context) error {
		if found := r.there(ctx, tb, namespace); len(found) > 0 {
			return fmt.Errorf("there are %v", slices.Sorted(maps.Keys(found)))
		}
		return nil
	})
}

// labelMany makes namespaces with the label.
func (r *accessRig) labelMany(tb testing.TB, prefix string, n int) []string {
	tb.Helper()
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	if err := inParallel(n, func(i int) error {
		return r.admin.Create(tb.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: all[i], Labels: map[string]string{v1beta1.InjectLabel: v1beta1.InjectEnabled}}})
	}); err != nil {
		tb.Fatal(err)
	}
	return all
}

// secretReads is how many single Secrets the API server has been asked for.
func (r *accessRig) secretReads(tb testing.TB) int {
	tb.Helper()
	return r.answered(tb, `resource="secrets"`, `verb="GET"`)
}
