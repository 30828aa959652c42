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

// Whoever takes over one of the programs must not be able to have the cluster make tokens of any account for it, nor to give what it may
// to others.
func TestTheProgramsMakeNothingButWhatIsTheirs(t *testing.T) {
	n := newTenant(t, installed)
	refused := func(account, namespace, manifest string) {
		t.Helper()
		await(t, "a refusal", func() (string, bool) {
			out, err := n.KubectlWith(t.Context(), manifest, "-n", namespace, "create", "-f", "-", "--as=system:serviceaccount:"+v1beta1.InstallationNamespace+":"+account, "--as-group=system:masters")
			return out, err != nil && (strings.Contains(out, account+" makes no") || strings.Contains(out, account+" writes no"))
		})
	}
	const rbac = "apiVersion: rbac.authorization.k8s.io/v1, "
	role := func(rule string) string {
		return "{" + rbac + "kind: Role, metadata: {name: remora-sidecar}, rules: [{verbs: [list], apiGroups: [istio.alibabacloud.com], resources: [llmroutes]}, " + rule + "]}"
	}
	binding := func(kind, subject string) string {
		return "{" + rbac + "kind: RoleBinding, metadata: {name: remora-sidecar}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: " + kind + ", name: remora-sidecar}, subjects: [" + subject + "]}"
	}
	for _, manifest := range []string{
		"{apiVersion: v1, kind: Secret, metadata: {name: other, annotations: {kubernetes.io/service-account.name: default}}, type: kubernetes.io/service-account-token}",
		"{apiVersion: v1, kind: Secret, metadata: {name: remora-sidecar-access, annotations: {kubernetes.io/service-account.name: default}}, type: kubernetes.io/service-account-token}",
		"{apiVersion: v1, kind: Secret, metadata: {generateName: remora-sidecar-}}",
		"{apiVersion: v1, kind: ServiceAccount, metadata: {name: other}}",
		"{" + rbac + "kind: Role, metadata: {name: other}}",
		"{" + rbac + "kind: RoleBinding, metadata: {name: other}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}",
		role(`{verbs: [list], apiGroups: [""], resources: [secrets]}`),
		role(`{verbs: [get], apiGroups: [""], resources: [secrets], resourceNames: [remora-sidecar-keys, other]}`),
		role(`{verbs: ["*"], apiGroups: [istio.alibabacloud.com], resources: [llmproviders]}`),
		role(`{verbs: [list], apiGroups: ["*"], resources: [llmproviders]}`),
		role(`{verbs: [watch], apiGroups: [istio.alibabacloud.com, ""], resources: [llmproviders, secrets]}`),
		role(`{verbs: [list], apiGroups: [""], resources: [services, secrets]}`),
		role(`{verbs: [list], apiGroups: [""], resources: [pods]}`),
		role(`{verbs: [get], apiGroups: [""], resources: [services]}`),
		role(`{verbs: [list], apiGroups: [discovery.k8s.io, ""], resources: [endpointslices]}`),
		role(`{verbs: [list], apiGroups: [networking.istio.io], resources: [virtualservices, gateways]}`),
		role(`{verbs: [list], apiGroups: [inference.networking.k8s.io, ""], resources: [inferencepools]}`),
		"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: other}, addressType: IPv4, endpoints: []}",
		"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: other, labels: {remora.dev/servers: subset, kubernetes.io/service-name: chat}}, addressType: IPv4, endpoints: []}",
		binding("ClusterRole", "{kind: ServiceAccount, name: remora-sidecar, namespace: "+n.namespace+"}"),
		binding("Role", "{kind: ServiceAccount, name: remora-sidecar, namespace: elsewhere}"),
		binding("Role", "{kind: ServiceAccount, name: default, namespace: "+n.namespace+"}"),
		binding("Role", "{kind: User, apiGroup: rbac.authorization.k8s.io, name: remora-sidecar}"),
	} {
		refused(v1beta1.ControllerName, n.namespace, manifest)
	}
	for _, manifest := range []string{
		"{apiVersion: v1, kind: Secret, metadata: {name: other}}",
		"{apiVersion: v1, kind: Secret, metadata: {generateName: remora-webhook-ca}}",
		"{apiVersion: v1, kind: Secret, metadata: {name: remora-webhook-ca, annotations: {kubernetes.io/service-account.name: remora-controller}}, type: kubernetes.io/service-account-token}",
	} {
		refused(v1beta1.WebhookName, v1beta1.InstallationNamespace, manifest)
	}
	n.kubectl(t, "create", "secret", "generic", "other") // by others, what they may

	// What it has made it cannot turn into something else.
	n.kubectl(t, append([]string{"create", "role", "remora-sidecar", "--verb=list", "--resource=llmroutes.istio.alibabacloud.com"}, installation.AsController()...)...)
	patch := []string{"-n", n.namespace, "patch", "role", "remora-sidecar", "--type=merge", "-p", `{"rules":[{"verbs":["list"],"apiGroups":[""],"resources":["secrets"]}]}`}
	if out, err := n.Kubectl(t.Context(), append(patch, installation.AsController()...)...); err == nil || !strings.Contains(out, "remora-controller makes no Role with more") {
		t.Errorf("%v\n%s", err, out)
	}
}
