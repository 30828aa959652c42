package integration

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/controlplane"
)

const (
	everything = "../../config/default"
	ours       = v1beta1.PartOfLabel + "=" + v1beta1.PartOf
)

// ourKinds are the kinds of the cluster's own that the installation has objects of: what the README deletes by label.
const ourKinds = "validatingwebhookconfigurations,mutatingwebhookconfigurations,crd,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"

// manifests is a control plane on which config/default is applied and deleted; the others of this package keep theirs.
type manifests struct{ *controlplane.ControlPlane }

// One control plane for all of them, which ends with the last.
func TestManifests(t *testing.T) {
	binaries, err := assets.Dir(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	cp, err := controlplane.Start(t.Context(), controlplane.Options{Binaries: binaries})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	m := manifests{cp}
	t.Run("KubectlGetTellsHowAnObjectFares", m.kubectlGetTellsHowAnObjectFares)
	t.Run("KubectlExplainTeaches", m.kubectlExplainTeaches)
	t.Run("AnInstallationOverTheCRDsOfAnotherIsRefused", m.anInstallationOverTheCRDsOfAnotherIsRefused)
	t.Run("AnotherProductCannotTakeOurCRDs", m.anotherProductCannotTakeOurCRDs)
	t.Run("EachServiceAccountMayDoWhatItMustAndNothingMore", m.eachServiceAccountMayDoWhatItMustAndNothingMore)
	t.Run("PeopleReadKeysOnlyByARoleThatIsMadeForIt", m.peopleReadKeysOnlyByARoleThatIsMadeForIt)
	t.Run("TheInstallationAppliesAgainAndAgain", m.theInstallationAppliesAgainAndAgain)
	t.Run("TheWebhookIsAskedAsItSays", m.theWebhookIsAskedAsItSays)
	t.Run("DeletingTheInstallationLeavesNothing", m.deletingTheInstallationLeavesNothing)
	t.Run("ThePodsMeetTheRestrictedStandard", m.thePodsMeetTheRestrictedStandard)
	t.Run("AnImageIsNamedByTheUsersOwnKustomization", m.anImageIsNamedByTheUsersOwnKustomization)
}

// fresh gives each test the control plane as it is before an installation: whoever uses it leaves it like that.
func (m manifests) fresh(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { m.uninstall(t) })
}

