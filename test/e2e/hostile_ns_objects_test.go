//go:build linux

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
)

// written tries what can be done to the objects of the sidecars, and by others to their rights.
func (e *editor) written(t *testing.T) {
	t.Helper()
	f := func(name, manifest string, words ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			e.attempt(t)
			_, err := e.create(t, manifest)
			denied(t, err, words...)
		})
	}
	g := func(name, object, patch string, words ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			e.attempt(t)
			denied(t, e.patch(t, object, patch), words...)
		})
	}
	secrets := e.client.CoreV1().Secrets(e.in)
	const roles, unread = "rbac.authorization.k8s.io/v1", "may not get it"
	const ours = "belongs to Remora's controller, which alone writes it"

	// The API server answers a write with the whole object.
	inForeground := metav1.DeletePropagationForeground
	trial := []string{metav1.DryRunAll}
	for name, try := range map[string]func(secret string) error{
		"a patch that changes nothing": func(secret string) error {
			_, err := secrets.Patch(t.Context(), secret, types.MergePatchType, []byte(`{"metadata":{"annotations":{"a":"b"}}}`), metav1.PatchOptions{DryRun: trial})
			return err
		},
		"a delete that waits": func(secret string) error { // the typed client does not look at the answer
			return e.client.CoreV1().RESTClient().Delete().AbsPath("/api/v1/namespaces/" + e.in + "/secrets/" + secret).
				Body(&metav1.DeleteOptions{DryRun: trial, PropagationPolicy: &inForeground}).Do(t.Context()).Error()
		},
		"a delete of all": func(secret string) error {
			return secrets.DeleteCollection(t.Context(), metav1.DeleteOptions{DryRun: trial}, metav1.ListOptions{FieldSelector: "metadata.name=" + secret})
		},
	} {
		t.Run("see the keys in the answer to "+name, func(t *testing.T) {
			e.attempt(t)
			for _, secret := range []string{v1beta1.KeysSecret, v1beta1.AccessSecret} {
				denied(t, try(secret), secret+" holds keys", unread, "Remedy: ")
			}
			e.isSeen(t, func() error { return try("decoy") })
		})
	}
	t.Run("write over the Secret", func(t *testing.T) {
		e.attempt(t)
		_, err := e.kubectlWith(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: remora-sidecar-keys}\nstringData: {mine: x}", "apply", "--server-side", "--force-conflicts", "-f", "-")
		denied(t, err, "secrets/remora-sidecar-keys "+ours, "Remedy: ")
	})
	t.Run("read Secrets", func(t *testing.T) {
		e.attempt(t)
		for _, verb := range []string{"get", "list", "watch"} {
			request := e.client.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/" + e.in + "/secrets")
			switch verb {
			case "get":
				request.Name(v1beta1.KeysSecret)
			case "watch":
				request.Param("watch", "true")
			}
			denied(t, request.Do(t.Context()).Error(), "cannot "+verb+` resource "secrets"`)
		}
	})

	token := func(account string) error {
		_, err := e.client.CoreV1().ServiceAccounts(e.in).CreateToken(context.WithoutCancel(t.Context()), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		return err
	}
	t.Run("ask for a token of the account", func(t *testing.T) {
		e.attempt(t)
		denied(t, token(v1beta1.SidecarName), "only Remora's controller asks for tokens", "Remedy: ")
		if err := token("default"); err != nil {
			t.Errorf("one of another account: %v", err)
		}
	})
	f("have the cluster fill a Secret with a token of the account",
		"{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: filled, annotations: {kubernetes.io/service-account.name: remora-sidecar}}}",
		"whose tokens read the keys", "Remedy: ")
	t.Run("have a filled Secret change over to the account", func(t *testing.T) {
		e.attempt(t)
		if _, err := e.create(t, "{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {generateName: filled-, annotations: {kubernetes.io/service-account.name: default}}}", metav1.DryRunAll); err != nil {
			t.Errorf("one of another account: %v", err)
		}
		denied(t, e.patch(t, "v1 Secret of-default", "metadata: {annotations: {kubernetes.io/service-account.name: remora-sidecar}}"), "whose tokens read the keys")
	})
	t.Run("be the account", func(t *testing.T) {
		e.attempt(t)
		_, err := e.kubectl(t, "--as=system:serviceaccount:"+e.in+":remora-sidecar", "get", "secret", v1beta1.KeysSecret, "-o", "yaml")
		denied(t, err, "cannot impersonate")
	})

	g("let the Role read more", roles+" Role remora-sidecar", `rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]`, "roles/remora-sidecar "+ours, "Remedy: ")
	g("join the RoleBinding", roles+" RoleBinding remora-sidecar", "subjects: [{kind: ServiceAccount, name: default, namespace: "+e.in+"}]", "emora-sidecar") // RBAC or ours, whichever is first
	g("let the account pull with another Secret", "v1 ServiceAccount remora-sidecar", "imagePullSecrets: [{name: mine}]", "serviceaccounts/remora-sidecar "+ours)
	const bind = "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {generateName: attempt-}, "
	f("bind the Role to an account of one's own", bind+"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: remora-sidecar}, subjects: [{kind: ServiceAccount, name: default, namespace: "+e.in+"}]}",
		"attempting to grant RBAC permissions not currently held")
	f("make a Role that reads the Secret", `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: attempt}, rules: [{apiGroups: [""], resources: [secrets], resourceNames: [remora-sidecar-keys], verbs: [get]}]}`,
		"attempting to grant RBAC permissions not currently held")
	for what, subject := range map[string]string{
		"":           "{kind: ServiceAccount, name: remora-sidecar, namespace: " + e.in + "}",
		" as a user": `{kind: User, apiGroup: rbac.authorization.k8s.io, name: "system:serviceaccount:` + e.in + `:remora-sidecar"}`,
	} {
		f("lend the account rights of one's own"+what, bind+"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: editor}, subjects: ["+subject+"]}",
			"gets no further rights", "Remedy: ")
	}

	t.Run("delete the account and its rights, and make them anew", func(t *testing.T) {
		e.attempt(t)
		for _, o := range []string{
			"{apiVersion: v1, kind: ServiceAccount, metadata: {name: remora-sidecar}, imagePullSecrets: [{name: mine}]}",
			`{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: remora-sidecar}, rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]}`,
			"{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: remora-sidecar}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: editor}, subjects: [{kind: ServiceAccount, name: default, namespace: " + e.in + "}]}",
		} {
			kind := strings.Fields(o)[3]
			if out, err := e.kubectl(t, "delete", strings.ToLower(strings.TrimSuffix(kind, ",")), "remora-sidecar"); err != nil {
				t.Fatal(out, err)
			}
			_, err := e.create(t, o)
			denied(t, err, "remora-sidecar") // ours, or it is there again
			if strings.Contains(err.Error(), "already exists") {
				continue
			}
			has(t, "the refusal", err.Error(), ours, "Remedy: ")
		}
	})
}

