package injector_test

import (
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/injector"
)

var labelled = injector.Namespace{Name: "shop", Labels: map[string]string{"remora.dev/inject": "enabled"}}

const sleepPod = `
metadata: {name: sleep, namespace: shop, labels: {app: sleep}}
spec:
  containers: [{name: sleep, image: curl, command: [/bin/sleep, infinity]}]
`

func podOf(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func templateOf(t *testing.T, text string) *corev1.PodTemplate {
	t.Helper()
	template := &corev1.PodTemplate{}
	if err := yaml.UnmarshalStrict([]byte(text), template); err != nil {
		t.Fatal(err)
	}
	return template
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func settings(t *testing.T) injector.Settings {
	t.Helper()
	s, errs := injector.ParseSettings(templateOf(t, read(t, "testdata/settings.yaml")))
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	return s
}

func mustInject(t *testing.T, pod *corev1.Pod, s injector.Settings) *corev1.Pod {
	t.Helper()
	out, errs := injector.Inject(pod, s)
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	return out
}

// same compares as JSON does: without a difference between nothing and an empty list.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !equality.Semantic.DeepEqual(got, want) {
		g, _ := yaml.Marshal(got)
		w, _ := yaml.Marshal(want)
		t.Errorf("%s is\n%s\nwant\n%s", what, g, w)
	}
}
