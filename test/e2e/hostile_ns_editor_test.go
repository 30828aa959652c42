//go:build linux

package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
)

// editor may do in a namespace what its administrator may (the ClusterRoles admin and llm-editor, and debug pods), but for reading
// Secrets and being somebody else. Everything that it is answered is kept, to be searched for keys.
type editor struct {
	in         string
	config     *rest.Config
	kubeconfig string
	objects    dynamic.Interface
	client     *kubernetes.Clientset

	mu       sync.Mutex
	seen     bytes.Buffer
	hidden   []string // none of these may be seen
	attempts int
	shown    int // keys and tokens that were seen
}

func newEditor(t *testing.T, in, home string) *editor {
	t.Helper()
	rights := rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "editor"}, Rules: editorRights(t)}
	_, err := client.RbacV1().Roles(in).Create(t.Context(), &rights, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", home, "create", "serviceaccount", "editor")
	kubectl(t, "-n", in, "create", "rolebinding", "editor", "--role=editor", "--serviceaccount="+home+":editor")
	kubectl(t, "-n", in, "create", "rolebinding", "llm-editor", "--clusterrole=llm-editor", "--serviceaccount="+home+":editor")
	token, err := client.CoreV1().ServiceAccounts(home).CreateToken(t.Context(), "editor",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](7200)}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e := &editor{in: in, config: rest.AnonymousClientConfig(config), kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	e.config.BearerToken, e.config.QPS = token.Status.Token, -1
	e.config.ContentType, e.config.AcceptContentTypes = "application/json", "application/json" // to be searched
	e.config.WarningHandler = rest.NoWarnings{}
	e.config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &listened{next, e} })
	e.objects, e.client = dynamic.NewForConfigOrDie(e.config), kubernetes.NewForConfigOrDie(e.config)
	file := clientcmdapi.Config{
		Clusters:  map[string]*clientcmdapi.Cluster{"c": {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {Token: token.Status.Token}},
		Contexts:  map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u", Namespace: in}}, CurrentContext: "c",
	}
	if err := clientcmd.WriteToFile(file, e.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return e
}

// editorRights are those of the cluster's own role for administrators of a namespace, without the two.
func editorRights(t *testing.T) []rbacv1.PolicyRule {
	t.Helper()
	admin, err := client.RbacV1().ClusterRoles().Get(t.Context(), "admin", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rules := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods/ephemeralcontainers", "pods/resize"}, Verbs: []string{"patch", "update"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"mine"}, Verbs: []string{"get"}},
	}
	for _, r := range admin.Rules {
		r.Verbs = slices.DeleteFunc(r.Verbs, func(v string) bool { return v == "impersonate" })
		if slices.Contains(r.Verbs, "get") {
			r.Resources = slices.DeleteFunc(r.Resources, func(name string) bool { return name == "secrets" })
		}
		if len(r.Verbs) > 0 && len(r.Resources) > 0 {
			rules = append(rules, r)
		}
	}
	return rules
}

type listened struct {
	next http.RoundTripper
	e    *editor
}

func (l *listened) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(resp.Body, l), resp.Body}
	}
	return resp, err
}

func (l *listened) Write(p []byte) (int, error) {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	return l.e.seen.Write(p)
}

// saw adds what came another way.
func (e *editor) saw(text string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen.WriteString(text)
	return text
}

// hide adds what must not be seen, and what there is now in the Secrets of the sidecars.
func (e *editor) hide(t *testing.T, values ...string) {
	t.Helper()
	for _, name := range []string{v1beta1.AccessSecret, v1beta1.KeysSecret} {
		s, err := client.CoreV1().Secrets(e.in).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range s.Data {
			if key != "namespace" && !strings.HasSuffix(key, "ca.crt") {
				values = append(values, string(value))
			}
		}
	}
	for _, v := range values {
		e.hidden = append(e.hidden, v, base64.StdEncoding.EncodeToString([]byte(v)))
	}
}

// keys counts what was seen of what is hidden, and forgets it.
func (e *editor) keys() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, h := range e.hidden {
		if bytes.Contains(e.seen.Bytes(), []byte(h)) {
			n++
		}
	}
	e.seen.Reset()
	e.shown += n
	return n
}

// attempt begins one. Whatever becomes of it, nothing that was answered shows a key.
func (e *editor) attempt(t *testing.T) {
	t.Helper()
	e.attempts++
	t.Cleanup(func() {
		if n := e.keys(); n > 0 {
			t.Errorf("%d keys or tokens were shown", n)
		}
	})
}

// denied is for an answer that has to be a refusal, in these words.
func denied(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Error("it is let in")
		return
	}
	has(t, "the refusal", err.Error(), words...)
}

func (e *editor) resource(o *unstructured.Unstructured) dynamic.ResourceInterface {
	resource, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	in := o.GetNamespace()
	if in == "" {
		in = e.in
	}
	return e.objects.Resource(resource).Namespace(in)
}

// create creates an object; only by way of trial where how says so.
func (e *editor) create(t *testing.T, manifest string, how ...string) (*unstructured.Unstructured, error) {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.UnmarshalStrict([]byte(manifest), &o.Object); err != nil {
		t.Fatalf("%v\n%s", err, manifest)
	}
	return e.resource(o).Create(t.Context(), o, metav1.CreateOptions{DryRun: how, FieldValidation: metav1.FieldValidationStrict})
}

// patch merges something into an object, or a part of it. The object is written "apiVersion kind name".
func (e *editor) patch(t *testing.T, object, patch string, part ...string) error {
	t.Helper()
	var o unstructured.Unstructured
	var version, kind, name string
	if _, err := fmt.Sscan(object, &version, &kind, &name); err != nil {
		t.Fatal(err)
	}
	o.SetAPIVersion(version)
	o.SetKind(kind)
	text, err := yaml.YAMLToJSON([]byte(patch))
	if err != nil {
		t.Fatal(err)
	}
	how := types.StrategicMergePatchType
	if strings.HasPrefix(version, v1beta1.GroupVersion.Group) {
		how = types.MergePatchType
	}
	_, err = e.resource(&o).Patch(t.Context(), name, how, text, metav1.PatchOptions{}, part...)
	return err
}

// kubectl runs a command of the editor's. What it says is in the error, too.
func (e *editor) kubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return e.kubectlWith(t, "", args...)
}

func (e *editor) kubectlWith(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	out, err := cluster.KubectlWith(t.Context(), stdin, append([]string{"--kubeconfig=" + e.kubeconfig}, args...)...)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return e.saw(out), err
}
