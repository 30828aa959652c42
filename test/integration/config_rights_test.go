package integration

import (
	"context"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"remora.dev/remora/apis/v1beta1"
)

// allowed asks the API server whether a user may do what a line says: "verb group/resource[/subresource] [namespace] [name]",
// with "-" for all namespaces and "core" for the group without a name.
func (m manifests) allowed(ctx context.Context, t *testing.T, user string, groups []string, line string) bool {
	t.Helper()
	words := append(strings.Fields(line), "", "")
	group, resource, _ := strings.Cut(words[1], "/")
	resource, subresource, _ := strings.Cut(resource, "/")
	if group == "core" {
		group = ""
	}
	if words[2] == "-" {
		words[2] = ""
	}
	review, err := kubernetes.NewForConfigOrDie(m.Config()).AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: user, Groups: groups, ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: words[0], Group: group, Resource: resource, Subresource: subresource, Namespace: words[2], Name: words[3],
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}

const api = "istio.alibabacloud.com"

func (m manifests) eachServiceAccountMayDoWhatItMustAndNothingMore(t *testing.T) {
	m.fresh(t)
	m.must(t, "apply", "-k", everything)
	for account, rights := range map[string]struct{ may, mayNot []string }{
		v1beta1.WebhookName: {
			may: []string{
				"list " + api + "/llmproviders -", "watch " + api + "/llmroutes -",
				"get apiextensions.k8s.io/customresourcedefinitions - llmroutes." + api,
				"watch core/secrets remora-system remora-webhook-ca", "update core/secrets remora-system remora-webhook-ca", "create core/secrets remora-system",
				"watch admissionregistration.k8s.io/validatingwebhookconfigurations - remora-webhook",
				"patch admissionregistration.k8s.io/validatingwebhookconfigurations - remora-webhook",
				"watch admissionregistration.k8s.io/mutatingwebhookconfigurations - remora-webhook",
				"patch admissionregistration.k8s.io/mutatingwebhookconfigurations - remora-webhook",
				"list core/namespaces -", "watch core/namespaces -", "get core/namespaces - team-a",
				"watch core/podtemplates remora-system remora-sidecar", "get core/podtemplates remora-system remora-sidecar",
				"create authorization.k8s.io/subjectaccessreviews -",
				"list core/services -", "watch networking.istio.io/gateways -", "watch networking.istio.io/virtualservices -", "watch inference.networking.k8s.io/inferencepools -",
			},
			mayNot: []string{
				"patch core/namespaces - team-a", "watch core/podtemplates remora-system other", "patch core/podtemplates remora-system remora-sidecar",
				"watch core/podtemplates team-a remora-sidecar", "patch admissionregistration.k8s.io/mutatingwebhookconfigurations - others",
				"list core/pods -", "list core/nodes -", "list discovery.k8s.io/endpointslices -", "patch networking.istio.io/gateways/status team-a g", "patch core/pods team-a app", "create events.k8s.io/events team-a",
				"list core/secrets -", "list core/secrets remora-system", "get core/secrets remora-system other", "get core/secrets team-a dashscope",
				"patch core/secrets remora-system other", "create core/secrets team-a", "delete core/secrets remora-system remora-webhook-ca",
				"update " + api + "/llmproviders team-a dashscope", "patch " + api + "/llmroutes/status team-a chat", "delete " + api + "/llmroutes team-a chat",
				"get apiextensions.k8s.io/customresourcedefinitions - others.example.com", "patch apiextensions.k8s.io/customresourcedefinitions - llmroutes." + api,
				"patch admissionregistration.k8s.io/validatingwebhookconfigurations - remora-guard",
				"patch admissionregistration.k8s.io/validatingwebhookconfigurations - others", "create admissionregistration.k8s.io/validatingwebhookconfigurations -",
				"create core/pods remora-system", "create core/serviceaccounts/token remora-system remora-controller", "impersonate core/users -",
				"create authentication.k8s.io/tokenreviews -", "get rbac.authorization.k8s.io/roles team-a x", "create rbac.authorization.k8s.io/rolebindings team-a",
			},
		},
		v1beta1.ControllerName: {
			may: []string{
				"list " + api + "/llmproviders -", "watch " + api + "/llmroutes -",
				"patch " + api + "/llmproviders/status team-a dashscope", "patch " + api + "/llmroutes/status team-a chat",
				"list core/secrets -", "watch core/secrets -", "get core/secrets team-a dashscope",
				"create coordination.k8s.io/leases remora-system", "get coordination.k8s.io/leases remora-system remora-controller",
				"update coordination.k8s.io/leases remora-system remora-controller",
				"create events.k8s.io/events team-a", "patch events.k8s.io/events team-a",
				"watch core/namespaces -", "list core/pods team-a", "create core/serviceaccounts team-a", "create core/secrets team-a",
				"patch core/secrets team-a remora-sidecar-keys", "delete core/secrets team-a remora-sidecar-access", "create core/serviceaccounts/token team-a remora-sidecar",
				"patch rbac.authorization.k8s.io/roles team-a remora-sidecar", "delete rbac.authorization.k8s.io/rolebindings team-a remora-sidecar",
				"watch core/configmaps remora-system remora-trusted-ca", "watch core/configmaps remora-system remora-telemetry",
				"list core/services -", "watch core/nodes -", "update discovery.k8s.io/endpointslices team-a", "delete discovery.k8s.io/endpointslices team-a",
				"watch networking.istio.io/destinationrules -", "watch inference.networking.k8s.io/inferencepools -", "patch networking.istio.io/gateways/status team-a g",
			},
			mayNot: []string{
				"update core/secrets team-a dashscope", "patch core/secrets team-a dashscope", "delete core/secrets team-a dashscope",
				"patch " + api + "/llmproviders team-a dashscope", "update " + api + "/llmroutes team-a chat", "create " + api + "/llmroutes team-a", "delete " + api + "/llmroutes team-a chat",
				"update coordination.k8s.io/leases remora-system other", "create coordination.k8s.io/leases kube-system", "update coordination.k8s.io/leases kube-system kube-scheduler",
				"patch admissionregistration.k8s.io/validatingwebhookconfigurations - remora-webhook",
				"create core/pods remora-system", "delete core/pods team-a sleep", "patch core/services team-a chat", "patch core/nodes - node",
				"patch networking.istio.io/gateways team-a g", "update networking.istio.io/virtualservices team-a v", "create core/serviceaccounts/token remora-system remora-webhook",
				"patch rbac.authorization.k8s.io/roles team-a other", "patch rbac.authorization.k8s.io/rolebindings team-a other", "list rbac.authorization.k8s.io/roles team-a",
				"create rbac.authorization.k8s.io/clusterrolebindings -", "bind rbac.authorization.k8s.io/clusterroles - cluster-admin", "escalate rbac.authorization.k8s.io/roles team-a remora-sidecar",
				"get " + api + "/llmproviders team-a dashscope",
				"patch core/namespaces - team-a", "list core/serviceaccounts team-a", "delete core/serviceaccounts team-a default", "list core/configmaps remora-system", "watch core/configmaps team-a remora-trusted-ca",
			},
		},
	} {
		t.Run(account, func(t *testing.T) {
			user := "system:serviceaccount:" + v1beta1.InstallationNamespace + ":" + account
			groups := []string{"system:serviceaccounts", "system:serviceaccounts:" + v1beta1.InstallationNamespace, "system:authenticated"}
			// The authorizer learns of new roles by a watch.
			m.eventually(t, func() (string, bool) { return rights.may[0], m.allowed(t.Context(), t, user, groups, rights.may[0]) })
			for _, line := range rights.may {
				if !m.allowed(t.Context(), t, user, groups, line) {
					t.Errorf("it must be able to %s, and is not", line)
				}
			}
			for _, line := range rights.mayNot {
				if m.allowed(t.Context(), t, user, groups, line) {
					t.Errorf("it may %s", line)
				}
			}
		})
	}
}

