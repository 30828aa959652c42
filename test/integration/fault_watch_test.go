package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/installation"
	"remora.dev/remora/test/llmserver"
)

func (f *faults) theWatchIsCutEverySecond(t *testing.T) {
	t.Parallel()
	n, _ := f.tenant(t)
	s := n.describe(t, f.providers)
	g := n.throughAGate(t, s, 0)
	s.start(t)
	apps := s.call(t, 1, "chat")
	passed := g.connections()
	for i := range 4 {
		g.cut()
		n.moves(t, []string{moonshot, dashscope}[i%2], s)
		<-time.After(time.Second) // as often as that
		if now := g.connections(); now == passed {
			t.Error("the sidecar has not connected anew")
		} else {
			passed = now
		}
	}
	apps.noneFailed(t)
	if text := s.config(t); strings.Contains(text, "not been reachable") {
		t.Errorf("an API server that can be reached is called unreachable:\n%s", text)
	}
}

func (f *faults) theAPIServerIsSlow(t *testing.T) {
	t.Parallel()
	n, _ := f.tenant(t)
	s := n.describe(t, f.providers)
	const slowness = 500 * time.Millisecond
	g := n.throughAGate(t, s, slowness)
	s.start(t)
	apps := s.call(t, 1, "chat")
	for _, to := range []string{moonshot, dashscope} {
		n.moves(t, to, s)
	}
	g.cut()
	n.moves(t, moonshot, s)
	apps.noneFailed(t)
	log := s.logged(t)
	if strings.Contains(log, "cannot be reached") || strings.Count(log, "generation") == 0 {
		t.Errorf("a slow API server is one that can be reached:\n%s", log)
	}
}

// A provider that demands no key, so that a call without one would be answered, and be seen here.
func (f *faults) aKeyIsRotatedAndRevoked(t *testing.T) {
	t.Parallel()
	p := newProvider(t, llmserver.Options{})
	n := newTenant(t, f.Installation)
	n.apply(t, strings.Replace(providerOf(t, p, "keyed", dashscope, "qwen-turbo"), "model: qwen-turbo", "model: qwen-turbo, apiKeyRef: {name: account}", 1))
	entry := v1beta1.KeysSecretEntry("account", v1beta1.DefaultAPIKeyName)
	keys := func(value string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData: {%s: %s}\n", v1beta1.KeysSecret, entry, value)
	}
	n.apply(t, keys("sk-first"), installation.AsController()...)
	s := n.sidecar(t, p)
	apps := s.call(t, 2, dashscope)
	apps.more(t, 10)
	for _, next := range []string{"sk-second", "sk-third"} {
		before := s.generation(t)
		n.apply(t, keys(next), installation.AsController()...)
		s.awaitChange(t, before)
		p.Reset()
		apps.more(t, 20)
	}
	apps.noneFailed(t)
	requests := p.Requests()
	for i, r := range requests {
		got := strings.Join(r.Header.Values("Authorization"), " and ")
		if got != "Bearer sk-third" && (i >= 2 || got != "Bearer sk-second") { // two may have been under way
			t.Errorf("request %d of %d has the credentials %q", i, len(requests), got)
		}
	}

	before := s.generation(t)
	n.kubectl(t, "delete", "secret", v1beta1.KeysSecret)
	s.awaitChange(t, before)
	p.Reset()
	if got := s.shares(t, 10, dashscope); got["503 SecretNotFound"] != 10 {
		t.Errorf("of 10 calls whose key was revoked: %v", got)
	}
	if got := p.Requests(); len(got) > 0 {
		t.Errorf("a call whose key was revoked reaches the provider: %+v", got[0])
	}
	n.apply(t, keys("sk-fourth"), installation.AsController()...)
	s.awaitConfig(t, "key=secret:account/apiKey")
	s.mustAsk(t, dashscope, "Authorization: Bearer of-the-app")
	if got := p.Requests(); len(got) != 1 || got[0].Header.Get("Authorization") != "Bearer sk-fourth" {
		t.Errorf("a call whose key is back arrives as %+v", got)
	}
	if strings.Contains(s.config(t)+s.logged(t), "sk-") {
		t.Error("a key is shown")
	}
}

