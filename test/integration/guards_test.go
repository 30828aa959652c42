package integration

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
)

// guardCase is one entry of a file in testdata/guards, which say what is what.
type guardCase struct {
	Case   string          `json:"case"`
	Pod    string          `json:"pod"`
	Object json.RawMessage `json:"object"`
	In     string          `json:"in"` // a namespace; guarded if it is left out
	As     string          `json:"as"`
	Part   string          `json:"part"`
	With   json.RawMessage `json:"with"`
	Denied []string        `json:"denied"`
}

// Everybody here may do everything, as far as RBAC goes: what is denied is denied to administrators too.
func TestTheGuardsHoldWithoutAnyWebhook(t *testing.T) {
	g := newGuards(t)
	t.Run("PodsAreCreated", g.podsAreCreated)
	t.Run("PodsAreChanged", g.podsAreChanged)
	t.Run("ObjectsAreWritten", g.objectsAreWritten)
	t.Run("NobodyEntersTheSidecar", g.nobodyEntersTheSidecar)
	t.Run("OnlyTheControllerGetsTokens", g.onlyTheControllerGetsTokens)
	t.Run("NoAnswerToAWriteShowsKeys", g.noAnswerToAWriteShowsKeys)
	t.Run("LargePodsAreJudgedInTime", g.largePodsAreJudgedInTime)
}

// each tries the cases of a file.
func (g guards) each(t *testing.T, file string, try func(*testing.T, guardCase) error) {
	t.Helper()
	var cases []guardCase
	read(t, filepath.Join("testdata/guards", file), &cases)
	for _, c := range cases {
		t.Run(c.Case, func(t *testing.T) { check(t, try(t, c), c.Denied) })
	}
}

// check compares an answer with the words that it must have; with none, there must be no fault.
func check(t *testing.T, err error, words []string) {
	t.Helper()
	switch {
	case len(words) == 0 && err != nil:
		t.Errorf("it is denied: %v", err)
	case len(words) > 0 && err == nil:
		t.Error("it is admitted")
	case len(words) > 0:
		for _, word := range append(words, "ValidatingAdmissionPolicy 'remora-guard-", "Remedy: ") {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("the answer does not say %q:\n%v", word, err)
			}
		}
	}
}

var tryOnly = []string{metav1.DryRunAll}

func (g guards) podsAreCreated(t *testing.T) {
	g.each(t, "create.yaml", func(t *testing.T, c guardCase) error {
		t.Helper()
		pod := merged(t, g.pods[c.Pod], c.With)
		pod.Name = "new"
		_, err := kubernetes.NewForConfigOrDie(g.as(c.As)).CoreV1().Pods(cmp.Or(c.In, "guarded")).
			Create(t.Context(), pod, metav1.CreateOptions{DryRun: tryOnly, FieldValidation: metav1.FieldValidationStrict})
		return err
	})
}

