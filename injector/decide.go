package injector

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"remora.dev/remora/apis/v1beta1"
)

// Verdict is what is to be done with a pod.
type Verdict string

// The verdicts.
const (
	VerdictIgnore Verdict = "Ignore" // nobody asked: the pod stays as it is
	VerdictInject Verdict = "Inject"
	VerdictSkip   Verdict = "Skip" // the namespace asks, but this pod cannot have a sidecar: it runs without, and says so
	VerdictDeny   Verdict = "Deny"
)

// Code is a stable word for why a Decision was taken, for logs, metrics and events.
type Code string

// The codes of decisions.
const (
	NotAsked             Code = "NotAsked"             // Ignore: neither the namespace nor the pod asks
	PodDisabled          Code = "PodDisabled"          // Ignore: the pod says no
	NamespaceAsks        Code = "NamespaceAsks"        // Inject
	PodAsks              Code = "PodAsks"              // Inject
	LabelValue           Code = "LabelValue"           // Deny: a value of the pod's label that means nothing
	NamespaceNotLabelled Code = "NamespaceNotLabelled" // Deny: the pod asks, and its namespace does not take part
	NamespacePodSecurity Code = "NamespacePodSecurity" // Deny: the namespace admits no NET_ADMIN
	HostNetwork          Code = "HostNetwork"          // Skip; Deny if the pod asks
	Windows              Code = "Windows"              // Skip; Deny if the pod asks
	StaticPod            Code = "StaticPod"            // Skip; Deny if the pod asks
)

// Decision is what is to be done with a pod, and why.
type Decision struct {
	Verdict Verdict
	Code    Code
	Message string // a sentence for people; of a Deny, with the remedy
}

const (
	podSecurityLabel = "pod-security.kubernetes.io/enforce"
	osLabel          = "kubernetes.io/os"
)

// Decide tells what is to be done with a pod from its labels, its namespace's, and whether it can have a sidecar at all.
func Decide(pod *corev1.Pod, ns Namespace) Decision {
	word, said := pod.Labels[v1beta1.InjectLabel]
	if said && word != v1beta1.InjectEnabled && word != v1beta1.InjectDisabled {
		return Decision{VerdictDeny, LabelValue, fmt.Sprintf("the label %s of the pod is %q, which means nothing: write %s or %s, or remove it to do as the namespace says",
			v1beta1.InjectLabel, word, v1beta1.InjectEnabled, v1beta1.InjectDisabled)}
	}
	asks := word == v1beta1.InjectEnabled
	if said && !asks {
		return Decision{VerdictIgnore, PodDisabled, "the pod's label " + v1beta1.InjectLabel + " says " + v1beta1.InjectDisabled}
	}

	switch of := ns.Labels[v1beta1.InjectLabel]; {
	case asks && of != v1beta1.InjectEnabled && of != v1beta1.InjectPods:
		return Decision{VerdictDeny, NamespaceNotLabelled, fmt.Sprintf("the pod asks for a sidecar by its label %s, and its namespace %s does not take part: kubectl label --overwrite namespace %s %s=%s, or remove the label from the pod",
			v1beta1.InjectLabel, ns.Name, ns.Name, v1beta1.InjectLabel, v1beta1.InjectPods)}
	case !asks && of != v1beta1.InjectEnabled:
		return Decision{VerdictIgnore, NotAsked, "neither the pod nor its namespace asks for a sidecar"}
	}

	if code, reason := unable(pod); code != "" {
		if !asks {
			return Decision{VerdictSkip, code, reason + ", so it has no sidecar"}
		}
		return Decision{VerdictDeny, code, fmt.Sprintf("the pod asks for a sidecar by its label %s, and cannot have one: %s. Change that, or remove the label", v1beta1.InjectLabel, reason)}
	}
	if level := ns.Labels[podSecurityLabel]; level == "baseline" || level == "restricted" {
		return Decision{VerdictDeny, NamespacePodSecurity, fmt.Sprintf("the pod would get a sidecar, whose init container %s needs the capability NET_ADMIN, which the label %s=%s of the namespace %s forbids: "+
			"kubectl label --overwrite namespace %s %s=privileged, or give the pod the label %s=%s to run without a sidecar",
			v1beta1.RedirectContainer, podSecurityLabel, level, ns.Name, ns.Name, podSecurityLabel, v1beta1.InjectLabel, v1beta1.InjectDisabled)}
	}
	if asks {
		return Decision{VerdictInject, PodAsks, "the pod asks for a sidecar"}
	}
	return Decision{VerdictInject, NamespaceAsks, "the namespace asks for a sidecar in every pod"}
}

// unable tells why a pod cannot have a sidecar, whoever asks. An empty code: it can.
func unable(pod *corev1.Pod) (Code, string) {
	spec := &pod.Spec
	switch {
	case spec.OS != nil && spec.OS.Name == corev1.Windows, spec.NodeSelector[osLabel] == "windows":
		return Windows, "the pod runs on Windows, where there is no iptables"
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return StaticPod, "the pod is a static pod of its node, which Kubernetes only mirrors"
	case spec.HostNetwork:
		return HostNetwork, "the pod shares the network of its node (hostNetwork), whose traffic must not be redirected"
	}
	return "", ""
}

// Mark gives a copy of a pod that is skipped: it tells so by a label, and why by an annotation. What an earlier injection left in
// it is removed.
func Mark(pod *corev1.Pod, d Decision) *corev1.Pod {
	out := pod.DeepCopy()
	clean(out)
	set(&out.Labels, v1beta1.InjectedLabel, "false")
	set(&out.Annotations, v1beta1.SkipReason, string(d.Code)+": "+d.Message)
	return out
}

func set(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}
