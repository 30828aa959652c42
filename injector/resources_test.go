package injector_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// LimitRanger fills in what our containers lack, and would refuse them without it. What contradicts our own is not kept.
func TestWhatLimitRangerFilledInStays(t *testing.T) {
	s := settings(t) // cpu 10m; memory 32Mi, at most 128Mi
	f := func(what string, change func(r *corev1.ResourceRequirements), want string) {
		t.Helper()
		pod := mustInject(t, podOf(t, sleepPod), s)
		change(&pod.Spec.InitContainers[1].Resources)
		got := mustInject(t, pod, s).Spec.InitContainers[1].Resources
		text := "cpu " + show(got, "cpu") + ", memory " + show(got, "memory") + ", ephemeral-storage " + show(got, "ephemeral-storage")
		if text != want {
			t.Errorf("%s: got %s, want %s", what, text, want)
		}
	}
	f("nothing", func(*corev1.ResourceRequirements) {}, "cpu 10m-none, memory 32Mi-128Mi, ephemeral-storage none-none")
	f("a limit", func(r *corev1.ResourceRequirements) { r.Limits["cpu"] = resource.MustParse("1") }, "cpu 10m-1, memory 32Mi-128Mi, ephemeral-storage none-none")
	f("a limit below our request", func(r *corev1.ResourceRequirements) { r.Limits["cpu"] = resource.MustParse("9m") }, "cpu 10m-none, memory 32Mi-128Mi, ephemeral-storage none-none")
	f("other figures where we have ours", func(r *corev1.ResourceRequirements) {
		r.Requests["memory"], r.Limits["memory"] = resource.MustParse("1Mi"), resource.MustParse("1Gi")
	}, "cpu 10m-none, memory 32Mi-128Mi, ephemeral-storage none-none")
	f("another resource", func(r *corev1.ResourceRequirements) {
		r.Requests["ephemeral-storage"], r.Limits["ephemeral-storage"] = resource.MustParse("1Mi"), resource.MustParse("2Mi")
	}, "cpu 10m-none, memory 32Mi-128Mi, ephemeral-storage 1Mi-2Mi")

	s.Sidecar.Resources = corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("128Mi")}}
	f("requests above our limits", func(r *corev1.ResourceRequirements) {
		r.Requests = corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("64Mi")}
	}, "cpu none-1, memory 64Mi-128Mi, ephemeral-storage none-none")
}

// In a pod of class Guaranteed, the request becomes the limit: what is too little to live by is raised, and no more.
func TestInAGuaranteedPodTheRequestIsTheLimit(t *testing.T) {
	f := func(requests, limits corev1.ResourceList, cpu, memory, goLimit string) {
		t.Helper()
		s := settings(t)
		s.Sidecar.Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
		pod := podOf(t, sleepPod)
		pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}
		c := mustInject(t, pod, s).Spec.InitContainers[1]
		if got, want := show(c.Resources, "cpu")+" "+show(c.Resources, "memory"), cpu+"-"+cpu+" "+memory+"-"+memory; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if c.Env[0].Name != "GOMEMLIMIT" || c.Env[0].Value != goLimit {
			t.Errorf("the environment is %v, want %s", c.Env, goLimit)
		}
	}
	q := resource.MustParse
	f(nil, nil, "100m", "64Mi", "58720256")
	f(corev1.ResourceList{"cpu": q("10m"), "memory": q("32Mi")}, nil, "100m", "64Mi", "58720256")
	f(corev1.ResourceList{"cpu": q("250m"), "memory": q("256Mi")}, nil, "250m", "256Mi", "234881024")
	f(corev1.ResourceList{"cpu": q("10m"), "memory": q("32Mi")}, corev1.ResourceList{"cpu": q("50m"), "memory": q("128Mi")}, "50m", "128Mi", "117440512")
}

// show writes a resource as REQUEST-LIMIT.
func show(r corev1.ResourceRequirements, name corev1.ResourceName) string {
	text := func(list corev1.ResourceList) string {
		if q, said := list[name]; said {
			return q.String()
		}
		return "none"
	}
	return text(r.Requests) + "-" + text(r.Limits)
}