// merged gives a copy of a pod with a strategic merge patch.
func merged(t *testing.T, pod *corev1.Pod, patch json.RawMessage) *corev1.Pod {
	t.Helper()
	if len(patch) == 0 {
		return pod.DeepCopy()
	}
	before, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	text, err := strategicpatch.StrategicMergePatch(before, patch, corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	out := &corev1.Pod{}
	if err := yaml.UnmarshalStrict(text, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (g guards) podsAreChanged(t *testing.T) {
	g.each(t, "update.yaml", func(t *testing.T, c guardCase) error {
		t.Helper()
		var parts []string
		if c.Part != "" {
			parts = append(parts, c.Part)
		}
		_, err := kubernetes.NewForConfigOrDie(g.as(c.As)).CoreV1().Pods("guarded").
			Patch(t.Context(), c.Pod, types.StrategicMergePatchType, c.With, metav1.PatchOptions{DryRun: tryOnly, FieldValidation: metav1.FieldValidationStrict}, parts...)
		return err
	})
}

func (g guards) objectsAreWritten(t *testing.T) {
	g.each(t, "objects.yaml", func(t *testing.T, c guardCase) error {
		t.Helper()
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(c.Object); err != nil {
			t.Fatal(err)
		}
		resource, _ := meta.UnsafeGuessKindToResource(object.GroupVersionKind())
		client := dynamic.NewForConfigOrDie(g.as(c.As)).Resource(resource).Namespace(object.GetNamespace())
		var err error
		if len(c.With) == 0 {
			_, err = client.Create(t.Context(), object, metav1.CreateOptions{DryRun: tryOnly})
		} else {
			_, err = client.Patch(t.Context(), object.GetName(), types.MergePatchType, c.With, metav1.PatchOptions{DryRun: tryOnly})
		}
		return err
	})
}

func (g guards) nobodyEntersTheSidecar(t *testing.T) {
	f := func(user string, command ...string) string {
		t.Helper()
		out, err := g.Kubectl(t.Context(), append([]string{"-n", "guarded", "--as", user, "--as-group", "system:masters"}, command...)...)
		if err == nil {
			t.Errorf("there is no kubelet here, and %v succeeds:\n%s", command, out)
		}
		return out
	}
	denied := func(out, container string) {
		t.Helper()
		if !strings.Contains(out, "remora-guard-exec") || !strings.Contains(out, "container "+container+" is Remora's") || !strings.Contains(out, "Remedy: ") {
			t.Errorf("the answer does not tell the reason and the remedy:\n%s", out)
		}
	}
	controller := "system:serviceaccount:" + v1beta1.InstallationNamespace + ":" + v1beta1.ControllerName
	for _, container := range []string{v1beta1.SidecarContainer, v1beta1.RedirectContainer} {
		denied(f("an-administrator", "exec", "injected", "-c", container, "--", "ls"), container)
		denied(f("an-administrator", "attach", "injected", "-c", container), container)
		denied(f(controller, "exec", "injected", "-c", container, "--", "ls"), container)
	}
	// What is admitted comes as far as to the node, which the pod has none of.
	for _, pod := range []string{"injected", "ordinary"} {
		if out := f("an-administrator", "exec", pod, "-c", "app", "--", "ls"); !strings.Contains(out, "does not have a host assigned") {
			t.Errorf("the app of %s cannot be entered:\n%s", pod, out)
		}
	}
}

func (g guards) onlyTheControllerGetsTokens(t *testing.T) {
	f := func(user, account string, denied ...string) {
		t.Helper()
		_, err := kubernetes.NewForConfigOrDie(g.as(user)).CoreV1().ServiceAccounts("guarded").
			CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		check(t, err, denied)
	}
	f("", "default")
	f("system:serviceaccount:remora-system:remora-controller", v1beta1.SidecarName)
	f("", v1beta1.SidecarName, "only Remora's controller", "use an account of your own")
	f("system:serviceaccount:remora-system:remora-webhook", v1beta1.SidecarName, "only Remora's controller")
	f("system:serviceaccount:guarded:remora-sidecar", v1beta1.SidecarName, "only Remora's controller")
	f("system:node:n", v1beta1.SidecarName, "only Remora's controller")
}

// The API server answers a write with the whole object, so it must be refused to those who may not read it.
func (g guards) noAnswerToAWriteShowsKeys(t *testing.T) {
	editor := g.Config()
	editor.Impersonate = rest.ImpersonationConfig{UserName: "editor"}
	f := func(what string, try func(kubernetes.Interface, string) error) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			check(t, try(kubernetes.NewForConfigOrDie(editor), "decoy"), nil)
			check(t, try(kubernetes.NewForConfigOrDie(editor), v1beta1.KeysSecret), []string{"secrets/" + v1beta1.KeysSecret + " holds keys", "editor may not get it"})
			check(t, try(kubernetes.NewForConfigOrDie(g.as("")), v1beta1.KeysSecret), nil)
		})
	}
	inForeground := metav1.DeletePropagationForeground
	f("a patch that changes nothing", func(c kubernetes.Interface, name string) error {
		_, err := c.CoreV1().Secrets("guarded").Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"a":"b"}}}`), metav1.PatchOptions{DryRun: tryOnly})
		return err
	})
	f("a delete", func(c kubernetes.Interface, name string) error {
		return c.CoreV1().Secrets("guarded").Delete(t.Context(), name, metav1.DeleteOptions{DryRun: tryOnly, PropagationPolicy: &inForeground})
	})
	f("a delete of all", func(c kubernetes.Interface, name string) error {
		return c.CoreV1().Secrets("guarded").DeleteCollection(t.Context(), metav1.DeleteOptions{DryRun: tryOnly}, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	})
}

// What CEL may cost is bounded, and a policy that costs more denies.
func (g guards) largePodsAreJudgedInTime(t *testing.T) {
	pod := g.pods["injected"].DeepCopy()
	pod.Name = "huge"
	var env []corev1.EnvVar
	var mounts []corev1.VolumeMount
	for i := range 1500 {
		env = append(env, corev1.EnvVar{Name: fmt.Sprint("V", i), ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "mine"}, Key: "k",
		}}})
	}
	for i := range 200 {
		name := fmt.Sprint("v", i)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mine"}}})
		mounts = append(mounts, corev1.VolumeMount{Name: name, MountPath: "/" + name})
	}
	for _, name := range strings.Split("abcdefgh", "") {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: "a.example/b", Env: env, VolumeMounts: mounts})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := kubernetes.NewForConfigOrDie(g.as("")).CoreV1().Pods("guarded").Create(ctx, pod, metav1.CreateOptions{DryRun: tryOnly})
	check(t, err, nil)
	last := &pod.Spec.Containers[len(pod.Spec.Containers)-1]
	last.VolumeMounts = append(last.VolumeMounts[:len(last.VolumeMounts):len(last.VolumeMounts)], corev1.VolumeMount{Name: v1beta1.AccessVolume, MountPath: "/a"})
	_, err = kubernetes.NewForConfigOrDie(g.as("")).CoreV1().Pods("guarded").Create(ctx, pod, metav1.CreateOptions{DryRun: tryOnly})
	check(t, err, []string{"volumeMounts: container h "})
}