func (m manifests) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.Kubectl(context.WithoutCancel(t.Context()), args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// uninstall removes the installation as the README says, and whatever else has the names of its CRDs.
func (m manifests) uninstall(t *testing.T) {
	t.Helper()
	m.must(t, "delete", ourKinds, "-l", ours, "--wait=false")
	m.finalize(t, m.must(t, "delete", "namespace", "-l", ours, "--wait=false", "-o", "name"))
	// A policy goes on for a moment after it was deleted.
	m.eventually(t, func() (string, bool) {
		out, err := m.Kubectl(context.WithoutCancel(t.Context()), "delete", "crd", "--all", "--wait=false")
		return out, err == nil && m.definitionsGone(t)
	})
}

// definitionsGone says whether there are no CRDs, and hurries those on that are about to go: the API server cannot delete
// one while its storage is set up anew, as it is for a moment after each change, and then comes back later and later, or at once
// when it changes.
func (m manifests) definitionsGone(t *testing.T) bool {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if m.must(t, "get", "crd", "-o", "name") == "" {
		return true
	}
	_, _ = m.Kubectl(ctx, "annotate", "crd", "--all", "--overwrite", "hurried-on="+time.Now().Format("150405.000")) // it may be gone by now
	return false
}

// finalize does what a cluster's controller manager does with the deleted namespace, which there is none of here: it
// removes what is in it, and then the namespace.
func (m manifests) finalize(t *testing.T, deleted string) {
	t.Helper()
	if !strings.Contains(deleted, v1beta1.InstallationNamespace) {
		return
	}
	ctx := context.WithoutCancel(t.Context())
	client := kubernetes.NewForConfigOrDie(m.Config())
	m.must(t, "-n", v1beta1.InstallationNamespace, "delete", "deployments,services,poddisruptionbudgets,podtemplates,serviceaccounts,secrets,roles,rolebindings", "--all")
	namespace, err := client.CoreV1().Namespaces().Get(ctx, v1beta1.InstallationNamespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	namespace.Spec.Finalizers = nil
	if _, err := client.CoreV1().Namespaces().Finalize(ctx, namespace, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	m.must(t, "wait", "--for=delete", "namespace/"+v1beta1.InstallationNamespace, "--timeout=30s")
}

// eventually asks until the answer is the one that is waited for.
func (m manifests) eventually(t *testing.T, ask func() (string, bool)) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); ; {
		out, ok := ask()
		if ok {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("waited in vain, at last:\n%s", out)
		case <-tick.C:
		}
	}
}

func (m manifests) theInstallationAppliesAgainAndAgain(t *testing.T) {
	for _, how := range [][]string{{"apply", "-k", everything}, {"apply", "--server-side", "-k", everything}} {
		t.Run(strings.Join(how[:2], " "), func(t *testing.T) {
			m.fresh(t)
			m.must(t, append(how, "--validate=strict")...)
			m.must(t, "wait", "--for=condition=Established", "crd", "-l", ours)
			configurations := []string{"validatingwebhookconfiguration", "mutatingwebhookconfiguration"}
			for _, kind := range configurations {
				m.must(t, "patch", kind, v1beta1.WebhookName, "--type=json",
					"-p", `[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"`+bundle(m)+`"}]`, "--field-manager="+v1beta1.WebhookName)
			}

			again := m.must(t, append(how, "--validate=strict")...)
			if how[1] == "-k" { // the other one does not tell
				// kubectl always sends the specification of a PodDisruptionBudget, and the Deployment's list of constraints.
				changed := regexp.MustCompile(`(?m)^.* (created|configured)$`).FindAllString(again, -1)
				for _, line := range changed {
					if !strings.HasPrefix(line, "poddisruptionbudget") && !strings.HasPrefix(line, "deployment") {
						t.Errorf("the second time: %s", line)
					}
				}
			}
			for _, kind := range configurations {
				if got := m.must(t, "get", kind, v1beta1.WebhookName, "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}"); got != bundle(m) {
					t.Errorf("applying again lost caBundle of the %s: %q is left", kind, got)
				}
			}
		})
	}
}

func bundle(m manifests) string { return encodeBase64(m.CA()) }

func (m manifests) theWebhookIsAskedAsItSays(t *testing.T) {
	m.fresh(t)
	m.must(t, "apply", "-k", everything)
	got := m.must(t, "get", "validatingwebhookconfiguration", v1beta1.WebhookName, "-o",
		`jsonpath={range .webhooks[*]}{.name} {.rules[*].operations} {.failurePolicy} {.sideEffects} {.timeoutSeconds} {.rules[*].scope} {.clientConfig.service.path}{"\n"}{end}`)
	want := `llmproviders.remora.dev ["CREATE","UPDATE"] Fail None 5 Namespaced /validate-istio-alibabacloud-com-v1beta1-llmprovider
llmroutes.remora.dev ["CREATE","UPDATE"] Fail None 5 Namespaced /validate-istio-alibabacloud-com-v1beta1-llmroute
llmproviders-delete.remora.dev ["DELETE"] Ignore None 5 Namespaced /validate-istio-alibabacloud-com-v1beta1-llmprovider
llmroutes-delete.remora.dev ["DELETE"] Ignore None 5 Namespaced /validate-istio-alibabacloud-com-v1beta1-llmroute
istio.remora.dev ["CREATE","UPDATE"] Ignore None 2 Namespaced /warn-istio
telemetry.remora.dev ["CREATE","UPDATE"] Fail None 5 Namespaced /judge-telemetry
telemetry.namespaces.remora.dev ["CREATE","UPDATE"] Fail None 5 Cluster /judge-telemetry
namespaces.pods.remora.dev ["CREATE"] Fail None 5 Namespaced /judge-pod
pods.remora.dev ["CREATE"] Fail None 5 Namespaced /judge-pod
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	got = m.must(t, "get", "mutatingwebhookconfiguration", v1beta1.WebhookName, "-o",
		`jsonpath={range .webhooks[*]}{.name} {.rules[*].operations} {.failurePolicy} {.sideEffects} {.timeoutSeconds} {.reinvocationPolicy} {.clientConfig.service.path}{"\n"}{end}`)
	want = `namespaces.pods.remora.dev ["CREATE"] Fail None 5 IfNeeded /inject
pods.remora.dev ["CREATE"] Fail None 5 IfNeeded /inject
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	// What has a pod judged is what has it changed.
	selectors := `jsonpath={range .webhooks[?(@.rules[0].resources[0]=="pods")]}{.namespaceSelector} {.objectSelector}{"\n"}{end}`
	changed := m.must(t, "get", "mutatingwebhookconfiguration", v1beta1.WebhookName, "-o", selectors)
	judged := m.must(t, "get", "validatingwebhookconfiguration", v1beta1.WebhookName, "-o", selectors)
	if changed != judged || strings.Count(changed, "remora-system") != 2 {
		t.Errorf("changed:\n%s\njudged:\n%s", changed, judged)
	}
}

func (m manifests) deletingTheInstallationLeavesNothing(t *testing.T) {
	m.fresh(t)
	m.must(t, "apply", "-k", everything)
	m.must(t, "wait", "--for=condition=Established", "crd", "-l", ours)
	m.finalize(t, m.must(t, "delete", "-k", everything, "--wait=false"))
	m.eventually(t, func() (string, bool) {
		gone := m.definitionsGone(t)
		out := m.must(t, "get", ourKinds+",namespaces", "-l", ours, "-o", "name")
		return out, gone && out == ""
	})
}

// Pods are made by a controller manager, which there is none of here: so the test makes those of the Deployments.
func (m manifests) thePodsMeetTheRestrictedStandard(t *testing.T) {
	m.fresh(t)
	m.must(t, "apply", "-k", everything)
	for _, name := range []string{v1beta1.WebhookName, v1beta1.ControllerName} {
		template := m.must(t, "-n", v1beta1.InstallationNamespace, "get", "deployment", name, "-o", "jsonpath={.spec.template}")
		pod := `{"apiVersion":"v1","kind":"Pod",` + strings.Replace(strings.TrimPrefix(template, "{"), `"metadata":{`, `"metadata":{"name":"one","namespace":"`+v1beta1.InstallationNamespace+`",`, 1)
		out, err := m.KubectlWith(t.Context(), pod, "create", "--dry-run=server", "--validate=strict", "-f", "-")
		if err != nil || strings.Contains(out, "Warning") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	out, err := m.KubectlWith(t.Context(), `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"root","namespace":"`+v1beta1.InstallationNamespace+`"},"spec":{"serviceAccountName":"remora-webhook","containers":[{"name":"a","image":"a"}]}}`,
		"create", "--dry-run=server", "-f", "-")
	if err == nil || !strings.Contains(out, "restricted") {
		t.Errorf("a pod that may be root was not refused: %v\n%s", err, out)
	}
}

func (m manifests) anImageIsNamedByTheUsersOwnKustomization(t *testing.T) {
	m.fresh(t)
	base, err := filepath.Abs(everything)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	relative, err := filepath.Rel(folder, base)
	if err != nil {
		t.Fatal(err)
	}
	text := "resources: [" + relative + "]\nsortOptions: {order: fifo}\nimages:\n"
	images := map[string]int{"webhook": 2, "sidecar": 1, "redirect": 1}
	for name := range images {
		text += "- {name: remora.dev/" + name + ", newName: registry.example.com/remora/" + name + ", newTag: v1.2.3}\n"
	}
	if err = os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := m.must(t, "kustomize", folder)
	for name, want := range images {
		if n := strings.Count(got, "image: registry.example.com/remora/"+name+":v1.2.3\n"); n != want {
			t.Errorf("the image %s was named %d times, want %d", name, n, want)
		}
	}
	if strings.Contains(got, "image: remora.dev/") {
		t.Errorf("an image was not named:\n%s", got)
	}
	if guard, first := strings.Index(got, "name: remora-guard"), strings.Index(got, "kind: CustomResourceDefinition"); guard < 0 || guard > first {
		t.Error("the guard does not come before the CRDs")
	}
}
