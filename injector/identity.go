package injector

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/sidecar/launch"
)

// identity tells the sidecar whose calls it serves. It is written anew whatever was there, and what a pod is called when it starts,
// Kubernetes fills in.
func identity(pod *corev1.Pod) []corev1.EnvVar {
	from := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
	}
	all := []corev1.EnvVar{
		from(launch.PodVariable, "metadata.name"),
		from(launch.NamespaceVariable, "metadata.namespace"),
		from(launch.ServiceAccountVariable, "spec.serviceAccountName"),
		from(launch.NodeVariable, "spec.nodeName"),
	}
	if workload := workloadOf(&pod.ObjectMeta); workload != "" {
		all = append(all, corev1.EnvVar{Name: launch.WorkloadVariable, Value: literal(workload)})
	}
	return all
}

// workloadOf is KIND/NAME of what a pod was made for. A Deployment and a CronJob are not named by their pods, but by what they make in
// between, which is called as they are and then otherwise.
func workloadOf(pod *metav1.ObjectMeta) string {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return ""
	}
	kind, name := owner.Kind, owner.Name
	switch kind {
	case "ReplicaSet":
		if of, ok := strings.CutSuffix(name, "-"+pod.Labels["pod-template-hash"]); ok && of != "" && pod.Labels["pod-template-hash"] != "" {
			kind, name = "Deployment", of
		}
	case "Job":
		// The controller of CronJobs adds the minute in which the Job was due: minutes since 1970, eight digits until the year 2160.
		if i := strings.LastIndexByte(name, '-'); i > 0 && len(name)-i == 9 && strings.Trim(name[i+1:], "0123456789") == "" {
			kind, name = "CronJob", name[:i]
		}
	}
	return kind + "/" + name
}

// literal keeps Kubernetes from expanding $(NAME) in the value of a variable.
func literal(value string) string { return strings.ReplaceAll(value, "$", "$$") }

// The annotations by which Prometheus finds the sidecar's metrics.
const (
	scrapeAnnotation = "prometheus.io/scrape"
	portAnnotation   = "prometheus.io/port"
	pathAnnotation   = "prometheus.io/path"
	schemeAnnotation = "prometheus.io/scheme"
)

// announce tells Prometheus of the sidecar's metrics, where the pod says nothing of its own: there is one place for all of a pod's, and
// the user's come first.
func announce(pod *corev1.Pod) {
	for _, name := range []string{scrapeAnnotation, portAnnotation, pathAnnotation, schemeAnnotation} {
		if _, says := pod.Annotations[name]; says {
			return
		}
	}
	set(&pod.Annotations, scrapeAnnotation, "true")
	set(&pod.Annotations, portAnnotation, "14021")
	set(&pod.Annotations, pathAnnotation, "/metrics")
}