// Beside the one that runs through it, there is one that could not see what has changed until etcd has forgotten it, and one
// that is restarted while nobody can tell it anything.
func (f *faults) theAPIServerIsKilled(t *testing.T) {
	n, s := f.tenant(t)
	late, saved := n.describe(t, f.providers), n.describe(t, f.providers, "--last-good="+filepath.Join(t.TempDir(), "made", "last-good"))
	saved.start(t)
	g := n.throughAGate(t, late, 0) // they share a kubeconfig, which the other one has read
	late.start(t)
	n.awaitOutput(t, "chat chat 1 True True", "get", "llmroutes")
	apps := []*calls{s.call(t, 2, "chat"), late.call(t, 1, "chat")}

	g.shut()
	collection := "/apis/" + v1beta1.GroupVersion.String() + "/namespaces/" + n.namespace + "/llmroutes"
	_, version, _ := strings.Cut(n.kubectl(t, "get", "--raw", collection), `"resourceVersion":"`) // the list's own comes first
	version, _, _ = strings.Cut(version, `"`)
	n.moves(t, moonshot, s, saved)
	if a := late.mustAsk(t, "chat"); a.provider != dashscope {
		t.Fatalf("the gate is not shut: %+v", a)
	}
	if err := saved.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.APIServer.Kill()
	began := time.Now()
	saved.start(t)
	t.Logf("ready from what was saved after %s", time.Since(began))
	if a := saved.mustAsk(t, "chat"); a.provider != moonshot {
		t.Errorf("from what was saved, a call is answered by %+v", a)
	}
	saved.awaitConfig(t, "the configuration is the one that was saved at ")
	s.awaitConfig(t, "the API server has not been reachable since ")
	for _, a := range apps {
		a.more(t, 50)
	}
	if err := f.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	kubelet(t, f.Controller)

	for _, question := range []string{"resourceVersionMatch=Exact", "watch=1&timeoutSeconds=1"} { // of etcd, and of the watch cache
		n.awaitOutput(t, "Expired", "get", "--raw", collection+"?resourceVersion="+version+"&"+question)
	}
	g.reopen()
	await(t, "the change that was made meanwhile", func() (string, bool) {
		a := late.mustAsk(t, "chat")
		return fmt.Sprintf("%+v", a), a.provider == moonshot
	})
	n.moves(t, dashscope, s, late, saved)
	for _, c := range []*sidecar{s, late, saved} {
		await(t, "the end of the outage", func() (string, bool) {
			text := c.config(t)
			return text, !strings.Contains(text, "not been reachable")
		})
	}
	for _, a := range apps {
		a.noneFailed(t)
	}
	n.awaitOutput(t, "3 3 3", "get", "llmroute", "chat", "-o", "jsonpath={.metadata.generation} {.status.conditions[*].observedGeneration}")
	f.goOn(t)
}

func (f *faults) theAPIServerIsFrozen(t *testing.T) {
	n, s := f.tenant(t)
	apps := s.call(t, 2, "chat")
	if err := f.APIServer.Freeze(); err != nil {
		t.Fatal(err)
	}
	apps.more(t, 200)
	if _, status, err := get(t.Context(), "http://"+s.Health+"/readyz"); err != nil || status != http.StatusOK {
		t.Errorf("the sidecar is not ready any more: %d, %v", status, err)
	}
	if err := f.APIServer.Thaw(); err != nil {
		t.Fatal(err)
	}
	n.moves(t, moonshot, s)
	apps.noneFailed(t)
	f.goOn(t)
}

func (f *faults) etcdIsKilled(t *testing.T) {
	n, s := f.tenant(t)
	apps := s.call(t, 2, "chat")
	f.Etcd.Kill()
	if out, err := n.tryApply(t, routeOf("chat", "chat", 0, 1), "--request-timeout=1s"); err == nil {
		t.Errorf("without etcd, a change is taken:\n%s", out)
	}
	apps.more(t, 100)
	if err := f.Etcd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.moves(t, moonshot, s)
	apps.noneFailed(t)
	f.goOn(t)
}

// goOn demands that the webhook has outlived what was done to the control plane. The controller may end where it cannot renew
// its Lease.
func (f *faults) goOn(t *testing.T) {
	t.Helper()
	pid := f.Webhook.PID()
	kubelet(t, f.Webhook)
	if f.Webhook.PID() != pid {
		t.Error("the webhook had ended")
	}
	kubelet(t, f.Controller)
}

// logged is what the sidecar has said.
func (s *sidecar) logged(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.Log())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
