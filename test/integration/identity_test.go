package integration

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/installation"
	"remora.dev/remora/test/llmserver"
)

func providerWithKey(t *testing.T, p *llmserver.Server, secret string) string {
	t.Helper()
	return strings.Replace(providerOf(t, p, "keyed", dashscope, "qwen-turbo"), "model: qwen-turbo", "model: qwen-turbo, apiKeyRef: {name: "+secret+"}", 1)
}

func keySecret(name, value string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData: {apiKey: %s}\n", name, value)
}

// What a sidecar is given here is the content of the two Secrets, by the rights that config/rbac gives to the controller.
func TestALabelIsAllThatASidecarNeeds(t *testing.T) {
	p := newProvider(t, llmserver.Options{})
	n := newTenant(t, installed)
	n.kubectl(t, "label", "namespace", n.namespace, v1beta1.InjectLabel+"="+v1beta1.InjectEnabled)
	n.apply(t, providerWithKey(t, p, "account")+keySecret("account", "sk-first"))
	text := await(t, "a token", func() (string, bool) {
		out, err := n.Kubectl(t.Context(), "-n", n.namespace, "get", "secret", v1beta1.AccessSecret, "-o", "jsonpath={.data.token}")
		return out, err == nil && out != ""
	})
	token, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	s := n.describe(t, p)
	// In place of the one that the sidecars of other tests have.
	if kubeconfig, err := n.TokenKubeconfig(n.namespace+"-"+v1beta1.SidecarName, string(token)); err != nil || kubeconfig != s.Kubeconfig {
		t.Fatal(kubeconfig, err)
	}
	s.start(t)
	credentials := func() string {
		t.Helper()
		p.Reset()
		a := s.mustAsk(t, dashscope)
		if got := p.Requests(); len(got) == 1 {
			return got[0].Header.Get("Authorization")
		}
		return a.code
	}
	await(t, "the key", func() (string, bool) { got := credentials(); return got, got == "Bearer sk-first" })

	// From a user's own Secret to what the provider gets.
	for i := range 5 {
		next := fmt.Sprintf("sk-%d", i)
		n.apply(t, keySecret("account", next))
		applied := time.Now()
		await(t, "the next key", func() (string, bool) { got := credentials(); return got, got == "Bearer "+next })
		t.Logf("a changed key reached the provider within %s", time.Since(applied).Round(time.Millisecond))
	}
	n.kubectl(t, "delete", "secret", "account")
	await(t, "the key's end", func() (string, bool) { got := credentials(); return got, got == "SecretNotFound" })

	n.kubectl(t, "label", "namespace", n.namespace, v1beta1.InjectLabel+"-")
	await(t, "the end of access", func() (string, bool) {
		out, err := n.Kubectl(t.Context(), "-n", n.namespace, "get", "serviceaccounts,roles,rolebindings,secrets", "-o", "name")
		return out, err == nil && !strings.Contains(out, "remora-sidecar")
	})
}

// Whoever takes over the controller must not be able to have the cluster make tokens of any account for it.
func TestTheControllerMakesNothingButWhatSidecarsNeed(t *testing.T) {
	n := newTenant(t, installed)
	as := installation.AsController()
	refused := func(manifest string) {
		t.Helper()
		await(t, "a refusal", func() (string, bool) {
			out, err := n.KubectlWith(t.Context(), manifest, append([]string{"-n", n.namespace, "create", "-f", "-"}, as...)...)
			return out, err != nil && strings.Contains(out, "remora-controller makes no")
		})
	}
	refused("{apiVersion: v1, kind: Secret, metadata: {name: other, annotations: {kubernetes.io/service-account.name: default}}, type: kubernetes.io/service-account-token}")
	refused("{apiVersion: v1, kind: Secret, metadata: {name: remora-sidecar-access, annotations: {kubernetes.io/service-account.name: default}}, type: kubernetes.io/service-account-token}")
	refused("{apiVersion: v1, kind: Secret, metadata: {generateName: remora-sidecar-}}")
	refused("{apiVersion: v1, kind: ServiceAccount, metadata: {name: other}}")
	refused("{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: other}}")
	refused("{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: other}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}")
	n.kubectl(t, "create", "secret", "generic", "other") // by others, what they may
}
