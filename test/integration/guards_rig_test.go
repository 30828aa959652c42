package integration

import (
	"cmp"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/injector"
	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/controlplane"
)

// guards is a control plane with config/guard and nothing else of the installation: no webhook is asked, and no program runs.
type guards struct {
	*controlplane.ControlPlane
	pods map[string]*corev1.Pod
}

func newGuards(t *testing.T) guards {
	t.Helper()
	binaries, err := assets.Dir(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	cp, err := controlplane.Start(t.Context(), controlplane.Options{Binaries: binaries})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	apply := func(args ...string) {
		t.Helper()
		if out, err := cp.Kubectl(t.Context(), append([]string{"apply", "--server-side"}, args...)...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	apply("-f", "testdata/guards/setup.yaml")
	apply("-k", "../../config/guard")

	// The installation's own settings, but for the images: it must be these that count.
	var settings corev1.PodTemplate
	read(t, "../../config/webhook/sidecar.yaml", &settings)
	settings.Template.Spec.Containers[0].Image = "registry.example/sidecar:v7"
	settings.Template.Spec.InitContainers[0].Image = "registry.example/redirect:v7"
	admin := kubernetes.NewForConfigOrDie(cp.Config())
	if _, err := admin.CoreV1().PodTemplates(settings.Namespace).Create(t.Context(), &settings, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	parsed, errs := injector.ParseSettings(&settings)
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	ordinary := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "ordinary"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "a.example/app:v1"}}},
	}
	injected, errs := injector.Inject(ordinary, parsed)
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	injected.Name = "injected"
	g := guards{cp, map[string]*corev1.Pod{"ordinary": ordinary, "injected": injected}}

	// A policy works from a moment after it was applied; this one comes last.
	(manifests{cp}).eventually(t, func() (string, bool) {
		out, err := cp.Kubectl(t.Context(), "create", "--dry-run=server", "-f", "testdata/guards/unready.yaml")
		return out, err != nil && strings.Contains(out, "remora-guard-namespaces")
	})
	// So does the one that waits for the settings.
	(manifests{cp}).eventually(t, func() (string, bool) {
		_, err := admin.CoreV1().Pods("guarded").Create(t.Context(), injected, metav1.CreateOptions{})
		return errorText(err), err == nil
	})
	if _, err := admin.CoreV1().Pods("guarded").Create(t.Context(), ordinary, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return g
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// as is the configuration of somebody who may do everything.
func (g guards) as(user string) *rest.Config {
	config := g.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: cmp.Or(user, "an-administrator"), Groups: []string{"system:masters"}}
	return config
}
