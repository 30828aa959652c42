package main

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

// Whoever may create pods may write such an annotation into thousands, and the controller holds all pods that say they were skipped.
func TestNoMoreIsKeptOfAPodThanIsTold(t *testing.T) {
	pod := metadataOf("Pod")
	pod.Labels = map[string]string{v1beta1.InjectedLabel: "false", "app": strings.Repeat("a", 63)}
	pod.Annotations = map[string]string{v1beta1.SkipReason: "HostNetwork: " + strings.Repeat("é", 100<<10), "other": strings.Repeat("b", 1<<10)}
	kept, err := keepMarks(pod)
	if err != nil {
		t.Fatal(err)
	}
	o := kept.(metav1.Object)
	reason := o.GetAnnotations()[v1beta1.SkipReason]
	if !strings.HasPrefix(reason, "HostNetwork: é") || len(reason) > maxNote {
		t.Errorf("%d bytes are kept of the reason", len(reason))
	}
	if len(o.GetAnnotations()) != 1 || len(o.GetLabels()) != 1 {
		t.Errorf("%v %v", o.GetAnnotations(), o.GetLabels())
	}
}
