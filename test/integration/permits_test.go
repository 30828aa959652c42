package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// person is somebody with a kubeconfig of their own, in a tenant's namespace.
type person struct {
	*tenant
	kubeconfig string
}

// as gives a user, with a certificate that names no groups, who may write providers and read the Secrets that are named, no others.
func (n *tenant) as(t *testing.T, user string, readable ...string) person {
	t.Helper()
	kubeconfig, err := n.UserKubeconfig(user)
	if err != nil {
		t.Fatal(err)
	}
	n.grant(t, "--user="+user, user, readable...)
	return person{n, kubeconfig}
}

func (n *tenant) grant(t *testing.T, subject, name string, readable ...string) {
	t.Helper()
	n.kubectl(t, "create", "rolebinding", name, "--clusterrole=llm-editor", subject)
	if len(readable) > 0 {
		n.kubectl(t, "create", "role", name, "--verb=get", "--resource=secrets", "--resource-name="+strings.Join(readable, ","))
		n.kubectl(t, "create", "rolebinding", name+"-reads", "--role="+name, subject)
	}
}

func (p person) try(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	return p.KubectlAs(t.Context(), p.kubeconfig, stdin, append([]string{"-n", p.namespace}, args...)...)
}

// may must succeed. The authorizer learns of new roles by a watch.
func (p person) may(t *testing.T, stdin string, args ...string) {
	t.Helper()
	await(t, strings.Join(args, " "), func() (string, bool) {
		out, err := p.try(t, stdin, args...)
		return out, err == nil
	})
}

// mayNot must be refused, for want of a right to read what the text says.
func (p person) mayNot(t *testing.T, want, stdin string, args ...string) {
	t.Helper()
	out, err := p.try(t, stdin, args...)
	if err == nil || !strings.Contains(out, "Forbidden") && !strings.Contains(out, "forbidden") || !strings.Contains(out, "is not permitted: ") ||
		!strings.Contains(out, want) || !strings.Contains(out, "(KeyNotPermitted)") {
		t.Errorf("kubectl %s: %v; it prints\n%s\nwant %s", strings.Join(args, " "), err, out, want)
	}
}

// keyed is a provider with keys of Secrets.
func keyed(name, host string, secrets ...string) string {
	var refs []string
	for _, s := range secrets {
		refs = append(refs, "{name: "+s+"}")
	}
	keys := ""
	if len(refs) > 0 {
		keys = ", apiKeyRefs: [" + strings.Join(refs, ", ") + "]"
	}
	return fmt.Sprintf("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {%s}\nspec: {host: %s, configs: {defaultConfig: {openAIConfig: {model: m%s}}}}\n---\n", name, host, keys)
}

