package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"remora.dev/remora/apis/v1beta1"
)

// team is a namespace for pods.
type team struct {
	name   string
	client kubernetes.Interface
}

// newTeam makes a namespace with labels, and what pods need that a controller manager would give them.
func newTeam(t *testing.T, labels map[string]string) *team {
	t.Helper()
	client, err := kubernetes.NewForConfig(installed.Config())
	if err != nil {
		t.Fatal(err)
	}
	n := &team{name: fmt.Sprintf("test-%d", namespaces.Add(1)), client: client}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: labels}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := client.CoreV1().ServiceAccounts(n.name).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return n
}

// wants is a namespace that wants a sidecar in every pod.
func wants(t *testing.T) *team {
	t.Helper()
	return newTeam(t, map[string]string{v1beta1.InjectLabel: v1beta1.InjectEnabled})
}

// app is a pod as an application has it. The edits make it another one.
func app(edits ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "app-"},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "migrate", Image: "example.com/migrate"}},
			Containers:     []corev1.Container{{Name: "app", Image: "example.com/app"}},
		},
	}
	for _, edit := range edits {
		edit(pod)
	}
	return pod
}

func labelled(value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Labels = map[string]string{v1beta1.InjectLabel: value} }
}

func onTheHost(pod *corev1.Pod) { pod.Spec.HostNetwork = true }

func (n *team) create(ctx context.Context, pod *corev1.Pod, options ...string) (*corev1.Pod, error) {
	return n.client.CoreV1().Pods(n.name).Create(ctx, pod, metav1.CreateOptions{DryRun: options})
}

// created creates a pod that must be let in.
func (n *team) created(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	got, err := n.create(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// initContainers names those of a pod, in their order.
func initContainers(pod *corev1.Pod) string {
	var names []string
	for _, c := range pod.Spec.InitContainers {
		names = append(names, c.Name)
	}
	return strings.Join(names, " ")
}

const injected = v1beta1.RedirectContainer + " " + v1beta1.SidecarContainer + " migrate"

// outcome is what became of a pod, in a word.
func outcome(pod *corev1.Pod, err error) string {
	switch {
	case apierrors.IsForbidden(err):
		return "denied"
	case err != nil:
		return err.Error()
	case initContainers(pod) == injected && pod.Labels[v1beta1.InjectedLabel] == "true":
		return "injected"
	case initContainers(pod) != "migrate":
		return "it has " + initContainers(pod)
	case pod.Labels[v1beta1.InjectedLabel] == "false" && pod.Annotations[v1beta1.SkipReason] != "":
		return "skipped"
	case pod.Labels[v1beta1.InjectedLabel] == "":
		return "as it was"
	}
	return fmt.Sprintf("labels %v, annotations %v", pod.Labels, pod.Annotations)
}

func TestLabelsDecideWhichPodsGetASidecar(t *testing.T) {
	for _, row := range []struct{ namespace, pod, want, onTheHost string }{
		{"", "", "as it was", "as it was"},
		{"", "enabled", "denied", "denied"},
		{"", "disabled", "as it was", "as it was"},
		{"", "yes", "denied", "denied"},
		{"disabled", "", "as it was", "as it was"},
		{"disabled", "enabled", "denied", "denied"},
		{"disabled", "disabled", "as it was", "as it was"},
		{"disabled", "yes", "denied", "denied"},
		{"pods", "", "as it was", "as it was"},
		{"pods", "enabled", "injected", "denied"},
		{"pods", "disabled", "as it was", "as it was"},
		{"pods", "yes", "denied", "denied"},
		{"enabled", "", "injected", "skipped"},
		{"enabled", "enabled", "injected", "denied"},
		{"enabled", "disabled", "as it was", "as it was"},
		{"enabled", "yes", "denied", "denied"},
	} {
		t.Run("namespace="+row.namespace+",pod="+row.pod, func(t *testing.T) {
			labels := map[string]string{}
			if row.namespace != "" {
				labels[v1beta1.InjectLabel] = row.namespace
			}
			n := newTeam(t, labels)
			edits := []func(*corev1.Pod){}
			if row.pod != "" {
				edits = append(edits, labelled(row.pod))
			}
			if got := outcome(n.create(t.Context(), app(edits...))); got != row.want {
				t.Errorf("%s, want %s", got, row.want)
			}
			if got := outcome(n.create(t.Context(), app(append(edits, onTheHost)...))); got != row.onTheHost {
				t.Errorf("on the network of its node: %s, want %s", got, row.onTheHost)
			}
		})
	}
}

func TestARefusalSaysWhatToDo(t *testing.T) {
	for name, f := range map[string]struct {
		labels map[string]string
		pod    *corev1.Pod
		want   string
	}{
		"a namespace that takes no part":        {nil, app(labelled("enabled")), "remora.dev/inject=pods"},
		"a label that means nothing":            {nil, app(labelled("yes")), "enabled"},
		"a pod on its node's network that asks": {map[string]string{v1beta1.InjectLabel: "pods"}, app(labelled("enabled"), onTheHost), "hostNetwork"},
		"a namespace that forbids NET_ADMIN": {
			map[string]string{v1beta1.InjectLabel: "enabled", "pod-security.kubernetes.io/enforce": "baseline"}, app(), "pod-security.kubernetes.io/enforce=privileged",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newTeam(t, f.labels)
			_, err := n.create(t.Context(), f.pod)
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), f.want) || !strings.Contains(err.Error(), `pods "app" is forbidden`) {
				t.Errorf("it says %v, want %s", err, f.want)
			}
		})
	}
	t.Run("annotations", func(t *testing.T) {
		_, err := wants(t).create(t.Context(), app(func(pod *corev1.Pod) {
			pod.Annotations = map[string]string{v1beta1.PortsAnnotation: "http", v1beta1.MemoryAnnotation: "\x1b[31mmuch"}
		}))
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), v1beta1.PortsAnnotation) || !strings.Contains(err.Error(), v1beta1.MemoryAnnotation) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("it says %v", err)
		}
	})
}

