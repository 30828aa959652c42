package injector_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"remora.dev/remora/injector"
)

// A neighbour is another webhook that changes pods; again says that it wants to be called again after others changed them.
type neighbour struct {
	name  string
	again bool
	write func(*corev1.Pod)
}

// Others do as the API server does: each in its turn, and those that wish once more if something changed since theirs. ours counts
// as a neighbour too.
func admit(pod *corev1.Pod, all []neighbour) {
	seen := map[string]*corev1.Pod{}
	for _, n := range all {
		n.write(pod)
		seen[n.name] = pod.DeepCopy()
	}
	for _, n := range all {
		if n.again && !equality.Semantic.DeepEqual(pod, seen[n.name]) {
			n.write(pod)
		}
	}
}

func without(containers []corev1.Container, names ...string) []corev1.Container {
	return slices.DeleteFunc(containers, func(c corev1.Container) bool { return slices.Contains(names, c.Name) })
}

func label(pod *corev1.Pod, key, value string) {
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[key] = value
}

func addVolume(pod *corev1.Pod, name string) {
	if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name }) {
		pod.Spec.Volumes = append([]corev1.Volume{{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}, pod.Spec.Volumes...)
	}
}

// istio has the shape of what Istio's injector writes: an init container for the rules, the last one or, with a native sidecar, the
// first; the proxy; and probes of everybody that lead through the proxy.
func istio(pod *corev1.Pod, native bool) {
	addVolume(pod, "istio-envoy")
	rules := corev1.Container{Name: "istio-init", Image: "istio/proxyv2", SecurityContext: &corev1.SecurityContext{
		RunAsUser: ptr.To[int64](0), Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}, Drop: []corev1.Capability{"ALL"}},
	}}
	proxy := corev1.Container{Name: "istio-proxy", Image: "istio/proxyv2", Ports: []corev1.ContainerPort{{ContainerPort: 15090}},
		VolumeMounts:    []corev1.VolumeMount{{Name: "istio-envoy", MountPath: "/etc/istio/proxy"}},
		SecurityContext: &corev1.SecurityContext{RunAsUser: ptr.To[int64](1337), RunAsNonRoot: ptr.To(true)},
	}
	pod.Spec.InitContainers = without(pod.Spec.InitContainers, "istio-init", "istio-proxy")
	pod.Spec.Containers = without(pod.Spec.Containers, "istio-proxy")
	if native {
		proxy.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		pod.Spec.InitContainers = append([]corev1.Container{rules, proxy}, pod.Spec.InitContainers...)
	} else {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, rules)
		pod.Spec.Containers = append([]corev1.Container{proxy}, pod.Spec.Containers...) // holdApplicationUntilProxyStarts
	}
	label(pod, "security.istio.io/tlsMode", "istio")
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range containers {
			for word, p := range map[string]*corev1.Probe{"startupz": c.StartupProbe, "readyz": c.ReadinessProbe, "livez": c.LivenessProbe} {
				if p != nil && p.HTTPGet != nil {
					p.HTTPGet.Path, p.HTTPGet.Port = "/app-health/"+c.Name+"/"+word, intstr.FromInt32(15020)
				}
			}
		}
	}
}

// linkerd has the shape of what Linkerd's injector writes.
func linkerd(pod *corev1.Pod, native bool) {
	addVolume(pod, "linkerd-identity-end-entity")
	rules := corev1.Container{Name: "linkerd-init", Image: "linkerd/proxy-init", SecurityContext: &corev1.SecurityContext{
		RunAsUser: ptr.To[int64](65534), RunAsNonRoot: ptr.To(true), Privileged: ptr.To(false), AllowPrivilegeEscalation: ptr.To(false),
		Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}},
	}}
	proxy := corev1.Container{Name: "linkerd-proxy", Image: "linkerd/proxy", Ports: []corev1.ContainerPort{{ContainerPort: 4143}},
		SecurityContext: &corev1.SecurityContext{RunAsUser: ptr.To[int64](2102)}}
	pod.Spec.InitContainers = without(pod.Spec.InitContainers, "linkerd-init", "linkerd-proxy")
	pod.Spec.Containers = without(pod.Spec.Containers, "linkerd-proxy")
	if native {
		proxy.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		pod.Spec.InitContainers = append([]corev1.Container{rules, proxy}, pod.Spec.InitContainers...)
	} else {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, rules)
		pod.Spec.Containers = append(pod.Spec.Containers, proxy)
	}
	label(pod, "linkerd.io/control-plane-ns", "linkerd")
}

// variables sets an environment variable in all containers, as many do.
func variables(pod *corev1.Pod) {
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "AGENT" })
			c.Env = append(c.Env, corev1.EnvVar{Name: "AGENT", Value: "10.0.0.1"})
		}
	}
}

