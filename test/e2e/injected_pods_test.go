//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

// A sidecar that did not end with its app would keep a Job from being complete for ever.
func TestJobsAndCronJobsComplete(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-jobs")
	apply(t, exampleProvider("sk-of-jobs"), "-n", in)
	job := func(words string) string {
		return `
    backoffLimit: 0
    template:
      metadata: {labels: {app: ` + strings.ReplaceAll(words, " ", "-") + `}}
      spec:
        restartPolicy: Never
        containers: [` + container("app", ask(example, words)) + "]\n"
	}
	apply(t, `
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:`+strings.ReplaceAll(job("from a job"), "\n    ", "\n  "), "-n", in)
	apply(t, `
apiVersion: batch/v1
kind: CronJob
metadata: {name: often}
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:`+strings.ReplaceAll(job("from a cronjob"), "\n    ", "\n      "), "-n", in)
	kubectl(t, "-n", in, "wait", "--for=condition=Complete", "job/once", "--timeout="+patience.String())
	eventually(t, "the CronJob has had a success", func() (string, bool) {
		at := kubectl(t, "-n", in, "get", "cronjob", "often", "-o", "jsonpath={.status.lastSuccessfulTime}")
		return at, at != ""
	})
	kubectl(t, "-n", in, "patch", "cronjob", "often", "--patch", `{"spec":{"suspend":true}}`)
	for _, words := range []string{"from a job", "from a cronjob"} {
		if r := received(t, atAnybody, words); len(r) == 0 || r[0].Header.Get("Authorization") != "Bearer sk-of-jobs" {
			t.Errorf("%s, the provider received %+v", words, r)
		}
		wantSidecar(t, in, "app="+strings.ReplaceAll(words, " ", "-"))
	}
}

// wantSidecar looks for the two containers, in their place, and for the end of the sidecar.
func wantSidecar(t *testing.T, in, selector string) []corev1.Pod {
	t.Helper()
	list, err := client.CoreV1().Pods(in).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) == 0 {
		t.Errorf("there is no pod %s", selector)
	}
	for _, p := range list.Items {
		if c := p.Spec.InitContainers; len(c) < 2 || c[0].Name != v1beta1.RedirectContainer || c[1].Name != v1beta1.SidecarContainer {
			t.Errorf("pod %s has not its redirection and its sidecar first: %+v", p.Name, c)
		}
	}
	return list.Items
}

func TestInitContainersAndNativeSidecarsOfTheUserReachTheirLLMs(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-early")
	apply(t, exampleProvider("sk-of-early"), "-n", in)
	apply(t, pod("early", container("app", ask(example, "first thing of the app")+" || exit 1\n"+idle),
		"initContainers: ["+container("first", ask(example, "of an init container"))+", "+
			container("beside", ask(example, "of a native sidecar")+" || exit 1\n"+idle, "restartPolicy: Always")+"]"), "-n", in)
	awaitReady(t, in, "pod/early")
	p := wantSidecar(t, in, "app=early")[0]
	if c := p.Spec.InitContainers; len(c) != 4 || c[2].Name != "first" || c[3].Name != "beside" {
		t.Errorf("the init containers are %+v", c)
	}
	for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if s.RestartCount != 0 {
			t.Errorf("%s was restarted %d times", s.Name, s.RestartCount)
		}
	}
	// One call each, made before anything else: none had to be made again.
	for _, words := range []string{"of an init container", "of a native sidecar", "first thing of the app"} {
		if r := received(t, atAnybody, words); len(r) != 1 || !r[0].TLS || r[0].Header.Get("Authorization") != "Bearer sk-of-early" {
			t.Errorf("%s, the provider received %+v", words, r)
		}
	}
}

