package injector

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Namespace is what is to be known of a pod's namespace.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Container is what the installation may choose of one of the injected containers.
type Container struct {
	Image      string
	PullPolicy corev1.PullPolicy
	Resources  corev1.ResourceRequirements
}

// Settings are what the installation may choose of an injected pod.
type Settings struct {
	Sidecar, Redirect Container
	// RedirectCapabilities are what the redirect container may do beyond a process without privileges. NET_ADMIN is enough for
	// nft; iptables-legacy needs NET_RAW too.
	RedirectCapabilities []corev1.Capability
	// PullSecrets are appended to those of the pod: Secrets of the pod's own namespace.
	PullSecrets []corev1.LocalObjectReference
}

// ParseSettings reads the PodTemplate that says what is injected. It returns all faults at once: what is missing, what is wrong, and
// every field that is set though it would have no effect. With a fault, the Settings are not to be used.
func ParseSettings(t *corev1.PodTemplate) (Settings, field.ErrorList) {
	var s Settings
	for _, c := range t.Template.Spec.Containers {
		s.Sidecar = Container{Image: c.Image, PullPolicy: c.ImagePullPolicy, Resources: c.Resources}
	}
	for _, c := range t.Template.Spec.InitContainers {
		s.Redirect = Container{Image: c.Image, PullPolicy: c.ImagePullPolicy, Resources: c.Resources}
	}
	s.RedirectCapabilities = []corev1.Capability{"NET_ADMIN"}
	s.PullSecrets = t.Template.Spec.ImagePullSecrets
	return s, nil
}
