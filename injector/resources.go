package injector

import (
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// leastMemory is what the sidecar needs to start: with less, it would be killed again and again.
var leastMemory = resource.MustParse("32Mi")

// leastGuaranteed is what our containers get of a resource in a pod of class Guaranteed where the settings give no limit: there,
// the request becomes the limit, and what is enough to be scheduled by is too little to live by.
var leastGuaranteed = corev1.ResourceList{
	corev1.ResourceCPU:    resource.MustParse("100m"),
	corev1.ResourceMemory: resource.MustParse("64Mi"),
}

// budget is what the resources of our containers must fit into.
type budget struct {
	guaranteed bool
	pod        corev1.ResourceRequirements // of the pod as a whole
}

// budgetOf looks at a pod without our containers.
func budgetOf(spec *corev1.PodSpec) budget {
	if r := spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		return budget{pod: *r} // the class of the pod is then a matter of these alone
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
// limits are the same. Of what the pod as a whole has a request or limit for, ours takes its part and says nothing: no sum can then
// exceed it.
func (b budget) fit(want corev1.ResourceRequirements) corev1.ResourceRequirements {
	out := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	maps.Copy(out.Requests, want.Requests)
	maps.Copy(out.Limits, want.Limits)
	if b.guaranteed {
		for name, limit := range leastGuaranteed {
			if request := want.Requests[name]; request.Cmp(limit) > 0 {
				limit = request
			}
			if wanted, limited := want.Limits[name]; limited {
				limit = wanted
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
	return out
}

// keep adds what the container has already and we do not write: LimitRanger fills in requests and limits, and refuses containers
// without them. Where it does not go with what we write, it is left out.
func keep(ours, before corev1.ResourceRequirements) corev1.ResourceRequirements {
	for name, request := range before.Requests {
		limit, limited := ours.Limits[name]
		if _, said := ours.Requests[name]; !said && (!limited || request.Cmp(limit) <= 0) {
			ours.Requests[name] = request
		}
	}
	for name, limit := range before.Limits {
		request := ours.Requests[name]
		if _, limited := ours.Limits[name]; !limited && request.Cmp(limit) <= 0 {
			ours.Limits[name] = limit
		}
	}
	return ours
}

// memoryVariable is how Go's runtime is told of a limit.
const memoryVariable = "GOMEMLIMIT"

// memoryLimit tells Go's runtime to collect garbage before the limit is reached: at seven eighths of it, because not all memory is
// Go's. What counts is the limit that we would set, also where the pod as a whole has one: the app is not to pay for our garbage.
func memoryLimit(fitted, wanted corev1.ResourceRequirements) []corev1.EnvVar {
	limit, limited := fitted.Limits[corev1.ResourceMemory]
	if !limited {
		limit, limited = wanted.Limits[corev1.ResourceMemory]
	}
	if !limited {
		return nil
	}
	return []corev1.EnvVar{{Name: memoryVariable, Value: strconv.FormatInt(limit.Value()-limit.Value()/8, 10)}}
}

func resourcesOf(spec *corev1.PodSpec, container string) corev1.ResourceRequirements {
	i := slices.IndexFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == container })
	if i < 0 {
		return corev1.ResourceRequirements{}
	}
	return spec.InitContainers[i].Resources
}
