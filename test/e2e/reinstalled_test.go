//go:build linux

package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/stage"
)

// What an API server remembers of an installation whose policies were removed must not be what it judges the next one by.
func takesOtherImagesAfterItsPoliciesWereMadeAnew(t *testing.T) {
	in, outside := injected(t, "e2e-images"), labelled(t, "e2e-outside")
	attempt := func(namespace string, spec corev1.PodSpec) (*corev1.Pod, error) {
		spec.Containers = []corev1.Container{{Name: "app", Image: stage.AppImage}}
		return client.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "tried"}, Spec: spec},
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	}
	image := func(want string) {
		t.Helper()
		eventually(t, "pods get the image "+want, func() (string, bool) {
			p, err := attempt(in, corev1.PodSpec{})
			if err != nil {
				return err.Error(), false
			}
			return fmt.Sprintf("%+v", p.Spec.InitContainers), len(p.Spec.InitContainers) == 2 && p.Spec.InitContainers[1].Image == want
		})
	}
	guarded := func(want bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("the guard is in force: %v", want), func() (string, bool) {
			_, err := attempt(outside, corev1.PodSpec{Volumes: []corev1.Volume{{
				Name: "stolen", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: v1beta1.KeysSecret}},
			}}})
			return fmt.Sprint(err), (err != nil) == want
		})
	}
	const other = "remora.dev/sidecar:other"
	image("remora.dev/sidecar:latest")
	guarded(true)
	kubectl(t, "delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "-l", v1beta1.PartOfLabel+"="+v1beta1.PartOf)
	guarded(false)
	kubectl(t, "apply", "-k", everything)
	guarded(true)
	kubectl(t, "-n", system, "patch", "podtemplate", v1beta1.SidecarName, "--patch",
		`{"template":{"spec":{"containers":[{"name":"`+v1beta1.SidecarContainer+`","image":"`+other+`"}]}}}`)
	image(other)
	kubectl(t, "apply", "-k", everything)
	image("remora.dev/sidecar:latest")
}
