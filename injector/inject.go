package injector

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"remora.dev/remora/apis/v1beta1"
)

// defaultContainer is the annotation by which kubectl exec and logs choose a container.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// Inject gives a copy of a pod with the redirection and the sidecar; the pod itself stays as it was. Ours come first, and everything
// of the user keeps its order and meaning. It is idempotent: ours are written anew, whatever was made of them before. Errors name
// annotations that cannot be understood; there is no pod then.
func Inject(pod *corev1.Pod, s Settings) (*corev1.Pod, field.ErrorList) {
	w, errs := wishesOf(pod)
	if len(errs) > 0 {
		return nil, errs
	}
	out := pod.DeepCopy()
	spec := &out.Spec
	redirectBefore, sidecarBefore := resourcesOf(spec, v1beta1.RedirectContainer), resourcesOf(spec, v1beta1.SidecarContainer)
	clean(out)

	b := budgetOf(spec)
	ours := []corev1.Container{redirectContainer(s, w, b, redirectBefore), sidecarContainer(out, s, w, b, sidecarBefore)}
	spec.InitContainers = append(ours, spec.InitContainers...)
	spec.Volumes = append(spec.Volumes, volumes()...)
	for _, secret := range s.PullSecrets {
		if !slices.Contains(spec.ImagePullSecrets, secret) {
			spec.ImagePullSecrets = append(spec.ImagePullSecrets, secret)
		}
	}
	set(&out.Labels, v1beta1.InjectedLabel, "true")
	announce(out)
	if first := firstOfUser(spec.Containers); out.Annotations[defaultContainer] == "" && first != "" {
		set(&out.Annotations, defaultContainer, first)
	}
	return out, nil
}

// clean removes what Inject and Mark write, but for the pull secrets, the default container and what Prometheus is told: whether those were ours, nobody knows.
func clean(pod *corev1.Pod) {
	pod.Spec.InitContainers = slices.DeleteFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return isOurs(c.Name) })
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return isOurVolume(v.Name) })
	delete(pod.Labels, v1beta1.InjectedLabel)
	delete(pod.Annotations, v1beta1.SkipReason)
}

func isOurs(container string) bool {
	return container == v1beta1.RedirectContainer || container == v1beta1.SidecarContainer
}

func isOurVolume(name string) bool {
	return name == v1beta1.AccessVolume || name == v1beta1.StateVolume || name == v1beta1.PodVolume
}

// meshContainers are those of other sidecars that redirect traffic. They may come before ours: they are needed by what they serve,
// and their injectors insist on the first place too.
var meshContainers = []string{
	"istio-init", "istio-validation", "istio-proxy", "enable-core-dump",
	"linkerd-init", "linkerd-network-validator", "linkerd-proxy", "linkerd-debug",
	"consul-connect-inject-init", "consul-dataplane", "kuma-init", "kuma-sidecar", "kuma-validation",
}

// firstOfUser names the first container that is not a mesh's: some put theirs first.
func firstOfUser(containers []corev1.Container) string {
	for _, c := range containers {
		if !slices.Contains(meshContainers, c.Name) {
			return c.Name
		}
	}
	return ""
}
