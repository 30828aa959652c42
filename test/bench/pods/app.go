//go:build linux

package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/stage"
)

// app is a pod that does nothing, as in the walkthrough.
func app(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To[int64](1),
			Containers: []corev1.Container{{
				Name: "app", Image: stage.AppImage, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"/bin/sleep", "infinity"},
			}},
		},
	}
}

// variables is how many a large pod has: about as many as a namespace with 200 Services gives each pod.
const variables = 1500

func largeApp() *corev1.Pod {
	pod := app("large")
	for i := range variables {
		pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", i), Value: fmt.Sprintf("value-%d", i)})
	}
	return pod
}

// judge compares a pod with what its namespace should have made of it.
func judge(pod *corev1.Pod) error {
	var names []string
	for _, c := range pod.Spec.InitContainers {
		names = append(names, c.Name)
	}
	injected := len(names) == 2 && names[0] == v1beta1.RedirectContainer && names[1] == v1beta1.SidecarContainer && pod.Labels[v1beta1.InjectedLabel] == "true"
	if want := pod.Namespace == withSidecars; want && !injected || !want && len(names) > 0 {
		return fmt.Errorf("pod %s in namespace %s has the init containers %v and the labels %v", pod.Name, pod.Namespace, names, pod.Labels)
	}
	return nil
}
