package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/cluster/crds"
)

// serversRig is a real API server with the policies for EndpointSlices, and a keeper of servers with the rights of the controller, which
// is told by the test what is named.
type serversRig struct {
	*statusRig
	outdated func(string)

	mu    sync.Mutex
	named map[string]map[routing.ServersID]bool
}

func newServersRig(tb testing.TB) *serversRig {
	tb.Helper()
	r := &serversRig{statusRig: newStatusRig(tb), named: map[string]map[routing.ServersID]bool{}}
	for _, file := range []string{"../config/controller/policy.yaml", "../config/guard/servers.yaml"} {
		if out, err := r.Kubectl(tb.Context(), "apply", "-f", file); err != nil {
			tb.Fatalf("%v\n%s", err, out)
		}
	}
	config, err := restConfig(r.kubeconfig)
	if err != nil {
		tb.Fatal(err)
	}
	scheme, err := controlScheme()
	if err != nil {
		tb.Fatal(err)
	}
	log := funcr.NewJSON(func(line string) { fmt.Fprintln(r.log, line) }, funcr.Options{})
	config.QPS, config.Burst = controlRate, controlRate
	m, err := manager.New(config, manager.Options{Scheme: scheme, Logger: log, Cache: cacheOptions("remora-system"), Metrics: metricsserver.Options{BindAddress: "0"}})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := newSurroundings(config, 100*time.Millisecond, log)
	if err != nil {
		tb.Fatal(err)
	}
	if r.outdated, err = addServerKeeper(m, s, r.demands, log); err != nil {
		tb.Fatal(err)
	}
	if err := m.Add(s); err != nil {
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
	return r
}

func (r *serversRig) demands(_ context.Context, namespace string) ([]routing.ServersID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sortedServers(r.named[namespace]), nil
}

// name says what is named of a namespace.
func (r *serversRig) name(namespace string, all ...routing.ServersID) {
	r.mu.Lock()
	r.named[namespace] = map[routing.ServersID]bool{}
	for _, id := range all {
		r.named[namespace][id] = true
	}
	r.mu.Unlock()
	r.outdated(namespace)
}

func subsetOf(namespace, service, labels string) routing.ServersID {
	return routing.ServersID{Kind: routing.KindService, Namespace: namespace, Name: service, Subset: labels}
}

func poolOf(namespace, name string) routing.ServersID {
	return routing.ServersID{Kind: routing.KindInferencePool, Namespace: namespace, Name: name}
}

// serve makes a pod that serves, as a kubelet would say.
func (r *serversRig) serve(tb testing.TB, namespace, name, ip string, labels map[string]string, edit ...func(*corev1.Pod)) *corev1.Pod {
	tb.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: "node-a", Containers: []corev1.Container{{Name: "app", Image: "app.example/app"}}},
	}
	for _, e := range edit {
		e(pod)
	}
	if err := r.admin.Create(tb.Context(), pod); err != nil {
		tb.Fatal(err)
	}
	r.report(tb, pod, func(s *corev1.PodStatus) {
		s.Phase, s.PodIP, s.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
		s.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	})
	return pod
}

func (r *serversRig) report(tb testing.TB, pod *corev1.Pod, change func(*corev1.PodStatus)) {
	tb.Helper()
	before := pod.DeepCopy()
	change(&pod.Status)
	if err := r.admin.Status().Patch(tb.Context(), pod, client.MergeFrom(before)); err != nil {
		tb.Fatal(err)
	}
}

// slices gives the EndpointSlices of ours in a namespace.
func (r *serversRig) slices(ctx context.Context, tb testing.TB, namespace string) []discoveryv1.EndpointSlice {
	tb.Helper()
	var all discoveryv1.EndpointSliceList
	if err := r.admin.List(ctx, &all, client.InNamespace(namespace), client.HasLabels{"remora.dev/servers"}); err != nil && ctx.Err() == nil {
		tb.Fatal(err)
	}
	return all.Items
}

// words says what data planes read from the EndpointSlices of a namespace.
func (r *serversRig) words(ctx context.Context, tb testing.TB, namespace string) string {
	tb.Helper()
	var in []routing.EndpointSlice
	for _, s := range r.slices(ctx, tb, namespace) {
		s.APIVersion, s.Kind = "discovery.k8s.io/v1", "EndpointSlice"
		text, err := json.Marshal(s)
		var read routing.EndpointSlice
		if err == nil {
			read, err = routing.DecodeEndpointSlice(text, namespace)
		}
		if err != nil {
			tb.Fatal(err)
		}
		in = append(in, read)
	}
	var lines []string
	for id, servers := range routing.ServersOf(in) {
		line := fmt.Sprintf("%s %s[%s]%s:", id.Kind, id.Name, id.Subset, id.Port)
		for _, s := range servers {
			line += fmt.Sprintf(" %s:%d", s.Address, s.Port)
			if s.Draining {
				line += "-"
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (r *serversRig) awaitWords(tb testing.TB, namespace, want string) {
	tb.Helper()
	r.eventually(tb, want, func(ctx context.Context) error {
		if got := r.words(ctx, tb, namespace); got != want {
			return errors.New("there is " + got)
		}
		return nil
	})
}

// define applies the definitions of kinds that are others'.
func define(tb testing.TB, r *statusRig, names ...string) {
	tb.Helper()
	manifest, err := crds.Manifest(tb.Context(), names...)
	if err != nil {
		tb.Fatal(err)
	}
	if out, err := r.KubectlWith(tb.Context(), manifest, "apply", "--server-side", "-f", "-"); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
	if out, err := r.Kubectl(tb.Context(), append([]string{"wait", "--for=condition=Established", "crd"}, names...)...); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
}

func metaOf(namespace, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}
}
