//go:build linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
)

const (
	everything = root + "/config/default"
	system     = v1beta1.InstallationNamespace
)

// It is the first of all tests, because it ends with an installation that the others use.
func TestAnInstallation(t *testing.T) {
	t.Run("RunsAsItSays", runsAsItSays)
	t.Run("RefusesWarnsAndReports", refusesWarnsAndReports)
	t.Run("TakesOtherImagesAfterItsPoliciesWereMadeAnew", takesOtherImagesAfterItsPoliciesWereMadeAnew)
	t.Run("IsDeletedWithNothingLeft", func(t *testing.T) {
		uninstall(t)
		eventually(t, "the cluster is as it was before", func() (string, bool) {
			after, err := leftovers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return difference(before, after), slices.Equal(before, after)
		})
	})
	t.Run("IsInstalledAgainByAPlainApply", func(t *testing.T) {
		took, err := install(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Log(took)
	})
	if t.Failed() {
		t.Log(diagnosis(system))
	}
}

// install does what the README says, and awaits what it says to await. Sidecars are to trust the tests' providers.
func install(ctx context.Context, args ...string) (took string, err error) {
	began := time.Now()
	run := func(args ...string) {
		if err == nil {
			var out string
			if out, err = cluster.Kubectl(ctx, args...); err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
		}
	}
	run(append([]string{"apply", "-k", everything}, args...)...)
	applied := time.Since(began)
	run("-n", system, "create", "configmap", v1beta1.TrustedCAs, "--from-literal="+v1beta1.TrustedCAsKey+"="+string(authority.Certificate))
	run("-n", system, "wait", "--for=condition=Available", "deployment", "--all", "--timeout="+patience.String())
	if err != nil {
		out, _ := cluster.Kubectl(ctx, "-n", system, "get", "pods,events")
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return fmt.Sprintf("kubectl apply took %v; all was available after %v", applied.Round(time.Millisecond), time.Since(began).Round(time.Millisecond)), err
}

func uninstall(t *testing.T) {
	t.Helper()
	began := time.Now()
	kubectl(t, "delete", "-k", everything, "--timeout="+patience.String())
	t.Logf("kubectl delete took %v", time.Since(began).Round(time.Millisecond))
}

// leftovers are the objects that an installation could leave: all of the cluster's own, and those in namespaces where pods
// and tests do not come and go. The namespaces of these tests stay, and the DNS, which was restarted, ends its old pod.
func leftovers(ctx context.Context) (all []string, err error) {
	lines := func(args ...string) []string {
		out, failed := cluster.Kubectl(ctx, args...)
		if failed != nil {
			err = fmt.Errorf("%w: %s", failed, out)
		}
		return strings.Split(strings.TrimSpace(out), "\n")
	}
	kinds := func(namespaced string) string {
		return strings.Join(lines("api-resources", "--namespaced="+namespaced, "--verbs=list", "--output=name"), ",")
	}
	all = lines("get", kinds("false"), "--output=name", "--ignore-not-found")
	for _, namespace := range []string{"default", "kube-system"} {
		all = append(all, lines("-n", namespace, "get", kinds("true"), "--output=name", "--ignore-not-found")...)
	}
	all = slices.DeleteFunc(all, func(line string) bool {
		return line == "" || strings.HasPrefix(line, "namespace/e2e-") || strings.HasPrefix(line, "event") || strings.Contains(line, "/coredns-")
	})
	slices.Sort(all)
	return all, err
}

func difference(before, after []string) string {
	var said strings.Builder
	for _, name := range after {
		if !slices.Contains(before, name) {
			fmt.Fprintln(&said, "left:", name)
		}
	}
	for _, name := range before {
		if !slices.Contains(after, name) {
			fmt.Fprintln(&said, "gone:", name)
		}
	}
	return said.String()
}

func runsAsItSays(t *testing.T) {
	if got := kubectl(t, "get", "namespace", system, "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`); got != "restricted" {
		t.Errorf("the namespace enforces the standard %q", got)
	}
	for _, name := range []string{v1beta1.WebhookName, v1beta1.ControllerName} {
		pods := pods(t, name)
		if len(pods) != 2 {
			t.Errorf("%s has the pods %v; want two", name, pods)
		}
		for _, pod := range pods {
			if restarts := kubectl(t, "-n", system, "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[*].restartCount}"); restarts != "0" {
				t.Errorf("%s was restarted %s times", pod, restarts)
			}
			// Nothing else than the program is in its image, so nothing else can be run in it.
			if out, err := cluster.Kubectl(t.Context(), "-n", system, "exec", pod, "--", "/bin/sh", "-c", "id"); err == nil || !strings.Contains(out, "no such file") {
				t.Errorf("a shell in %s: %v, %s", pod, err, out)
			}
		}
	}
}

// pods are those of a Deployment that are not being deleted.
func pods(t *testing.T, deployment string) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "-n", system, "get", "pods", "-l", "app.kubernetes.io/name="+deployment, "-o",
		`go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}`))
}

