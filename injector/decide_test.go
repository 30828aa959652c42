package injector_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/injector"
)

const absent = "(absent)"

// The truth table of the two labels, and of what stands in the way.
func TestTheLabelsOfNamespaceAndPodDecide(t *testing.T) {
	f := func(namespace, pod, obstacle string, verdict injector.Verdict, code injector.Code, says ...string) {
		t.Helper()
		ns := injector.Namespace{Name: "shop", Labels: map[string]string{"kubernetes.io/metadata.name": "shop"}}
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "sleep"}, Annotations: map[string]string{}}}
		if namespace != absent {
			ns.Labels["remora.dev/inject"] = namespace
		}
		if pod != absent {
			p.Labels["remora.dev/inject"] = pod
		}
		switch obstacle {
		case "":
		case "hostNetwork":
			p.Spec.HostNetwork = true
		case "os":
			p.Spec.OS = &corev1.PodOS{Name: corev1.Windows}
		case "linux":
			p.Spec.OS = &corev1.PodOS{Name: corev1.Linux}
			p.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "linux"}
		case "nodeSelector":
			p.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "windows"}
		case "mirror":
			p.Annotations[corev1.MirrorPodAnnotationKey] = "0123"
		default:
			ns.Labels["pod-security.kubernetes.io/enforce"] = obstacle
		}
		got := injector.Decide(p, ns)
		if got.Verdict != verdict || got.Code != code {
			t.Errorf("namespace %s, pod %s, %s: got %s, %s; want %s, %s", namespace, pod, obstacle, got.Verdict, got.Code, verdict, code)
		}
		for _, s := range says {
			if !strings.Contains(got.Message, s) {
				t.Errorf("namespace %s, pod %s, %s: %q does not say %q", namespace, pod, obstacle, got.Message, s)
			}
		}
	}
	const (
		ignore, inject, skip, deny = injector.VerdictIgnore, injector.VerdictInject, injector.VerdictSkip, injector.VerdictDeny

		label = "kubectl label --overwrite namespace shop remora.dev/inject=pods"
		level = "kubectl label --overwrite namespace shop pod-security.kubernetes.io/enforce=privileged"
	)
	// namespace, pod
	f(absent, absent, "", ignore, injector.NotAsked)
	f("disabled", absent, "", ignore, injector.NotAsked)
	f("pods", absent, "", ignore, injector.NotAsked)
	f("enabled", absent, "", inject, injector.NamespaceAsks)
	f("yes", absent, "", ignore, injector.NotAsked)
	f("", absent, "", ignore, injector.NotAsked)

	f(absent, "enabled", "", deny, injector.NamespaceNotLabelled, label)
	f("disabled", "enabled", "", deny, injector.NamespaceNotLabelled, label)
	f("pods", "enabled", "", inject, injector.PodAsks)
	f("enabled", "enabled", "", inject, injector.PodAsks)
	f("yes", "enabled", "", deny, injector.NamespaceNotLabelled, label)

	f(absent, "disabled", "", ignore, injector.PodDisabled)
	f("disabled", "disabled", "", ignore, injector.PodDisabled)
	f("pods", "disabled", "", ignore, injector.PodDisabled)
	f("enabled", "disabled", "", ignore, injector.PodDisabled)
	f("yes", "disabled", "", ignore, injector.PodDisabled)

	for _, namespace := range []string{absent, "disabled", "pods", "enabled", "yes"} {
		f(namespace, "true", "", deny, injector.LabelValue, `"true"`, "write enabled or disabled")
		f(namespace, "", "", deny, injector.LabelValue, `""`, "write enabled or disabled")
		f(namespace, "pods", "", deny, injector.LabelValue, `"pods"`, "write enabled or disabled")
		f(namespace, "Enabled", "", deny, injector.LabelValue, `"Enabled"`)
	}

	// what stands in the way: the namespace's wish is skipped, the pod's own is denied, and without a wish nothing is said
	for obstacle, code := range map[string]injector.Code{
		"hostNetwork": injector.HostNetwork, "os": injector.Windows, "nodeSelector": injector.Windows, "mirror": injector.StaticPod,
	} {
		f("enabled", absent, obstacle, skip, code, "so it has no sidecar")
		f("enabled", "enabled", obstacle, deny, code, "or remove the label")
		f("pods", "enabled", obstacle, deny, code, "or remove the label")
		f("pods", absent, obstacle, ignore, injector.NotAsked)
		f("enabled", "disabled", obstacle, ignore, injector.PodDisabled)
		f(absent, "enabled", obstacle, deny, injector.NamespaceNotLabelled, label)
	}
	f("enabled", absent, "linux", inject, injector.NamespaceAsks)

	// the Pod Security level of the namespace
	for _, security := range []string{"baseline", "restricted"} {
		f("enabled", absent, security, deny, injector.NamespacePodSecurity, "NET_ADMIN", level, "remora.dev/inject=disabled")
		f("pods", "enabled", security, deny, injector.NamespacePodSecurity, "NET_ADMIN", level)
		f("pods", absent, security, ignore, injector.NotAsked)
		f("enabled", "disabled", security, ignore, injector.PodDisabled)
	}
	f("enabled", absent, "privileged", inject, injector.NamespaceAsks)
}

func TestASkippedPodSaysWhy(t *testing.T) {
	pod := podOf(t, sleepPod)
	injected := mustInject(t, pod, settings(t))
	injected.Spec.HostNetwork = true
	before := injected.DeepCopy()
	d := injector.Decide(injected, labelled)
	got := injector.Mark(injected, d)
	same(t, "the input", injected, before)

	if got.Labels["remora.dev/injected"] != "false" || got.Annotations["remora.dev/skip-reason"] != "HostNetwork: "+d.Message {
		t.Errorf("labels %v, annotations %v", got.Labels, got.Annotations)
	}
	if len(got.Spec.InitContainers) > 0 || len(got.Spec.Volumes) > 0 {
		t.Errorf("what an earlier injection left is still there: %v, %v", got.Spec.InitContainers, got.Spec.Volumes)
	}
	same(t, "a second mark", injector.Mark(got, d), got)
	if errs := injector.Judge(got, labelled, settings(t)); len(errs) > 0 {
		t.Errorf("a skipped pod is refused: %v", errs)
	}

	got.Spec.HostNetwork = false
	again := mustInject(t, got, settings(t))
	if again.Labels["remora.dev/injected"] != "true" || again.Annotations["remora.dev/skip-reason"] != "" {
		t.Errorf("a pod that is not skipped any more still says so: %v, %v", again.Labels, again.Annotations)
	}
}