// Rights are given per namespace here, as the comment in config/rbac/people.yaml shows.
func (m manifests) peopleReadKeysOnlyByARoleThatIsMadeForIt(t *testing.T) {
	m.fresh(t)
	m.must(t, "apply", "-k", everything)
	m.must(t, "wait", "--for=condition=Established", "crd", "-l", ours)
	m.must(t, "delete", "validatingwebhookconfiguration", v1beta1.WebhookName) // nobody answers here
	m.must(t, "create", "namespace", "team-a")
	t.Cleanup(func() { m.must(t, "delete", "namespace", "team-a", "--wait=false") })
	for _, role := range []string{"view", "edit", "admin", "llm-viewer", "llm-editor"} {
		m.must(t, "-n", "team-a", "create", "rolebinding", role, "--clusterrole", role, "--user", "with-"+role)
	}
	provider := `{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMProvider","metadata":{"name":"p","namespace":"team-a"},
		"spec":{"host":"a.example","configs":{"defaultConfig":{"openAIConfig":{"apiKey":"sk-in-the-text"}}}}}`
	as := func(user, stdin string, args ...string) (string, error) {
		t.Helper()
		kubeconfig, err := m.UserKubeconfig("with-" + user)
		if err != nil {
			t.Fatal(err)
		}
		return m.KubectlAs(t.Context(), kubeconfig, stdin, append([]string{"-n", "team-a"}, args...)...)
	}
	m.eventually(t, func() (string, bool) {
		out, err := as("llm-editor", provider, "apply", "-f", "-")
		return out, err == nil
	})
	if out, err := as("llm-viewer", "", "get", "llmproviders,llmroutes", "-o", "yaml"); err != nil || !strings.Contains(out, "sk-in-the-text") {
		t.Errorf("llm-viewer cannot read: %v\n%s", err, out)
	}
	for _, subject := range []string{"llm-viewer", "llm-editor"} {
		user := "with-" + subject
		if !m.allowed(t.Context(), t, user, nil, "get "+api+"/llmproviders/status team-a p") || m.allowed(t.Context(), t, user, nil, "patch "+api+"/llmproviders/status team-a p") {
			t.Errorf("%s is to read the status and not to write it", subject)
		}
		if m.allowed(t.Context(), t, user, nil, "list "+api+"/llmproviders other") {
			t.Errorf("%s may read in a namespace that it was not bound in", subject)
		}
	}
	for user, command := range map[string][]string{
		"llm-viewer": {"create", "-f", "-"},
		"view":       {"get", "llmproviders"},
		"edit":       {"get", "llmroutes"},
		"admin":      {"get", "llmproviders", "p"},
	} {
		if out, err := as(user, strings.Replace(provider, `"p"`, `"q"`, 1), command...); err == nil || !strings.Contains(out, "forbidden") {
			t.Errorf("%s may %s: %v\n%s", user, strings.Join(command, " "), err, out)
		}
	}
	if out, err := as("llm-editor", "", "delete", "llmprovider", "p"); err != nil {
		t.Errorf("llm-editor cannot delete: %v\n%s", err, out)
	}
}