// limits fills in a limit of CPU, as LimitRanger does.
func limits(pod *corev1.Pod) {
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			r := &containers[i].Resources
			if _, limited := r.Limits[corev1.ResourceCPU]; !limited {
				if r.Limits == nil {
					r.Limits = corev1.ResourceList{}
				}
				r.Limits[corev1.ResourceCPU] = resource.MustParse("1")
			}
		}
	}
}

const busyPod = `
metadata: {name: a, labels: {app: a}}
spec:
  initContainers: [{name: prepare, image: app}]
  containers:
  - {name: app, image: app, readinessProbe: {httpGet: {path: /, port: 8080}}}
  volumes: [{name: data, emptyDir: {}}]
`

func TestInjectionBesideOthersConvergesInAnyOrder(t *testing.T) {
	s := settings(t)
	ours := neighbour{"ours", true, func(pod *corev1.Pod) { mustInject(t, pod, s).DeepCopyInto(pod) }}
	others := map[string][]neighbour{
		"istio":                     {{"istio", false, func(p *corev1.Pod) { istio(p, false) }}},
		"istio, native":             {{"istio", false, func(p *corev1.Pod) { istio(p, true) }}},
		"linkerd":                   {{"linkerd", false, func(p *corev1.Pod) { linkerd(p, false) }}},
		"linkerd, native and again": {{"linkerd", true, func(p *corev1.Pod) { linkerd(p, true) }}},
		"limits":                    {{"limits", true, limits}},
		"variables":                 {{"variables", false, variables}},
		"istio, limits":             {{"istio", false, func(p *corev1.Pod) { istio(p, true) }}, {"limits", true, limits}},
		"linkerd, variables":        {{"variables", false, variables}, {"linkerd", true, func(p *corev1.Pod) { linkerd(p, false) }}},
	}
	for name, theirs := range others {
		for place := range len(theirs) + 1 {
			t.Run(fmt.Sprintf("%s, ours at %d", name, place), func(t *testing.T) {
				all := slices.Insert(slices.Clone(theirs), place, ours)
				pod := podOf(t, busyPod)
				admit(pod, all)
				if errs := injector.Judge(pod, labelled, s); len(errs) > 0 {
					t.Fatalf("refused: %v", errs.ToAggregate())
				}
				again := pod.DeepCopy()
				admit(again, all)
				same(t, "one more admission", again, pod)

				place := func(name string) int {
					return slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
				}
				if r, s := place("remora-redirect"), place("remora-sidecar"); r < 0 || s != r+1 || place("prepare") < s {
					t.Errorf("redirect, sidecar and the user's init container are at %d, %d and %d", r, s, place("prepare"))
				}
				if got := pod.Annotations["kubectl.kubernetes.io/default-container"]; got != "app" {
					t.Errorf("kubectl exec chooses %q", got)
				}
				if c := pod.Spec.InitContainers[place("remora-sidecar")]; c.StartupProbe.HTTPGet.Port.IntVal != 14021 || c.Env[0].Name != "GOMEMLIMIT" || c.Env[1].Name != "REMORA_POD" {
					t.Errorf("the sidecar has the probe %v and the environment %v", c.StartupProbe.HTTPGet, c.Env)
				}
			})
		}
	}
}

// A webhook that is called after ours, and once more after it, has the last word. What it made of our parts is then refused, and
// who reads why knows what to change.
func TestWhoHasTheLastWordOnOurPartsIsRefused(t *testing.T) {
	s := settings(t)
	ours := neighbour{"ours", true, func(pod *corev1.Pod) { mustInject(t, pod, s).DeepCopyInto(pod) }}
	f := func(theirs func(*corev1.Pod), want ...string) {
		t.Helper()
		pod := podOf(t, busyPod)
		admit(pod, []neighbour{ours, {"theirs", true, theirs}})
		errs := fmt.Sprint(injector.Judge(pod, labelled, s))
		for _, w := range want {
			if !strings.Contains(errs, w) {
				t.Errorf("%s does not say %s", errs, w)
			}
		}
		admit(pod, []neighbour{{"theirs", true, theirs}, ours}) // the remedy: before ours
		if errs := injector.Judge(pod, labelled, s); len(errs) > 0 {
			t.Errorf("refused in the other order too: %v", errs)
		}
	}
	f(variables, "initContainers[0].env", "initContainers[1].env", "names begin with remora-")
	f(func(p *corev1.Pod) { istio(p, false) }, "initContainers[1].startupProbe", "initContainers[1].livenessProbe")
	f(func(p *corev1.Pod) {
		p.Spec.InitContainers = append([]corev1.Container{{Name: "agent", Image: "agent"}}, without(p.Spec.InitContainers, "agent")...)
	}, "initContainers[0]", "agent comes before remora-sidecar", "in the order of their configurations' names")
}
