package integration

import (
	"fmt"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
)

// A team uses a provider that those who run Remora have exported to it, and can read neither it nor its key where they are.
func TestATeamUsesAnExportedProviderAndCannotReadIt(t *testing.T) {
	t.Parallel()
	const system = v1beta1.InstallationNamespace
	k := newKeyedTenant(t, installed)
	team := "team-of-" + k.namespace
	k.kubectl(t, "create", "rolebinding", "edit", "--clusterrole=edit", "--user="+team)
	k.kubectl(t, "create", "rolebinding", "llm-editor", "--clusterrole=llm-editor", "--user="+team)
	inSystem := func(manifest string) {
		t.Helper()
		if out, err := k.KubectlWith(t.Context(), manifest, "apply", "-f", "-"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	name := "shared-with-" + k.namespace
	inSystem(fmt.Sprintf(`
{apiVersion: v1, kind: Secret, metadata: {name: %[1]s, namespace: %[2]s}, stringData: {apiKey: sk-shared}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: %[1]s, namespace: %[2]s}
spec: {host: %[3]s, port: %[4]s, exportTo: [%[5]s], configs: {defaultConfig: {openAIConfig: {model: shared-model, apiKeyRef: {name: %[1]s}}}}}
`, name, system, dashscope, portOf(t, k.provider), k.namespace))
	t.Cleanup(func() {
		_, _ = k.Kubectl(t.Context(), "-n", system, "delete", "llmprovider/"+name, "secret/"+name, "--ignore-not-found")
	})
	const route = "{apiVersion: istio.alibabacloud.com/v1beta1, kind: LLMRoute, metadata: {name: chat}, spec: {host: chat-for-all, rules: [{backendRefs: [{providerHost: " + dashscope + "}]}]}}"
	await(t, "the team's route to be admitted without a warning", func() (string, bool) {
		out, err := k.tryApply(t, route, "--as="+team)
		return out, err == nil && !strings.Contains(out, "Warning") || strings.Contains(out, "unchanged")
	})
	k.awaitOutput(t, "ResolvedRefs", "get", "llmroute", "chat", "-o", "jsonpath={.status.conditions[?(@.status=='True')].reason}", "--as="+team)

	s := k.follower(t)
	s.start(t)
	shown := s.awaitConfig(t, "LLMProvider "+system+"/"+name)
	if strings.Contains(shown, "sk-shared") {
		t.Error("the key is shown")
	}
	for _, host := range []string{"chat-for-all", dashscope} {
		before := k.times("sk-shared")
		if a := s.mustAsk(t, host); a.status != 200 || a.model != "shared-model" {
			t.Errorf("%s answers %+v", host, a)
		}
		await(t, "the key at the provider", func() (string, bool) { return "", k.times("sk-shared") > before }) // it tells after its answer
	}

	// It can read neither where they are. Its own remora-sidecar-keys it can, as every Secret of its namespace.
	for _, args := range []string{
		"get llmproviders", "get llmprovider " + name, "get llmproviders --watch", "get secrets", "get secret " + name, "get secrets --watch",
		"get secret " + v1beta1.KeysSecret, "get secret " + v1beta1.WebhookCASecret,
	} {
		out, err := k.Kubectl(t.Context(), append(strings.Fields(args), "-n", system, "--as="+team, "--request-timeout=10s")...)
		if err == nil || !strings.Contains(out, "Forbidden") && !strings.Contains(out, "forbidden") || strings.Contains(out, "sk-") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	if out := k.kubectl(t, "get", "llmproviders", "--as="+team); strings.Contains(out, name) {
		t.Errorf("in its own namespace it lists\n%s", out)
	}

	// A provider of its own for the host goes first, and the exported one comes back after it.
	k.apply(t, providerOf(t, k.provider, "own", dashscope, "own-model"), "--as="+team)
	await(t, "the team's own provider", func() (string, bool) {
		a := s.mustAsk(t, dashscope)
		return fmt.Sprintf("%+v", a), a.model == "own-model"
	})
	k.kubectl(t, "delete", "llmprovider", "own", "--as="+team)
	await(t, "the exported provider", func() (string, bool) {
		a := s.mustAsk(t, "chat-for-all")
		return fmt.Sprintf("%+v", a), a.model == "shared-model"
	})

	// Its key goes, and then it is withdrawn: no call passes in plain text.
	inSystem("{apiVersion: v1, kind: Secret, metadata: {name: " + name + ", namespace: " + system + "}, stringData: {apiKey: sk-rotated}}")
	k.awaitKey(t, "sk-rotated", s)
	if out, err := k.Kubectl(t.Context(), "-n", system, "delete", "secret", name); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	k.awaitRefused(t, s)
	if out, err := k.Kubectl(t.Context(), "-n", system, "patch", "llmprovider", name, "--type=merge", "-p", `{"spec":{"exportTo":["."]}}`); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	await(t, "its end", func() (string, bool) {
		a := s.mustAsk(t, "chat-for-all")
		return fmt.Sprintf("%+v", a), a.code == "ProviderNotFound"
	})
}
