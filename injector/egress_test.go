package injector_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"remora.dev/remora/injector"
)

func egressSettings(env string) string {
	return `
template:
  spec:
    initContainers: [{name: remora-redirect, image: redirect:1}]
    containers:
    - name: remora-sidecar
      image: sidecar:1
      resources: {limits: {memory: 128Mi}}
      env: ` + env + "\n"
}

func TestTheSidecarIsLedOutOfTheNetworkAndNobodyElseSaysHow(t *testing.T) {
	s, errs := injector.ParseSettings(templateOf(t, egressSettings(`
      - {name: HTTPS_PROXY, value: "http://user:hunter2@proxy.corp:3128"}
      - {name: NO_PROXY, value: ".svc,.cluster.local,10.0.0.0/8"}`)))
	if len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	pod := mustInject(t, podOf(t, busyPod), s)
	want := []corev1.EnvVar{
		{Name: "GOMEMLIMIT", Value: fmt.Sprint(128 << 20 / 8 * 7)},
		{Name: "HTTPS_PROXY", Value: "http://user:hunter2@proxy.corp:3128"},
		{Name: "NO_PROXY", Value: ".svc,.cluster.local,10.0.0.0/8"},
	}
	same(t, "the sidecar's environment", pod.Spec.InitContainers[1].Env[:3], want)
	for _, c := range append(slices.Clone(pod.Spec.Containers), pod.Spec.InitContainers[0]) {
		if slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "HTTPS_PROXY" }) {
			t.Errorf("%s has the proxy too", c.Name)
		}
	}
	same(t, "a second injection", mustInject(t, pod, s), pod)
	if errs := injector.Judge(pod, labelled, s); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
	for name, alter := range map[string]func(c *corev1.Container){
		"another proxy": func(c *corev1.Container) { c.Env[1].Value = "http://evil.example:3128" },
		"no proxy":      func(c *corev1.Container) { c.Env = c.Env[:1] },
		"one from a Secret": func(c *corev1.Container) {
			c.Env[1] = corev1.EnvVar{Name: "HTTPS_PROXY", ValueFrom: &corev1.EnvVarSource{}}
		},
		"more is excepted":   func(c *corev1.Container) { c.Env[2].Value = "*" },
		"a second of a name": func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "HTTPS_PROXY", Value: "x"}) },
		"in lower case":      func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "https_proxy", Value: "x"}) },
	} {
		altered := pod.DeepCopy()
		alter(&altered.Spec.InitContainers[1])
		errs := fmt.Sprint(injector.Judge(altered, labelled, s))
		if !strings.Contains(errs, "spec.initContainers[1].env") || strings.Contains(errs, "hunter2") {
			t.Errorf("%s: %s", name, errs)
		}
	}
	own := pod.DeepCopy() // by a pod's author, before the injection
	own.Spec.InitContainers[1].Env = []corev1.EnvVar{{Name: "HTTPS_PROXY", Value: "http://evil.example:3128"}}
	same(t, "what is made of a pod's own environment", mustInject(t, own, s).Spec.InitContainers[1].Env, pod.Spec.InitContainers[1].Env)
}

func TestAnEnvironmentThatLeadsNowhereIsRefusedWithoutShowingAPassword(t *testing.T) {
	for env, want := range map[string]string{
		`[{name: HTTP_PROXY, value: "http://proxy.corp"}]`:                                               `env[0].name: Unsupported value: "HTTP_PROXY": supported values: "HTTPS_PROXY", "NO_PROXY"`,
		`[{name: SSL_CERT_FILE, value: /x}]`:                                                             `env[0].name: Unsupported value: "SSL_CERT_FILE"`,
		`[{name: HTTPS_PROXY}]`:                                                                          "env[0].value: Forbidden: it is not the URL of a proxy: write http://HOST:PORT",
		`[{name: HTTPS_PROXY, value: "socks5://u:hunter2@proxy.corp"}]`:                                  "env[0].value: Forbidden: it has the scheme socks5",
		`[{name: HTTPS_PROXY, value: "http://u:hunter2$(A)@proxy.corp"}]`:                                "env[0].value: Forbidden: Kubernetes would replace $(…)",
		`[{name: HTTPS_PROXY, valueFrom: {secretKeyRef: {name: a, key: b}}}]`:                            "env[0].valueFrom: Forbidden: write the value",
		`[{name: HTTPS_PROXY, value: "http://a:1"}, {name: HTTPS_PROXY, value: "http://u:hunter2@a:1"}]`: `env[1].name: Duplicate value: "HTTPS_PROXY"`,
		`[{name: NO_PROXY, valueFrom: {configMapKeyRef: {name: a, key: b}}}]`:                            "env[0].valueFrom: Forbidden",
	} {
		_, errs := injector.ParseSettings(templateOf(t, egressSettings(env)))
		if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), "template.spec.containers[0]."+want) || strings.Contains(errs[0].Error(), "hunter2") {
			t.Errorf("%s: %v; want %s", env, errs, want)
		}
	}
}
