package injector

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/launch"
)

// leastMemory is what the sidecar needs to start: with less, it would be killed again and again.
var leastMemory = resource.MustParse("32Mi")

// leastGuaranteed is what our containers get of a resource in a pod of class Guaranteed where the settings give no limit: there,
// the request becomes the limit, and what is enough to be scheduled by is too little to live by.
var leastGuaranteed = corev1.ResourceList{
	corev1.ResourceCPU:    resource.MustParse("100m"),
	corev1.ResourceMemory: resource.MustParse("64Mi"),
}

// wishes are what the pod's annotations say of its sidecar.
type wishes struct {
	ports       []uint16
	cpu, memory *resource.Quantity
}

func wishesOf(pod *corev1.Pod) (wishes, field.ErrorList) {
	w := wishes{ports: []uint16{launch.DefaultRedirectPort}}
	var errs field.ErrorList
	at := field.NewPath("metadata", "annotations")
	if value, said := pod.Annotations[v1beta1.PortsAnnotation]; said {
		ports, err := launch.ParsePorts(value)
		if err != nil {
			errs = append(errs, field.Invalid(at.Key(v1beta1.PortsAnnotation), value, err.Error()))
		}
		w.ports = ports
	}
	quantity := func(annotation, example string, least resource.Quantity) *resource.Quantity {
		value, said := pod.Annotations[annotation]
		if !said {
			return nil
		}
		q, err := resource.ParseQuantity(value)
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(at.Key(annotation), value, "not a quantity: write one such as "+example))
		case q.Cmp(least) < 0:
			errs = append(errs, field.Invalid(at.Key(annotation), value, fmt.Sprintf("too little for the sidecar: write at least %s", &least)))
		}
		return &q
	}
	w.cpu = quantity(v1beta1.CPUAnnotation, "50m", resource.MustParse("1m"))
	w.memory = quantity(v1beta1.MemoryAnnotation, "128Mi", leastMemory)
	return w, errs
}

// apply puts what the pod says over what the settings say.
func (w wishes) apply(of corev1.ResourceRequirements) corev1.ResourceRequirements {
	of = *of.DeepCopy()
	put := func(list *corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = q
	}
	if w.cpu != nil {
		put(&of.Requests, corev1.ResourceCPU, *w.cpu)
		if limit, limited := of.Limits[corev1.ResourceCPU]; limited && limit.Cmp(*w.cpu) < 0 {
			put(&of.Limits, corev1.ResourceCPU, *w.cpu)
		}
	}
	if w.memory != nil {
		put(&of.Requests, corev1.ResourceMemory, *w.memory)
		put(&of.Limits, corev1.ResourceMemory, *w.memory)
	}
	return of
}

// budget is what the resources of our containers must fit into.
type budget struct {
	guaranteed bool
	pod        corev1.ResourceRequirements // of the pod as a whole
}

// budgetOf looks at a pod without our containers.
func budgetOf(spec *corev1.PodSpec) budget {
	if spec.Resources != nil {
		return budget{pod: *spec.Resources}
	}
	if len(spec.Containers) == 0 {
		return budget{}
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range containers {
			for name := range leastGuaranteed {
				limit := c.Resources.Limits[name]
				request, said := c.Resources.Requests[name]
				if limit.IsZero() || said && request.Cmp(limit) != 0 {
					return budget{}
				}
			}
		}
	}
	return budget{guaranteed: true}
}

// fit gives the resources of one of our containers such that the pod keeps its class. In a pod of class Guaranteed, requests and
// limits are the same. Where the pod as a whole has a request or limit, ours shares it: it must not be exceeded by a sum. A request
// or limit that the container has already and we do not write, as LimitRanger fills them in, stays.
func (b budget) fit(want, before corev1.ResourceRequirements) corev1.ResourceRequirements {
	out := corev1.ResourceRequirements{Requests: filled(want.Requests, before.Requests), Limits: filled(want.Limits, before.Limits)}
	if b.guaranteed {
		for name, least := range leastGuaranteed {
			limit, limited := want.Limits[name]
			if request, said := want.Requests[name]; !limited {
				limit = least
				if said && request.Cmp(least) > 0 {
					limit = request
				}
			}
			out.Requests[name], out.Limits[name] = limit, limit
		}
	}
	for _, shared := range []corev1.ResourceList{b.pod.Requests, b.pod.Limits} {
		for name := range shared {
			delete(out.Requests, name)
			delete(out.Limits, name)
		}
	}
	for name, limit := range out.Limits {
		if request := out.Requests[name]; request.Cmp(limit) > 0 {
			delete(out.Limits, name) // one of before, lower than what we need now
		}
	}
	return out
}

func filled(want, before corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	maps.Copy(out, before)
	maps.Copy(out, want)
	return out
}

// memoryLimit tells Go's runtime to collect garbage before the container's limit is reached: at seven eighths, because not all
// memory is Go's. Where the container shares the limit of the pod, its own would-be limit counts.
func memoryLimit(fitted, wanted corev1.ResourceRequirements) []corev1.EnvVar {
	limit, limited := fitted.Limits[corev1.ResourceMemory]
	if !limited {
		limit, limited = wanted.Limits[corev1.ResourceMemory]
	}
	if !limited {
		return nil
	}
	value := limit.Value() - limit.Value()/8
	return []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: fmt.Sprintf("%d", value)}}
}

func resourcesOf(spec *corev1.PodSpec, container string) corev1.ResourceRequirements {
	for _, c := range spec.InitContainers {
		if c.Name == container {
			return c.Resources
		}
	}
	return corev1.ResourceRequirements{}
}
