package injector

import (
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"remora.dev/remora/apis/v1beta1"
)

// Judge looks at a pod after all webhooks had their turn, and returns all its faults at once: what would let an app read the keys,
// and where our parts are not as Inject writes them. Each fault has its reason and remedy. Of a pod that is not to have a sidecar,
// it asks only that it has none of our parts, and uses nothing that is for sidecars alone.
func Judge(pod *corev1.Pod, ns Namespace, s Settings) field.ErrorList {
	var errs field.ErrorList
	d := Decide(pod, ns)
	switch d.Verdict {
	case VerdictDeny:
		return append(errs, field.Forbidden(d.Path(), d.Message))
	case VerdictIgnore, VerdictSkip:
	case VerdictInject:
		errs = append(errs, altered(pod, s)...)
		errs = append(errs, misplaced(&pod.Spec)...)
		errs = append(errs, unsafe(&pod.Spec)...)
	}
	return append(errs, reserved(&pod.Spec, d.Verdict)...)
}

// Path is the field of the pod that a Decision is about.
func (d Decision) Path() *field.Path {
	switch d.Code {
	case HostNetwork:
		return field.NewPath("spec", "hostNetwork")
	case Windows:
		return field.NewPath("spec")
	case StaticPod:
		return field.NewPath("metadata", "annotations").Key(corev1.MirrorPodAnnotationKey)
	case NamespacePodSecurity, NamespaceAsks:
		return field.NewPath("metadata", "namespace")
	default:
		return field.NewPath("metadata", "labels").Key(v1beta1.InjectLabel)
	}
}

const byWhom = "the sidecar holds keys, so nobody but Remora says what it is. Remedy: have the tool or webhook that changes it leave out containers and volumes whose names begin with remora-"

// altered compares our parts with what Inject writes. What the API server's own plug-ins change is no fault: resources (LimitRanger), the
// pull policy (AlwaysPullImages), and what has no bearing on what runs.
func altered(pod *corev1.Pod, s Settings) field.ErrorList {
	want, errs := Inject(pod, s)
	if len(errs) > 0 {
		return errs
	}
	if pod.Labels[v1beta1.InjectedLabel] != "true" {
		errs = append(errs, field.Required(field.NewPath("metadata", "labels").Key(v1beta1.InjectedLabel), `"true", by which injected pods are found; something removed it after the injection`))
	}
	at := field.NewPath("spec", "initContainers")
	for _, w := range want.Spec.InitContainers[:2] {
		seen := false
		for i, got := range pod.Spec.InitContainers {
			if got.Name != w.Name {
				continue
			}
			if seen {
				errs = append(errs, field.Duplicate(at.Index(i).Child("name"), got.Name))
			}
			seen = true
			errs = append(errs, alteredContainer(at.Index(i), &got, &w)...)
		}
		if !seen {
			errs = append(errs, field.Required(at, "the container "+w.Name+", which a webhook removed or Remora's webhook never wrote: see that MutatingWebhookConfiguration "+v1beta1.WebhookName+" is there, and create the pod again"))
		}
	}
	for _, w := range want.Spec.Volumes {
		if !isOurVolume(w.Name) {
			continue
		}
		i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == w.Name })
		switch at := field.NewPath("spec", "volumes"); {
		case i < 0:
			errs = append(errs, field.Required(at, "the volume "+w.Name+", which a webhook removed: create the pod again"))
		case !equality.Semantic.DeepEqual(pod.Spec.Volumes[i], w):
			errs = append(errs, field.Forbidden(at.Index(i), w.Name+" is not as it was injected: "+byWhom))
		}
	}
	return errs
}

// tolerated are the fields of our containers that others may change. Not the path of the termination message: the kubelet puts a file
// of its own there, over whatever the sidecar keeps, and shows in the status of the pod what is written to it.
var tolerated = []string{"Resources", "ResizePolicy", "TerminationMessagePolicy"}

func alteredContainer(at *field.Path, got, want *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	g, w := reflect.ValueOf(plain(got)).Elem(), reflect.ValueOf(plain(want)).Elem()
	for i := range g.NumField() {
		f := g.Type().Field(i)
		if slices.Contains(tolerated, f.Name) || equality.Semantic.DeepEqual(g.Field(i).Interface(), w.Field(i).Interface()) {
			continue
		}
		switch path := at.Child(jsonName(f)); f.Name {
		case "Image":
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("it is %s where the installation says %s: to use another image, or the same by its digest, say so in PodTemplate %s/%s; if that was just done, create the pod again",
				got.Image, want.Image, v1beta1.InstallationNamespace, v1beta1.SidecarName)))
		case "ImagePullPolicy":
			if got.ImagePullPolicy != corev1.PullAlways {
				errs = append(errs, field.Forbidden(path, fmt.Sprintf("it is %s where the installation says %s: say it in PodTemplate %s/%s", got.ImagePullPolicy, want.ImagePullPolicy, v1beta1.InstallationNamespace, v1beta1.SidecarName)))
			}
		case "RestartPolicy":
			errs = append(errs, field.Forbidden(path, "it is not Always, without which "+v1beta1.SidecarContainer+" is no native sidecar and keeps the pod from starting: an API server before Kubernetes 1.29 drops it, and cannot run sidecars; otherwise, "+byWhom))
		default:
			errs = append(errs, field.Forbidden(path, "it is not as it was injected: "+byWhom))
		}
	}
	return errs
}

// plain leaves out of a container what may differ inside of fields that are compared: the protocol of probes, which newer API servers
// fill in, and the number in GOMEMLIMIT, which goes with the resources.
func plain(c *corev1.Container) *corev1.Container {
	c = c.DeepCopy()
	for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		if p != nil && p.HTTPGet != nil {
			p.HTTPGet.Protocol = nil
		}
	}
	c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == memoryVariable && e.ValueFrom == nil })
	return c
}

// misplaced finds init containers that would run before ours: their calls would go out in plain text, past the sidecar.
func misplaced(spec *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	at := field.NewPath("spec", "initContainers")
	position := func(name string) int {
		return slices.IndexFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
	}
	redirect, sidecar := position(v1beta1.RedirectContainer), position(v1beta1.SidecarContainer)
	if redirect > sidecar && sidecar >= 0 {
		errs = append(errs, field.Forbidden(at.Index(sidecar), v1beta1.SidecarContainer+" comes before "+v1beta1.RedirectContainer+": have the webhook that moved it leave it after"))
	}
	for i, c := range spec.InitContainers[:max(redirect, sidecar, 0)] {
		if !isOurs(c.Name) && !slices.Contains(meshContainers, c.Name) {
			errs = append(errs, field.Forbidden(at.Index(i), c.Name+" comes before "+v1beta1.SidecarContainer+
				", so that its calls would pass it by: have the webhook that put it there append it instead, or be called before "+v1beta1.WebhookName+" (webhooks are called in the order of their configurations' names)"))
		}
	}
	return errs
}
