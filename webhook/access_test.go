package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
)

// One API server and one controller serve all of it: each has a namespace of its own.
func TestANamespaceHasWhatItsSidecarsNeed(t *testing.T) {
	r := newAccessRig(t)
	r.start(t)
	for name, test := range map[string]func(*testing.T, *accessRig, string){
		"ALabelMakesAllThatPodsNeed":           labelled,
		"TheTokenMayDoWhatSidecarsDoAndNoMore": tokenRights,
		"WhatIsChangedOrDeletedIsRepaired":     repaired,
		"ADeletedTokenIsRevokedAndReplaced":    revoked,
		"NothingForeignIsTouched":              foreignLeft,
		"TheLastPodTakesAllWithIt":             lastPod,
		"ANamespaceThatEndsIsLeftAlone":        terminating,
		"KeysFollowProvidersAndSecrets":        keysFollow,
		"ProvidersGetNothingOfOurOwnSecrets":   reserved,
		"OfTooManyKeysTheOldestHaveRoom":       tooMuch,
		"ANameTooLongIsLeftOutAlone":           nameTooLong,
		"ALabelOnTheInstallationItselfIsNone":  installationLabelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, r, strings.ToLower(name[:min(len(name), 60)])) })
	}
	r.stop()
	if found := r.errorsOf("access"); len(found) > 0 {
		t.Errorf("nothing was wrong with the API server, but:\n%s", found)
	}
	if log := r.log.all(); strings.Contains(log, "sk-") || strings.Contains(log, "eyJ") {
		t.Error("the log has a key or a token")
	}
}

func labelled(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectPods)
	found := r.awaitFive(t, ns)
	var order []int
	for _, id := range five {
		u := found[id]
		if u.GetLabels()[v1beta1.PartOfLabel] != v1beta1.PartOf {
			t.Errorf("%s has the labels %v", id, u.GetLabels())
		}
		version, err := strconv.Atoi(u.GetResourceVersion())
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, version)
		for _, m := range u.GetManagedFields() {
			if m.Manager != v1beta1.ControllerName {
				t.Errorf("%s is written by %s", id, m.Manager)
			}
		}
	}
	if !slices.IsSorted(order) {
		t.Errorf("%v were made in the order of %v", five, order)
	}
	if mount, ok := found[five[0]].Object["automountServiceAccountToken"].(bool); !ok || mount {
		t.Error("the account's token is mounted in pods that ask for nothing")
	}
	s := r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool { return s != nil })
	if got := slices.Sorted(maps.Keys(s.Data)); !slices.Equal(got, []string{"ca.crt", "namespace", "token"}) || string(s.Data["namespace"]) != ns || string(s.Data["ca.crt"]) != string(r.CA()) {
		t.Errorf("it holds %q; namespace %s", got, s.Data["namespace"])
	}
	c, ok := readClaims(s.Data["token"])
	if life := c.Expires - c.Issued; !ok || life != int64(usualTokenLife/time.Second) || c.Kubernetes.Secret.UID != s.UID || c.Kubernetes.Account.Name != v1beta1.SidecarName {
		t.Errorf("the token lives %d s, and says %+v", life, c)
	}
	if keys := r.awaitSecret(t, ns, v1beta1.KeysSecret, func(s *corev1.Secret) bool { return s != nil }); len(keys.Data) != 0 || keys.Type != corev1.SecretTypeOpaque {
		t.Errorf("keys: %s, %d entries", keys.Type, len(keys.Data))
	}
}

