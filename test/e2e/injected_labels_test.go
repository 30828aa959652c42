//go:build linux

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
)

func TestAPodsLabelsAreLive(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-labels")
	apply(t, `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: example}
spec:
  host: `+example+`
  workloadSelector: {labels: {team: research}}
  configs:
    defaultConfig: {openAIConfig: {model: small}}
    routeSpecificConfigs: {gold: {openAIConfig: {model: large}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: example}
spec:
  host: `+example+`
  rules:
  - name: gold
    matches: [{sourceLabels: {tier: gold}}]
    backendRefs: [{providerHost: `+example+`}]
  - backendRefs: [{providerHost: `+example+`}]
`, "-n", in)
	apply(t, pod("app", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/app")
	shows := func(what string, words ...string) {
		t.Helper()
		began := time.Now()
		eventually(t, what, func() (string, bool) {
			out := shell(t, in, "pod/app", "curl --silent --show-error --write-out ' %{http_code}' http://"+example+" --data '"+question(what)+"'")
			for _, w := range words {
				if !strings.Contains(out, w) {
					return out, false
				}
			}
			return out, true
		})
		t.Logf("%s: %v", what, time.Since(began).Round(time.Millisecond))
	}
	// A pod that no provider is for must not send its prompt out either.
	shows("no provider is for this pod", `"error"`, " 403")
	if r := received(t, atAnybody, "no provider is for this pod"); len(r) != 0 {
		t.Errorf("the provider received %+v", r)
	}
	kubectl(t, "-n", in, "label", "pod", "app", "team=research")
	shows("the workloadSelector matches", `"model":"small"`, " 200")
	kubectl(t, "-n", in, "label", "pod", "app", "tier=gold")
	shows("the sourceLabels match", `"model":"large"`, " 200")
	kubectl(t, "-n", in, "label", "pod", "app", "team-")
	shows("the workloadSelector does not match any more", `"error"`, " 403")
	for _, s := range onePod(t, in, "app=app").Status.InitContainerStatuses {
		if s.RestartCount != 0 {
			t.Errorf("%s was restarted", s.Name)
		}
	}
}

func TestANamespaceWithoutLabelLosesOursAfterItsLastPodAndNothingElse(t *testing.T) {
	t.Parallel()
	in := labelled(t, "e2e-leaving")
	kubectl(t, "-n", in, "create", "serviceaccount", "of-the-user")
	kubectl(t, "-n", in, "create", "secret", "generic", "of-the-user", "--from-literal=a=b")
	kubectl(t, "-n", in, "create", "role", "of-the-user", "--verb=get", "--resource=pods")
	objects := func() []string {
		out := kubectl(t, "-n", in, "get", "serviceaccounts,secrets,roles,rolebindings,configmaps", "-o", "name")
		all := strings.Fields(out)
		slices.Sort(all)
		return all
	}
	eventually(t, "Kubernetes has made its own objects", func() (string, bool) {
		all := strings.Join(objects(), " ")
		return all, strings.Contains(all, "serviceaccount/default") && strings.Contains(all, "configmap/kube-root-ca.crt")
	})
	before := objects()
	ours := []string{"rolebinding.rbac.authorization.k8s.io/" + v1beta1.SidecarName, "role.rbac.authorization.k8s.io/" + v1beta1.SidecarName,
		"secret/" + v1beta1.AccessSecret, "secret/" + v1beta1.KeysSecret, "serviceaccount/" + v1beta1.SidecarName}
	with := append(slices.Clone(before), ours...)
	slices.Sort(with)

	kubectl(t, "label", "namespace", in, v1beta1.InjectLabel+"="+v1beta1.InjectEnabled)
	eventually(t, "what sidecars need is there", func() (string, bool) {
		return difference(with, objects()), slices.Equal(with, objects())
	})
	apply(t, exampleProvider("sk-of-leaving"), "-n", in)
	apply(t, pod("last", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/last")
	kubectl(t, "label", "namespace", in, v1beta1.InjectLabel+"-")
	apply(t, pod("without", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/without")
	if p := onePod(t, in, "app=without"); len(p.Spec.InitContainers) != 0 {
		t.Errorf("a pod of an unlabelled namespace has %+v", p.Spec.InitContainers)
	}
	// Longer than the time for which a namespace keeps all of it anyway: its pod is what matters from then on.
	kept := time.Now().Add(15 * time.Second)
	eventually(t, "some time with one injected pod left has passed", func() (string, bool) {
		if !slices.Equal(with, objects()) {
			t.Fatalf("with an injected pod left:\n%s", difference(with, objects()))
		}
		return "", time.Now().After(kept)
	})
	kubectl(t, "-n", in, "patch", "llmprovider", "example", "--type=merge", "--patch", `{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"changed"}}}}}`)
	eventually(t, "the pod that is left follows changes", func() (string, bool) {
		out := shell(t, in, "pod/last", ask(example, "of the last pod"))
		return out, strings.Contains(out, `"model":"changed"`)
	})
	kubectl(t, "-n", in, "delete", "pod", "last")
	began := time.Now()
	eventually(t, "ours are gone, and nothing else", func() (string, bool) {
		return difference(before, objects()), slices.Equal(before, objects())
	})
	t.Logf("gone %v after the last pod", time.Since(began).Round(time.Millisecond))
}
