package integration

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/installation"
	"remora.dev/remora/test/llmserver"
)

// patient is for what waits for others to ask again.
const patient = 3 * time.Minute

// seen is the keys that have come to a provider.
type seen struct {
	mu   sync.Mutex
	keys map[string]int
}

func (s *seen) note(r llmserver.Request) {
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[key]++
}

func (s *seen) times(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[key]
}

// keyedTenant is a labelled namespace, whose sidecars have what the controller gives them and nothing else.
type keyedTenant struct {
	*tenant
	*seen
	provider *llmserver.Server
	clients  *kubernetes.Clientset
	token    string // the file of it, as the kubelet would mount it
	access   string // a kubeconfig with that file
}

func newKeyedTenant(t *testing.T, in *installation.Installation) *keyedTenant {
	t.Helper()
	k := &keyedTenant{tenant: newTenant(t, in), seen: &seen{keys: map[string]int{}}}
	k.provider = newProvider(t, llmserver.Options{Quiet: true, Told: k.note})
	config := rest.CopyConfig(in.Config())
	config.QPS = -1
	var err error
	if k.clients, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	k.kubectl(t, "label", "namespace", k.namespace, v1beta1.InjectLabel+"="+v1beta1.InjectEnabled)
	k.token = filepath.Join(t.TempDir(), "token")
	first := k.issued(t, "")
	k.mount(t, first)
	k.access = k.token + ".kubeconfig"
	file, err := k.TokenKubeconfig(k.namespace+"-mounted", first)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := clientcmd.LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range kubeconfig.AuthInfos {
		user.Token, user.TokenFile = "", k.token
	}
	if err := clientcmd.WriteToFile(*kubeconfig, k.access); err != nil {
		t.Fatal(err)
	}
	return k
}

// issued waits for a token that is not the one before.
func (k *keyedTenant) issued(t *testing.T, before string) string {
	t.Helper()
	var token []byte
	await(t, "a token", func() (string, bool) {
		out, err := k.Kubectl(t.Context(), "-n", k.namespace, "get", "secret", v1beta1.AccessSecret, "-o", "jsonpath={.data.token}")
		if err != nil {
			return out, false
		}
		token, err = base64.StdEncoding.DecodeString(out)
		return "it has no other", err == nil && len(token) > 0 && string(token) != before
	})
	return string(token)
}

// mount does what the kubelet does, some time after a Secret has changed.
func (k *keyedTenant) mount(t *testing.T, token string) {
	t.Helper()
	next := k.token + ".next"
	if err := os.WriteFile(next, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, k.token); err != nil {
		t.Fatal(err)
	}
}

// follower describes a sidecar of the namespace.
func (k *keyedTenant) follower(t *testing.T) *sidecar {
	t.Helper()
	trusted := filepath.Join(t.TempDir(), "ca.pem")
	if err := k.provider.WriteCA(trusted); err != nil {
		t.Fatal(err)
	}
	s, err := k.SidecarWith(k.access, k.namespace, "--trusted-ca="+trusted)
	if err != nil {
		t.Fatal(err)
	}
	return beside(t, s)
}

// change gives a Secret of the namespace another key.
func (k *keyedTenant) change(t *testing.T, secret, value string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"stringData":{%q:%q}}`, v1beta1.DefaultAPIKeyName, value)
	if _, err := k.clients.CoreV1().Secrets(k.namespace).Patch(t.Context(), secret, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// awaitKey waits until a call of each sidecar bears a key. Nobody else may call meanwhile.
func (k *keyedTenant) awaitKey(t *testing.T, key string, sidecars ...*sidecar) {
	t.Helper()
	for _, s := range sidecars {
		await(t, "a call with another key", func() (string, bool) {
			before := k.times(key)
			a := s.mustAsk(t, dashscope)
			return fmt.Sprintf("%+v", a), k.times(key) > before
		})
	}
}

// awaitRefused waits until a call of each sidecar is refused for want of a key.
func (k *keyedTenant) awaitRefused(t *testing.T, sidecars ...*sidecar) {
	t.Helper()
	for _, s := range sidecars {
		await(t, "a call to be refused", func() (string, bool) {
			a := s.mustAsk(t, dashscope)
			return fmt.Sprintf("%+v", a), revoked(a)
		})
	}
}

func revoked(a answer) bool {
	return a.status == http.StatusServiceUnavailable && (a.code == "SecretNotFound" || a.code == "KeyRevoked")
}

// stream is an answer that comes event by event.
type stream struct {
	events chan string
	end    error
}

// stream begins one, and waits for its first event.
func (s *sidecar) stream(t *testing.T, host, fault string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/", strings.NewReader(`{"stream":true,"messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(llmserver.FaultHeader, fault)
	patient := s.Client()
	resp, err := patient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("a stream is answered %s", resp.Status)
	}
	st := &stream{events: make(chan string, 10_000)}
	go func() {
		defer patient.CloseIdleConnections()
		defer resp.Body.Close()
		defer close(st.events)
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				st.events <- data
			}
		}
		st.end = lines.Err()
	}()
	if _, ok := <-st.events; !ok {
		t.Fatalf("a stream has no event: %v", st.end)
	}
	return st
}

// rest gives the last event of all that come.
func (s *stream) rest() (last string, n int, err error) {
	for e := range s.events {
		last, n = e, n+1
	}
	return last, n, s.end
}
