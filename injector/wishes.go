package injector

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/launch"
)

// wishes are what the pod's annotations say of its sidecar. There is none for images, environment or volumes: the sidecar holds
// keys that the author of the pod may not have.
type wishes struct {
	ports       []uint16
	cpu, memory *resource.Quantity
	logLevel    string
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
	quantity := func(annotation, example string, least, most resource.Quantity) *resource.Quantity {
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
		case q.Cmp(most) > 0:
			errs = append(errs, field.Invalid(at.Key(annotation), value, fmt.Sprintf("more than any node has for a sidecar: write at most %s", &most)))
		}
		return &q
	}
	w.cpu = quantity(v1beta1.CPUAnnotation, "50m", resource.MustParse("1m"), resource.MustParse("1k"))
	w.memory = quantity(v1beta1.MemoryAnnotation, "128Mi", leastMemory, resource.MustParse("1Ti"))
	if value, said := pod.Annotations[v1beta1.LogAnnotation]; said {
		if err := launch.CheckLogLevel(value); err != nil {
			errs = append(errs, field.Invalid(at.Key(v1beta1.LogAnnotation), value, err.Error()))
		}
		w.logLevel = value
	}
	return w, errs
}

// apply puts what the pod says over what the settings say.
func (w wishes) apply(of corev1.ResourceRequirements, b budget) corev1.ResourceRequirements {
	of = *of.DeepCopy()
	put := func(list *corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = q
	}
	if w.cpu != nil {
		put(&of.Requests, corev1.ResourceCPU, *w.cpu)
		if limit, limited := of.Limits[corev1.ResourceCPU]; b.guaranteed || limited && limit.Cmp(*w.cpu) < 0 {
			put(&of.Limits, corev1.ResourceCPU, *w.cpu)
		}
	}
	if w.memory != nil {
		put(&of.Requests, corev1.ResourceMemory, *w.memory)
		put(&of.Limits, corev1.ResourceMemory, *w.memory)
	}
	return of
}