func tokenRights(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	r.apply(t, ns, providerYAML("p", "{host: a.example.com}")+"---\n{apiVersion: v1, kind: Secret, metadata: {name: other}}\n")
	r.awaitFive(t, ns)
	s := r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool { return s != nil })
	c := r.sidecar(t, s)
	raw := func(verb, path string) error {
		return c.RESTClient().Verb(verb).AbsPath(path).Body([]byte("{}")).SetHeader("Content-Type", "application/merge-patch+json").Do(t.Context()).Error()
	}
	const group = "/apis/istio.alibabacloud.com/v1beta1"
	own := func(path string) string { return group + "/namespaces/" + ns + "/" + path }
	core := func(namespace, path string) string { return "/api/v1/namespaces/" + namespace + "/" + path }
	const keysOnly = "?fieldSelector=metadata.name%3Dremora-sidecar-keys"
	get := func(path string) error {
		path, query, _ := strings.Cut(path, "?")
		q := c.RESTClient().Get().AbsPath(path)
		for pair := range strings.SplitSeq(query, "&") {
			if name, value, ok := strings.Cut(pair, "="); ok {
				q = q.Param(name, strings.ReplaceAll(value, "%3D", "="))
			}
		}
		return q.Do(t.Context()).Error()
	}
	// The authorizer learns of new roles by a watch.
	r.eventually(t, "the rights", func(context.Context) error { return get(own("llmproviders")) })
	for _, path := range []string{
		own("llmproviders"), own("llmroutes"), own("llmproviders?watch=true&timeoutSeconds=1"), own("llmroutes?watch=true&timeoutSeconds=1"),
		core(ns, "secrets"+keysOnly), core(ns, "secrets"+keysOnly+"&watch=true&timeoutSeconds=1"),
	} {
		if err := get(path); err != nil {
			t.Errorf("GET %s: %v", path, err)
		}
	}
	for _, path := range []string{
		own("llmproviders/p"), core(ns, "secrets/remora-sidecar-keys"), // to list and to watch is enough
		core(ns, "secrets"), core(ns, "secrets/other"), core(ns, "secrets/remora-sidecar-access"), core(ns, "secrets?watch=true&timeoutSeconds=1"),
		core(ns, "secrets?fieldSelector=metadata.name%3Dother"), core(ns, "configmaps"), core(ns, "pods"), core(ns, "serviceaccounts/remora-sidecar"),
		core("default", "secrets/remora-sidecar-keys"), core(v1beta1.InstallationNamespace, "secrets"), "/api/v1/secrets" + keysOnly, "/api/v1/namespaces",
		group + "/llmproviders", group + "/namespaces/default/llmproviders", group + "/namespaces/default/llmroutes?watch=true&timeoutSeconds=1",
	} {
		if err := get(path); !apierrors.IsForbidden(err) {
			t.Errorf("GET %s: %v", path, err)
		}
	}
	for verb, path := range map[string]string{"PATCH": own("llmproviders/p"), "DELETE": own("llmproviders/p"), "POST": own("llmroutes"), "PUT": core(ns, "secrets/remora-sidecar-keys")} {
		if err := raw(verb, path); !apierrors.IsForbidden(err) {
			t.Errorf("%s %s: %v", verb, path, err)
		}
	}
	for _, account := range []string{"remora-sidecar", "default"} {
		if _, err := c.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("a token of %s: %v", account, err)
		}
	}
	list, err := r.Kubectl(t.Context(), "auth", "can-i", "--list", "-n", ns, "--as=system:serviceaccount:"+ns+":remora-sidecar", "--no-headers")
	if err != nil {
		t.Fatalf("%v\n%s", err, list)
	}
	var rights []string
	for line := range strings.Lines(list) {
		// What everybody may: ask about oneself, and read what the API server offers.
		if words := strings.Fields(line); !strings.Contains(words[0], "selfsubject") && !strings.HasPrefix(words[0], "clustertrustbundles.") && !strings.HasPrefix(words[0], "[") {
			rights = append(rights, strings.Join(words, " "))
		}
	}
	slices.Sort(rights)
	want := []string{
		"destinationrules.networking.istio.io [] [] [list watch]", "endpointslices.discovery.k8s.io [] [] [list watch]",
		"inferencepools.inference.networking.k8s.io [] [] [list watch]",
		"llmproviders.istio.alibabacloud.com [] [] [list watch]", "llmroutes.istio.alibabacloud.com [] [] [list watch]",
		"secrets [] [remora-sidecar-keys] [list watch]", "services [] [] [list watch]", "virtualservices.networking.istio.io [] [] [list watch]",
	}
	if !slices.Equal(rights, want) {
		t.Errorf("it may\n%s", strings.Join(rights, "\n"))
	}
}