// isSeen shows that an attempt shows what it is after where it is let in.
func (e *editor) isSeen(t *testing.T, try func() error) {
	t.Helper()
	if n := e.keys(); n > 0 {
		t.Errorf("%d keys or tokens were shown", n)
	}
	if err := try(); err != nil {
		t.Errorf("the same of another Secret: %v", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !strings.Contains(e.seen.String(), decoyShown) {
		t.Errorf("the same of another Secret does not show it:\n%s", e.seen.String())
	}
}

// beyond tries what is outside of the namespace, or its own to read only.
func (e *editor) beyond(t *testing.T, provider string) {
	t.Helper()
	for name, try := range map[string]struct {
		args  []string
		words string
	}{
		"relabel the namespace":                    {[]string{"label", "namespace", e.in, "--overwrite", "remora.dev/inject=disabled"}, "cannot"},
		"read the installation's Secrets":          {[]string{"-n", system, "get", "secrets"}, "cannot list"},
		"read the installation's providers":        {[]string{"-n", system, "get", "llmproviders"}, "cannot list"},
		"read one of them":                         {[]string{"-n", system, "get", "llmprovider", "exported"}, "cannot get"},
		"watch them":                               {[]string{"get", "--raw", "/apis/istio.alibabacloud.com/v1beta1/namespaces/" + system + "/llmproviders?watch=true"}, "cannot watch"},
		"read the providers of all namespaces":     {[]string{"get", "llmproviders", "-A"}, "cannot list"},
		"change what is injected":                  {[]string{"-n", system, "patch", "podtemplate", "remora-sidecar", "-p", "{}"}, "cannot"},
		"have an authority of one's own trusted":   {[]string{"-n", system, "patch", "configmap", "remora-trusted-ca", "-p", "{}"}, "cannot"},
		"have the DNS lead elsewhere":              {[]string{"-n", "kube-system", "patch", "configmap", "coredns", "-p", "{}"}, "cannot"},
		"have a Service lead elsewhere":            {[]string{"create", "--raw", "/api/v1/namespaces/" + e.in + "/endpoints", "-f", "-"}, "cannot create"},
		"have a Service lead elsewhere, in slices": {[]string{"create", "--raw", "/apis/discovery.k8s.io/v1/namespaces/" + e.in + "/endpointslices", "-f", "-"}, "cannot create"},
		"go through the node":                      {[]string{"get", "--raw", "/api/v1/nodes/" + cluster.Name() + "/proxy/pods"}, "cannot get"},
		"write a provider's status":                {[]string{"patch", "llmprovider", provider, "--subresource=status", "--type=merge", "-p", `{"status":{"conditions":[]}}`}, "cannot patch"},
		"weaken the guards":                        {[]string{"delete", "validatingadmissionpolicybinding", "remora-guard-pods"}, "cannot delete"},
		"have a webhook of one's own":              {[]string{"create", "--raw", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", "-f", "-"}, "cannot create"},
	} {
		t.Run(name, func(t *testing.T) {
			e.attempt(t)
			_, err := e.kubectlWith(t, "{}", try.args...)
			denied(t, err, "orbidden", try.words)
		})
	}
	t.Run("read all else that there is", func(t *testing.T) {
		e.attempt(t)
		out, err := e.kubectl(t, "get", "all,events,configmaps,serviceaccounts,roles,rolebindings,llmproviders,llmroutes,endpointslices", "-o", "yaml")
		if err != nil {
			t.Error(fmt.Errorf("%w: %.2000s", err, out))
		}
		has(t, "it", out, "remora-sidecar")
	})
}
