package injector_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"remora.dev/remora/injector"
)

// For whatever pod: the input stays as it is, a second injection changes nothing, everything of the user is as it was, the class
// Guaranteed is kept, and where the user's part has nothing forbidden, the last judgement accepts.
func FuzzInjectionKeepsItsPromises(f *testing.F) {
	for seed := range uint64(500) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		s := settings(t)
		pod := anyPod(rand.New(rand.NewPCG(seed, seed)))
		before := pod.DeepCopy()
		out := mustInject(t, pod, s)
		same(t, "the input", pod, before)
		same(t, "a second injection", mustInject(t, out, s), out)
		if errs := injector.Judge(out, labelled, s); len(errs) > 0 {
			t.Errorf("refused: %v", errs.ToAggregate())
		}
		if guaranteed(&pod.Spec) != guaranteed(&out.Spec) {
			t.Errorf("of class Guaranteed before: %t, after: %t", guaranteed(&pod.Spec), guaranteed(&out.Spec))
		}

		// what is left without ours is the pod of before
		rest := out.DeepCopy()
		rest.Spec.InitContainers = rest.Spec.InitContainers[2:]
		rest.Spec.Volumes = rest.Spec.Volumes[:len(rest.Spec.Volumes)-3]
		rest.Spec.ImagePullSecrets = rest.Spec.ImagePullSecrets[:len(before.Spec.ImagePullSecrets)]
		delete(rest.Labels, "remora.dev/injected")
		if before.Annotations["kubectl.kubernetes.io/default-container"] == "" {
			delete(rest.Annotations, "kubectl.kubernetes.io/default-container")
		}
		for _, name := range []string{"prometheus.io/scrape", "prometheus.io/port", "prometheus.io/path"} {
			if _, own := before.Annotations[name]; !own {
				delete(rest.Annotations, name)
			}
		}
		same(t, "the user's part", rest, before)

		// and forbidden once, in whatever place, is refused
		forbid := forbidden[rand.New(rand.NewPCG(seed, 0)).IntN(len(forbidden))]
		forbid(out)
		if errs := injector.Judge(out, labelled, s); len(errs) == 0 {
			t.Error("a forbidden change is accepted")
		}
	})
}

var forbidden = []func(*corev1.Pod){
	func(p *corev1.Pod) { p.Spec.ShareProcessNamespace = ptr.To(true) },
	func(p *corev1.Pod) { p.Spec.ServiceAccountName = "remora-sidecar" },
	func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsGroup: ptr.To[int64](14001)}
	},
	func(p *corev1.Pod) { p.Spec.Containers[0].Name = "remora-redirect" },
	func(p *corev1.Pod) {
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "remora-access"})
	},
	func(p *corev1.Pod) {
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	},
	func(p *corev1.Pod) { p.Spec.InitContainers[1].Env = nil; p.Spec.InitContainers[1].Args = nil },
}

// guaranteed tells the class as the kubelet does: every container has limits of both, and requests that are the same.
func guaranteed(spec *corev1.PodSpec) bool {
	if r := spec.Resources; r != nil {
		return equality.Semantic.DeepEqual(r.Requests, r.Limits) && !r.Limits.Cpu().IsZero() && !r.Limits.Memory().IsZero()
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for _, c := range containers {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				limit := c.Resources.Limits[name]
				request, said := c.Resources.Requests[name]
				if limit.IsZero() || said && request.Cmp(limit) != 0 {
					return false
				}
			}
		}
	}
	return true
}

func anyPod(r *rand.Rand) *corev1.Pod {
	maybe := func() bool { return r.IntN(2) == 0 }
	same := maybe() // all containers with limits
	n := 0
	container := func() corev1.Container {
		n++
		c := corev1.Container{Name: fmt.Sprintf("c%d", n), Image: "app"}
		if maybe() {
			c.Env = []corev1.EnvVar{{Name: "A", Value: "remora-sidecar"}, {Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "a"}}}}
		}
		if maybe() {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(14021)}}}
		}
		if maybe() {
			c.Ports = []corev1.ContainerPort{{ContainerPort: int32(1 + r.IntN(14000))}, {ContainerPort: 14001, Protocol: corev1.ProtocolUDP}}
		}
		if maybe() {
			c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		}
		if maybe() {
			c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To(int64(r.IntN(14001))), Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_BIND_SERVICE", "NET_ADMIN"}}}
		}
		if same || maybe() {
			limits := corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}
			c.Resources.Limits = limits
			switch {
			case same:
				c.Resources.Requests = limits.DeepCopy()
			case maybe():
				c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1m")}
			}
		}
		return c
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"a": "b"}}}
	spec := &pod.Spec
	for range r.IntN(4) {
		c := container()
		if maybe() {
			c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		}
		spec.InitContainers = append(spec.InitContainers, c)
	}
	for range 1 + r.IntN(3) {
		spec.Containers = append(spec.Containers, container())
	}
	for i := range r.IntN(3) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: fmt.Sprintf("v%d", i), VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "remora"}}})
	}
	if maybe() {
		spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "mine"}}
	}
	if maybe() {
		spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(r.IntN(14001))), FSGroup: ptr.To[int64](14002), RunAsNonRoot: ptr.To(true)}
	}
	if maybe() {
		pod.Annotations["kubectl.kubernetes.io/default-container"] = spec.Containers[0].Name
	}
	if r.IntN(4) == 0 {
		pod.Annotations["remora.dev/cpu"] = []string{"1m", "2", "0.5"}[r.IntN(3)]
		pod.Annotations["remora.dev/memory"] = []string{"32Mi", "1Gi", "1e8"}[r.IntN(3)]
		pod.Annotations["remora.dev/ports"] = []string{"80", "1,2,3", "65535"}[r.IntN(3)]
	}
	if r.IntN(8) == 0 {
		spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("8Gi")}}
		if maybe() {
			spec.Resources.Limits["cpu"] = resource.MustParse("4")
			spec.Resources.Requests = spec.Resources.Limits.DeepCopy()
		}
	}
	return pod
}

// Services alone bring hundreds of variables into a pod, and some people write as many themselves.
func TestAPodOf1500VariablesKeepsThemAll(t *testing.T) {
	pod := podOf(t, sleepPod)
	for i := range 1500 {
		pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", i), Value: fmt.Sprint(i)})
	}
	s := settings(t)
	out := mustInject(t, pod, s)
	same(t, "the user's container", out.Spec.Containers, pod.Spec.Containers)
	if errs := injector.Judge(out, labelled, s); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
}

func BenchmarkAPodOf1500Variables(b *testing.B) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}}}
	for i := range 1500 {
		pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", i), Value: fmt.Sprint(i)})
	}
	s := injector.Settings{Sidecar: injector.Container{Image: "a"}, Redirect: injector.Container{Image: "b"}}
	for b.Loop() {
		out, _ := injector.Inject(pod, s)
		injector.Judge(out, labelled, s)
	}
}