func repaired(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	first := r.awaitFive(t, ns)
	same := func(ctx context.Context) error {
		found := r.there(ctx, t, ns)
		for _, id := range five[:3] {
			if found[id] == nil || !includes(found[id].Object, wantedOf(ns, id)) {
				return fmt.Errorf("%s is not repaired", id)
			}
		}
		if found[five[4]] == nil || found[five[3]] == nil {
			return fmt.Errorf("there are only %v", slices.Sorted(maps.Keys(found)))
		}
		return nil
	}
	patch := func(id, patch string) {
		t.Helper()
		if out, err := r.Kubectl(t.Context(), "-n", ns, "patch", id, "--type=merge", "-p", patch); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	patch(five[0], `{"automountServiceAccountToken": true}`)
	r.eventually(t, "the account", same)
	patch(five[1], `{"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}]}`)
	r.eventually(t, "the Role", same)
	patch(five[2], `{"subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]}`)
	r.eventually(t, "the subjects", same)
	for _, id := range five[1:4] {
		r.delete(t, ns, id)
		r.eventually(t, "the deleted "+id, same)
	}

	// What cannot be changed is made anew.
	r.delete(t, ns, five[2])
	r.eventually(t, "the binding", func(context.Context) error {
		_, err := r.KubectlWith(t.Context(), `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: remora-sidecar, labels: {app.kubernetes.io/part-of: remora}},
			roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}`, "-n", ns, "replace", "--force", "-f", "-")
		return err
	})
	r.eventually(t, "the roleRef", same)
	patch(five[3], `{"immutable": true, "stringData": {"smuggled": "in"}}`)
	r.awaitSecret(t, ns, v1beta1.KeysSecret, func(s *corev1.Secret) bool { return holds(nil)(s) && (s.Immutable == nil || !*s.Immutable) })
	patch(five[3], `{"stringData": {"smuggled": "in"}}`)
	r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(nil))

	// An account that is made anew has other tokens.
	old := r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool { return s != nil })
	r.delete(t, ns, five[0])
	now := r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool {
		return s != nil && len(s.Data["token"]) > 0 && string(s.Data["token"]) != string(old.Data["token"])
	})
	if _, err := r.sidecar(t, now).CoreV1().Secrets(ns).List(t.Context(), onlyKeys); err != nil {
		t.Error(err)
	}
	patch(five[4], `{"data": {"ca.crt": "bm9uZQ==", "token": "bm9uZQ==", "more": "bm9uZQ=="}}`)
	r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool {
		_, ok := readClaims(s.Data["token"])
		return ok && string(s.Data["ca.crt"]) == string(r.CA()) && s.Data["more"] == nil
	})
	if found := r.there(t.Context(), t, ns); found[five[4]].GetUID() != first[five[4]].GetUID() {
		t.Error("the access Secret was made anew for nothing")
	}
}

// onlyKeys is how sidecars ask for their keys.
var onlyKeys = metav1.ListOptions{FieldSelector: "metadata.name=" + v1beta1.KeysSecret}

// wantedOf gives what one of the first three has to be.
func wantedOf(ns, id string) map[string]any {
	for _, u := range identity(ns) {
		if strings.EqualFold(u.GetKind()+"/"+u.GetName(), id) {
			return u.Object
		}
	}
	return nil
}