func refusesWarnsAndReports(t *testing.T) {
	in := namespace(t, "e2e-people")
	try := func(manifest string) (string, error) {
		return cluster.KubectlWith(t.Context(), manifest, "-n", in, "apply", "-f", "-")
	}

	out, err := try(strings.Replace(provider, "path: /v1", "path: v1", 1))
	if err == nil {
		t.Errorf("a path without its slash was accepted: %s", out)
	}
	has(t, "the refusal", out, "spec.path")
	out, err = try(strings.Replace(provider, "apiKeyRef: {name: there-is-none}", "apiKey: sk-x\n        apiKeyRef: {name: there-is-none}", 1))
	if err == nil {
		t.Errorf("two keys were accepted: %s", out)
	}
	has(t, "the refusal", out, "apiKeyRef")
	out, err = try(route)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	has(t, "kubectl apply", out, "Warning: ", "spec.rules[0].backendRefs[0].providerHost", "api.example.com", "llmroute.istio.alibabacloud.com/chat created")
	if out, err = try(provider); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = try(strings.Replace(provider, "name: example", "name: second", 1))
	if err == nil {
		t.Errorf("a second provider of the same host was accepted: %s", out)
	}
	has(t, "the refusal", out, `The LLMProvider "second" is invalid`, "spec.host", in+"/example")

	kubectl(t, "-n", in, "wait", "--for=condition=Accepted", "llmproviders,llmroutes", "--all", "--timeout="+patience.String())
	out = kubectl(t, "-n", in, "get", "llm")
	t.Logf("kubectl get llm:\n%s", out)
	has(t, "kubectl get llm", out, "api.example.com", "HOST", "ACCEPTED", "RESOLVED")
	out = kubectl(t, "-n", in, "describe", "llmprovider", "example")
	t.Logf("kubectl describe llmprovider:\n%s", out)
	has(t, "kubectl describe", out, "SecretNotFound", "there-is-none", "remora-controller")

	kubectl(t, "-n", in, "create", "secret", "generic", "there-is-none", "--from-literal=apiKey=sk-now-there-is")
	kubectl(t, "-n", in, "wait", "--for=condition=ResolvedRefs", "llmproviders,llmroutes", "--all", "--timeout="+patience.String())
	if out := kubectl(t, "-n", in, "get", "llm,events", "-o", "yaml"); strings.Contains(out, "sk-now-there-is") {
		t.Errorf("a key is shown:\n%s", out)
	}
}

const (
	provider = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: example}
spec:
  host: api.example.com
  path: /v1/chat/completions
  configs:
    defaultConfig:
      openAIConfig:
        model: small
        apiKeyRef: {name: there-is-none}
`
	route = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: chat}
spec:
  host: chat
  rules:
  - backendRefs:
    - providerHost: api.example.com
`
)
