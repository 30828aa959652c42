package injector

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Judge looks at a pod after all webhooks had their turn, and returns all its faults at once: what would let an app read the keys,
// and where our parts are not as Inject writes them. Each fault has its reason and remedy.
func Judge(pod *corev1.Pod, ns Namespace, s Settings) field.ErrorList {
	switch d := Decide(pod, ns); d.Verdict {
	case VerdictDeny:
		return field.ErrorList{field.Forbidden(field.NewPath("metadata", "labels"), d.Message)}
	case VerdictInject:
		_, errs := Inject(pod, s)
		return errs
	}
	return nil
}