func TestADryRunIsAnsweredAsTheRealThing(t *testing.T) {
	n := wants(t)
	if got := outcome(n.create(t.Context(), app(), metav1.DryRunAll)); got != "injected" {
		t.Error(got)
	}
	if all, err := n.client.CoreV1().Pods(n.name).List(t.Context(), metav1.ListOptions{}); err != nil || len(all.Items) > 0 {
		t.Errorf("%v, and %d pods", err, len(all.Items))
	}
}

// A namespace is labelled, and its pod comes at once: before any watch can have told of it.
func TestThePodThatFollowsTheLabelHasItsSidecar(t *testing.T) {
	n := newTeam(t, nil)
	for range 20 {
		for _, value := range []string{v1beta1.InjectPods, v1beta1.InjectDisabled} {
			patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, v1beta1.InjectLabel, value)
			if _, err := n.client.CoreV1().Namespaces().Patch(t.Context(), n.name, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			// Where the label goes, the pod may still get what it was just entitled to.
			if got := outcome(n.create(t.Context(), app(labelled(v1beta1.InjectEnabled)), metav1.DryRunAll)); got != "injected" && value == v1beta1.InjectPods {
				t.Fatal(got)
			}
		}
	}
}

func TestAPodWithThousandsOfVariablesIsInjected(t *testing.T) {
	n := wants(t)
	pod := app(func(pod *corev1.Pod) {
		for _, c := range []*corev1.Container{&pod.Spec.Containers[0], &pod.Spec.InitContainers[0]} {
			for i := range 1500 {
				c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", i), Value: strings.Repeat("x", 40)})
			}
		}
	})
	got := n.created(t, pod) // within the 5 seconds that the API server waits
	if initContainers(got) != injected || len(got.Spec.Containers[0].Env) != 1500 || len(got.Spec.InitContainers[2].Env) != 1500 {
		t.Errorf("it has %s", initContainers(got))
	}
}

// The pod of a ReplicaSet is what a kubectl get shows, with nothing but what the user and Kubernetes wrote.
func TestTheUsersPartsAreAsTheyWere(t *testing.T) {
	pod := func() *corev1.Pod {
		return app(func(pod *corev1.Pod) {
			pod.GenerateName = "sleep-7d4b9c6f5d-"
			pod.Labels = map[string]string{"app": "sleep", "pod-template-hash": "7d4b9c6f5d"}
			yes := true
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "sleep-7d4b9c6f5d", UID: "1", Controller: &yes, BlockOwnerDeletion: &yes}}
			pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		})
	}
	with, without := wants(t).created(t, pod()), newTeam(t, nil).created(t, pod())
	if got := outcome(with, nil); got != "injected" {
		t.Fatal(got)
	}
	text := func(v any) string {
		// The name of the volume with the service account's token is random.
		out, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		for _, of := range []*corev1.Pod{with, without} {
			for _, volume := range of.Spec.Volumes {
				if strings.HasPrefix(volume.Name, "kube-api-access-") {
					out = []byte(strings.ReplaceAll(string(out), volume.Name, "kube-api-access"))
				}
			}
		}
		return string(out)
	}
	if got, want := text(with.Spec.Containers), text(without.Spec.Containers); got != want {
		t.Errorf("containers:\n%s\nwithout a sidecar:\n%s", got, want)
	}
	if got, want := text(with.Spec.InitContainers[2:]), text(without.Spec.InitContainers); got != want {
		t.Errorf("init containers:\n%s\nwithout a sidecar:\n%s", got, want)
	}
	// Neither of ours has the token of the app.
	for _, c := range with.Spec.InitContainers[:2] {
		for _, mount := range c.VolumeMounts {
			if !strings.HasPrefix(mount.Name, "remora-") {
				t.Errorf("%s mounts %s", c.Name, mount.Name)
			}
		}
	}
}