func TestInANamespaceOfThoseThatAskOnlyTheyGetSidecars(t *testing.T) {
	t.Parallel()
	in := labelled(t, "e2e-pods", v1beta1.InjectLabel+"="+v1beta1.InjectPods)
	apply(t, exampleProvider("sk-of-pods"), "-n", in)
	asks := strings.Replace(pod("asks", container("app", idle)), "app: asks", "app: asks, remora.dev/inject: enabled", 1)
	apply(t, asks+"---"+pod("silent", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/asks")
	awaitReady(t, in, "pod/silent")
	wantSidecar(t, in, "app=asks")
	if silent := onePod(t, in, "app=silent"); len(silent.Spec.InitContainers) != 0 || len(silent.Spec.Volumes) != 1 {
		t.Errorf("a pod that did not ask was changed: %+v", silent.Spec)
	}
	shell(t, in, "asks", ask(example, "of one that asks"))
	if r := received(t, atAnybody, "of one that asks"); len(r) != 1 {
		t.Errorf("the provider received %+v", r)
	}
}

func TestAPodThatCannotHaveASidecarRunsAndSaysWhy(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-skipped")
	out := apply(t, pod("host", container("app", idle), "hostNetwork: true"), "-n", in)
	has(t, "kubectl apply", out, "Warning: ", "hostNetwork")
	awaitReady(t, in, "pod/host")
	p := onePod(t, in, "app=host")
	if len(p.Spec.InitContainers) != 0 || p.Labels[v1beta1.InjectedLabel] != "false" || !strings.HasPrefix(p.Annotations[v1beta1.SkipReason], "HostNetwork: ") {
		t.Errorf("the pod is %+v", p)
	}
	eventually(t, "kubectl describe shows the event", func() (string, bool) {
		out := kubectl(t, "-n", in, "describe", "pod", "host")
		return out, strings.Contains(out, "NotInjected") && strings.Contains(out, "hostNetwork")
	})
}

// Those who write Deployments see no pod, and look at what makes it.
func TestWhyAPodIsDeniedStandsAtItsReplicaSet(t *testing.T) {
	t.Parallel()
	open := labelled(t, "e2e-denied")
	baseline := labelled(t, "e2e-denied-baseline", v1beta1.InjectLabel+"="+v1beta1.InjectEnabled, "pod-security.kubernetes.io/enforce=baseline")
	f := func(in, label, annotation string, words ...string) {
		t.Helper()
		name := "denied-" + label
		apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata:
      labels: {app: %[1]s, remora.dev/inject: %q}
      annotations: {%s}
    spec:
      containers: [%s]
`, name, label, annotation, container("app", idle)), "-n", in)
		eventually(t, "kubectl describe rs shows why", func() (string, bool) {
			out := kubectl(t, "-n", in, "describe", "rs", "-l", "app="+name)
			for _, w := range append(words, "FailedCreate") {
				if !strings.Contains(out, w) {
					return out, false
				}
			}
			return out, true
		})
	}
	f(open, "enabled", "", "kubectl label --overwrite namespace e2e-denied remora.dev/inject=pods")
	f(open, "yes", "", `"yes"`, "write enabled or disabled")
	f(baseline, "enabled", "", "NET_ADMIN", "kubectl label --overwrite namespace e2e-denied-baseline pod-security.kubernetes.io/enforce=privileged")
	kubectl(t, "label", "--overwrite", "namespace", baseline, "pod-security.kubernetes.io/enforce=privileged")
	apply(t, strings.Replace(pod("annotated", container("app", idle)), "labels:", `annotations: {remora.dev/ports: "80"}, labels:`, 1), "-n", baseline)
	out, err := cluster.KubectlWith(t.Context(), strings.Replace(pod("annotated-badly", container("app", idle)), "labels:", `annotations: {remora.dev/ports: "80,http"}, labels:`, 1),
		"-n", baseline, "apply", "-f", "-")
	if err == nil {
		t.Errorf("a port that is none was accepted: %s", out)
	}
	has(t, "the refusal", out, "metadata.annotations[remora.dev/ports]", `"http" is not a port`)
}

func TestAPodWith1500EnvironmentVariablesIsLetInAsItIs(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-large")
	apply(t, exampleProvider("sk-of-large"), "-n", in)
	var env strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&env, "{name: V_%d, value: value-%[1]d-~/\\\"}, ", i)
	}
	// Too large for the annotation that kubectl apply would write.
	manifest := pod("large", container("app", idle, "env: ["+strings.ReplaceAll(env.String(), `value: value-`, `value: "value-`)+"]"))
	manifest = strings.ReplaceAll(manifest, `~/\"}`, `~/\""}`)
	if out, err := cluster.KubectlWith(t.Context(), manifest, "-n", in, "create", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	awaitReady(t, in, "pod/large")
	wantSidecar(t, in, "app=large")
	p := onePod(t, in, "app=large")
	for i, e := range p.Spec.Containers[0].Env {
		if want := (corev1.EnvVar{Name: fmt.Sprintf("V_%d", i), Value: fmt.Sprintf(`value-%d-~/"`, i)}); e != want {
			t.Fatalf("variable %d is %+v, want %+v", i, e, want)
		}
	}
	if out := strings.TrimSpace(shell(t, in, "large", "env | grep -c ^V_")); out != "1500" {
		t.Errorf("the app has %s of 1500 variables", out)
	}
	shell(t, in, "large", ask(example, "of the large one"))
}