func revoked(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	r.awaitFive(t, ns)
	old := r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool { return s != nil })
	r.delete(t, ns, five[4])
	now := r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool { return s != nil && s.UID != old.UID && len(s.Data["token"]) > 0 })
	if c, _ := readClaims(now.Data["token"]); c.Kubernetes.Secret.UID != now.UID {
		t.Errorf("the token is bound to %s", c.Kubernetes.Secret.UID)
	}
	r.eventually(t, "the old token's end", func(ctx context.Context) error {
		if _, err := r.sidecar(t, old).CoreV1().Secrets(ns).List(ctx, onlyKeys); !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("it gets %w", err)
		}
		return nil
	})
}

func foreignLeft(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	const theirs = `
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: remora-sidecar}}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: remora-sidecar}, rules: []}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: remora-sidecar}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}
- {apiVersion: v1, kind: Secret, metadata: {name: remora-sidecar-keys, labels: {app.kubernetes.io/part-of: another}}, data: {a: aGVsbG8=}}
- {apiVersion: v1, kind: Secret, metadata: {name: remora-sidecar-access}, data: {token: aGVsbG8=}}
`
	items := strings.Split(strings.TrimPrefix(theirs, "\n- "), "\n- ")
	for i, id := range five {
		ns := fmt.Sprintf("%s-%d", ns, i)
		r.apply(t, ns, items[i])
		before := r.there(t.Context(), t, ns)
		r.label(t, ns, v1beta1.InjectEnabled)
		kind, name, _ := strings.Cut(id, "/")
		r.awaitTrouble(t, ns, "ForeignObject", ns+"/"+name, "delete or rename it")
		if i < 4 {
			r.eventually(t, "the others", func(ctx context.Context) error {
				if found := r.there(ctx, t, ns); found[five[3]] == nil {
					return fmt.Errorf("there is only %v", slices.Sorted(maps.Keys(found)))
				}
				return nil
			})
		}
		if i < 2 && r.there(t.Context(), t, ns)[five[2]] != nil {
			t.Errorf("a %s of somebody else is bound", kind)
		}
		// Without the label again, all of ours goes, and theirs stays.
		if out, err := r.Kubectl(t.Context(), "label", "namespace", ns, v1beta1.InjectLabel+"-"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		r.eventually(t, "the end of ours beside "+id, func(ctx context.Context) error {
			if found := r.there(ctx, t, ns); len(found) != 1 || found[id] == nil {
				return fmt.Errorf("there are %v", slices.Sorted(maps.Keys(found)))
			}
			return nil
		})
		if now := r.there(t.Context(), t, ns); now[id].GetResourceVersion() != before[id].GetResourceVersion() {
			t.Errorf("%s was changed", id)
		}
		// And when theirs goes, ours comes.
		r.label(t, ns, v1beta1.InjectEnabled)
		r.delete(t, ns, id)
		r.awaitFive(t, ns)
	}
	r.awaitMetric(t, `remora_namespace_problems{code="ForeignObject"} 0`)
}

func lastPod(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	before := r.awaitFive(t, ns)
	pod := r.pod(t, ns, "running", injected)
	// A pod that has ended may stay for as long as somebody keeps its Job.
	ended := r.pod(t, ns, "ended", injected)
	ended.Status.Phase = corev1.PodSucceeded
	if err := r.admin.Status().Update(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	// A label proves nothing: this one mounts what no webhook has marked.
	hidden := r.pod(t, ns, "hidden", func(p *corev1.Pod) { injected(p); p.Labels = nil })
	r.label(t, ns, v1beta1.InjectDisabled)
	r.awaitMetric(t, `remora_namespaces{state="leaving"} 1`)

	// While it leaves, it works.
	r.apply(t, ns, providerYAML("p", "{host: a.example.com, configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: k}}}}}")+"---\n{apiVersion: v1, kind: Secret, metadata: {name: k}, stringData: {apiKey: sk-late}}\n")
	r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(map[string]string{"k_apiKey": "sk-late"}))
	now := metav1.NewDeleteOptions(0)
	for _, p := range []*corev1.Pod{hidden, pod} {
		if found := r.there(t.Context(), t, ns); len(found) != 5 || found[five[4]].GetUID() != before[five[4]].GetUID() {
			t.Errorf("with pod %s left there are %v", p.Name, slices.Sorted(maps.Keys(found)))
		}
		if err := r.admin.Delete(t.Context(), p, &client.DeleteOptions{Raw: now}); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitNone(t, ns)
	r.awaitMetric(t, `remora_namespaces{state="leaving"} 0`)
}

func terminating(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, ns, v1beta1.InjectEnabled)
	r.awaitFive(t, ns)
	// Nobody here ends a namespace, so it stays as one that ends.
	r.delete(t, ns, "namespace", ns, "--wait=false")
	r.delete(t, ns, "secret", v1beta1.AccessSecret, v1beta1.KeysSecret)
	r.delete(t, ns, five[1])
	other := ns + "-after"
	r.label(t, other, v1beta1.InjectEnabled)
	r.awaitFive(t, other)
	if found := r.there(t.Context(), t, ns); len(found) != 2 {
		t.Errorf("there are %v", slices.Sorted(maps.Keys(found)))
	}
	if found := r.errorsOf(`"` + ns + `"`); len(found) > 0 {
		t.Errorf("it is no error:\n%s", found)
	}
}

func installationLabelled(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.label(t, v1beta1.InstallationNamespace, v1beta1.InjectEnabled)
	r.label(t, ns, v1beta1.InjectEnabled)
	r.awaitFive(t, ns)
	if found := r.there(t.Context(), t, v1beta1.InstallationNamespace); len(found) != 0 {
		t.Errorf("there are %v", slices.Sorted(maps.Keys(found)))
	}
	u := &unstructured.Unstructured{}
	u.SetAPIVersion("v1")
	u.SetKind("Namespace")
	if out, err := r.Kubectl(t.Context(), "label", "namespace", v1beta1.InstallationNamespace, v1beta1.InjectLabel+"-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestATokenLivesAnHourOrMore(t *testing.T) {
	if f, err := parseControlFlags(nil); err != nil || f.tokenLife != usualTokenLife {
		t.Errorf("%s, %v", f.tokenLife, err)
	}
	if f, err := parseControlFlags([]string{"--token-life=1h"}); err != nil || f.tokenLife != time.Hour {
		t.Errorf("%s, %v", f.tokenLife, err)
	}
	if _, err := parseControlFlags([]string{"--token-life=59m"}); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "--token-life 59m0s") || !strings.Contains(err.Error(), "1h") {
		t.Error(err)
	}
}

// A mutating policy of somebody else's, as there are some that put values of their own into Secrets.
func contested(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.start(t)
	r.apply(t, ns, `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: contested}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: `+ns+`}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [secrets], resourceNames: [remora-sidecar-keys]}]
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: 'Object{data: {"theirs": "eA=="}}'}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: contested}
spec: {policyName: contested}
`)
	r.eventually(t, "the policy", func(ctx context.Context) error {
		tried := secretOf(ns, v1beta1.KeysSecret, corev1.SecretTypeOpaque, nil)
		if err := r.admin.Create(ctx, tried, client.DryRunAll); err != nil || tried.Data["theirs"] == nil {
			return fmt.Errorf("it changes nothing: %w", err)
		}
		return nil
	})
	r.label(t, ns, v1beta1.InjectEnabled)
	r.awaitMetric(t, `remora_namespace_problems{code="RequestFailed"} 1`)
	if found := r.errorsOf(ns); len(found) == 0 || !strings.Contains(found[0], "exempt the object") {
		t.Errorf("the errors are %q", found)
	}
	for _, command := range []string{"mutatingadmissionpolicy", "mutatingadmissionpolicybinding"} {
		r.delete(t, ns, command, "contested")
	}
	r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(nil))
	r.awaitMetric(t, `remora_namespace_problems{code="RequestFailed"} 0`)
	r.stop()
}