func TestWhoMayNotReadAKeyCannotHaveItSent(t *testing.T) {
	n := newTenant(t, installed) // without a label: it may get one later
	for _, secret := range []string{"a", "b"} {
		n.kubectl(t, "create", "secret", "generic", secret, "--from-literal=apiKey=sk-"+secret)
	}
	editor, reader := n.as(t, "editor"), n.as(t, "reader-of-a", "a")
	editor.may(t, keyed("name: free", "llm.example.com"), "apply", "-f", "-")
	reader.may(t, keyed("name: of-a", "a.example.com", "a"), "apply", "-f", "-")

	t.Run("a new one, by whatever command", func(t *testing.T) {
		const want = "apiKeyRefs[0]: Secret "
		stolen := keyed("name: stolen", "evil.example.com", "a")
		editor.mayNot(t, want+n.namespace+"/a is not for editor to read, and this would send it to evil.example.com", stolen, "apply", "-f", "-")
		editor.mayNot(t, want, stolen, "apply", "-f", "-", "--dry-run=server")
		editor.mayNot(t, want, stolen, "apply", "-f", "-", "--server-side")
		editor.mayNot(t, want, stolen, "create", "-f", "-")
		editor.mayNot(t, want, keyed("generateName: stolen-", "evil.example.com", "a"), "create", "-f", "-")
		editor.mayNot(t, want, keyed("name: stolen", "evil.example.com", "not-there-yet"), "create", "-f", "-")
		editor.mayNot(t, want, keyed("name: free", "llm.example.com", "a"), "apply", "-f", "-")
		editor.mayNot(t, want, keyed("name: free", "llm.example.com", "a"), "replace", "-f", "-")
		reader.mayNot(t, "apiKeyRefs[1]: Secret "+n.namespace+"/b is not for reader-of-a to read", keyed("name: of-a", "a.example.com", "a", "b"), "apply", "-f", "-")
		if out := n.kubectl(t, "get", "llmproviders", "-o", "name"); len(strings.Fields(out)) != 2 {
			t.Errorf("there are\n%s", out)
		}
	})

	t.Run("the way of one that is there, by whatever command", func(t *testing.T) {
		before := n.kubectl(t, "get", "llmprovider", "of-a", "-o", "jsonpath={.spec}")
		for field, value := range map[string]string{
			"host": `"evil.example.com"`, "port": "8443", "tls": `{"mode":"SIMPLE","sni":"evil.example.com"}`, "path": `"/log"`, "authScheme": `"api-key"`, "query": `{"to":"evil"}`,
		} {
			want := "with another spec." + field + " it would go elsewhere, or in another way"
			editor.mayNot(t, want, "", "patch", "llmprovider", "of-a", "--type=merge", "-p", `{"spec":{"`+field+`":`+value+`}}`)
			editor.mayNot(t, want, "", "patch", "llmprovider", "of-a", "--type=json", "-p", `[{"op":"add","path":"/spec/`+field+`","value":`+value+`}]`)
		}
		turned := keyed("name: of-a", "evil.example.com", "a")
		editor.mayNot(t, "spec.host", turned, "replace", "-f", "-")
		editor.mayNot(t, "spec.host", turned, "apply", "-f", "-", "--server-side", "--force-conflicts")
		script := filepath.Join(t.TempDir(), "editor")
		if err := os.WriteFile(script, []byte("#!/bin/sh\nexec sed -i s/a.example.com/evil.example.com/ \"$1\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("KUBE_EDITOR", script)
		if out, err := editor.try(t, "", "edit", "llmprovider", "of-a"); err == nil || !strings.Contains(out, "KeyNotPermitted") {
			t.Errorf("kubectl edit: %v\n%s", err, out)
		}
		if after := n.kubectl(t, "get", "llmprovider", "of-a", "-o", "jsonpath={.spec}"); after != before {
			t.Errorf("it is %s now, and was %s", after, before)
		}
		// Whoever may read the key may turn it, and so may an administrator.
		reader.may(t, "", "patch", "llmprovider", "of-a", "--type=merge", "-p", `{"spec":{"host":"b.example.com"}}`)
		n.kubectl(t, "patch", "llmprovider", "of-a", "--type=merge", "-p", `{"spec":{"host":"a.example.com"}}`)
	})

	t.Run("made anew in its place", func(t *testing.T) {
		n.apply(t, keyed("name: short-lived", "s.example.com", "a"))
		editor.may(t, "", "delete", "llmprovider", "short-lived")
		editor.mayNot(t, "this would send it to evil.example.com", keyed("name: short-lived", "evil.example.com", "a"), "create", "-f", "-")
	})

	t.Run("by its status", func(t *testing.T) {
		n.kubectl(t, "patch", "llmprovider", "of-a", "--subresource=status", "--type=merge", "-p", `{"spec":{"host":"evil.example.com"}}`)
		if out := n.kubectl(t, "get", "llmprovider", "of-a", "-o", "jsonpath={.spec.host}"); out != "a.example.com" {
			t.Errorf("its host is %s", out)
		}
	})
}

// What applies the same again and again need not be trusted with keys.
func TestWhoChangesNothingThatMovesAKeyIsNotAskedAbout(t *testing.T) {
	n := newTenant(t, installed)
	n.apply(t, keyed("name: p", "llm.example.com", "a"))
	n.kubectl(t, "create", "serviceaccount", "deployer")
	n.grant(t, "--serviceaccount="+n.namespace+":deployer", "deployer")
	kubeconfig, err := n.Account(t.Context(), n.namespace, "deployer")
	if err != nil {
		t.Fatal(err)
	}
	deployer := person{n, kubeconfig}
	deployer.may(t, "", "get", "llmprovider", "p")
	reviews := reviewsAsked(t)
	deployer.may(t, keyed("name: p", "llm.example.com", "a"), "apply", "-f", "-")
	deployer.may(t, keyed("name: p", "llm.example.com", "a"), "apply", "-f", "-", "--server-side", "--force-conflicts")
	deployer.may(t, keyed("name: p", "llm.example.com", "a"), "replace", "-f", "-")
	deployer.may(t, "", "label", "llmprovider", "p", "touched=yes")
	deployer.may(t, "", "patch", "llmprovider", "p", "--type=merge", "-p", `{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"other"}}},"allowedUIDs":[1000]}}`)
	if now := reviewsAsked(t); now != reviews {
		t.Errorf("%d reviews were asked for", now-reviews)
	}
	deployer.mayNot(t, "is not for system:serviceaccount:"+n.namespace+":deployer to read", keyed("name: p", "other.example.com", "a"), "apply", "-f", "-")
	if now := reviewsAsked(t); now != reviews+1 {
		t.Errorf("%d reviews were asked for where there was one to ask", now-reviews)
	}
}

// reviewsAsked is how many SubjectAccessReviews the API server has answered.
func reviewsAsked(t *testing.T) int {
	t.Helper()
	total := 0
	for line := range strings.Lines(kubectl(t, "get", "--raw", "/metrics")) {
		if strings.HasPrefix(line, "apiserver_request_total{") && strings.Contains(line, `resource="subjectaccessreviews"`) {
			var n float64
			if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n); err != nil {
				t.Fatal(err)
			}
			total += int(n)
		}
	}
	return total
}

// Each of the two is harmless for itself: one gives a key to a provider that has none, one turns a provider without key to another host.
func TestTwoEditsAtOnceSendNoKeyAstray(t *testing.T) {
	n := newTenant(t, installed)
	editor := n.as(t, "racing-editor")
	editor.may(t, keyed("name: p", "good.example.com"), "apply", "-f", "-")
	turned := 0
	for range 30 {
		n.apply(t, keyed("name: p", "good.example.com"))
		var both sync.WaitGroup
		both.Go(func() {
			if out, err := n.KubectlWith(context.WithoutCancel(t.Context()), keyed("name: p", "good.example.com", "a"), "-n", n.namespace, "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
		both.Go(func() {
			if _, err := n.KubectlAs(context.WithoutCancel(t.Context()), editor.kubeconfig, "", "-n", n.namespace, "patch", "llmprovider", "p", "--type=merge", "-p", `{"spec":{"host":"evil.example.com"}}`); err == nil {
				turned++
			}
		})
		both.Wait()
		if spec := n.kubectl(t, "get", "llmprovider", "p", "-o", "jsonpath={.spec}"); strings.Contains(spec, "evil") {
			t.Fatalf("the key goes astray: %s", spec)
		}
	}
	t.Logf("of 30 turns, %d came before the key", turned)
}

// 257 configs with a Secret each: whoever may read them all is let in within the time that the API server gives, and who may not is told.
func TestAProviderOfHundredsOfSecretsIsJudgedInTime(t *testing.T) {
	n := newTenant(t, installed)
	client := kubernetes.NewForConfigOrDie(n.Config()).CoreV1().Secrets(n.namespace)
	if _, err := client.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for i := range 256 {
		fmt.Fprintf(&b, "r%d: {openAIConfig: {apiKeyRef: {name: s-%d}}}, ", i, i)
	}
	many := "apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: many}\nspec: {host: llm.example.com, configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: s}}}, routeSpecificConfigs: {" + b.String() + "}}}\n"
	editor, reader := n.as(t, "editor-of-many"), n.as(t, "reader-of-all")
	n.kubectl(t, "create", "role", "all", "--verb=get", "--resource=secrets")
	n.kubectl(t, "create", "rolebinding", "all", "--role=all", "--user=reader-of-all")
	editor.may(t, "", "get", "llmproviders")
	editor.mayNot(t, "; and 193 more", many, "create", "-f", "-")
	before := reviewsAsked(t)
	reader.may(t, "", "get", "secret", "s")
	reader.may(t, many, "create", "-f", "-")
	t.Logf("%d reviews for 257 Secrets", reviewsAsked(t)-before) // more where a busy machine took too long and it was tried again
}
