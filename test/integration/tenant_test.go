package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/test/installation"
	"remora.dev/remora/test/llmserver"
)

// The two providers that are known by name where these tests run.
const (
	dashscope = "dashscope.aliyuncs.com"
	moonshot  = "api.moonshot.cn"
)

// tenant is a namespace of an installation.
type tenant struct {
	*installation.Installation
	namespace string
}

func newTenant(t *testing.T, in *installation.Installation) *tenant {
	t.Helper()
	n := &tenant{in, fmt.Sprintf("tenant-%d", namespaces.Add(1))}
	if out, err := in.Kubectl(t.Context(), "create", "namespace", n.namespace); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return n
}

// kubectl runs a command in the namespace that must succeed, and gives all that it says.
func (n *tenant) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := n.Kubectl(t.Context(), append([]string{"-n", n.namespace}, args...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// apply is kubectl apply of what must be admitted.
func (n *tenant) apply(t *testing.T, manifest string, args ...string) string {
	t.Helper()
	out, err := n.tryApply(t, manifest, args...)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, manifest)
	}
	return out
}

func (n *tenant) tryApply(t *testing.T, manifest string, args ...string) (string, error) {
	t.Helper()
	return n.KubectlWith(t.Context(), manifest, append([]string{"-n", n.namespace, "apply", "-f", "-"}, args...)...)
}

// await asks until the answer is the one that is waited for, and gives it.
func await(t *testing.T, what string, ask func() (answer string, ok bool)) string {
	t.Helper()
	return awaitFor(t, 45*time.Second, what, ask)
}

// awaitFor is await for what may take longer.
func awaitFor(t *testing.T, limit time.Duration, what string, ask func() (answer string, ok bool)) string {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); ; {
		said, ok := ask()
		if ok {
			return said
		}
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s; at last:\n%s", what, said)
		case <-tick.C:
		}
	}
}

// awaitOutput is await for a text in what a kubectl command says.
func (n *tenant) awaitOutput(t *testing.T, want string, args ...string) string {
	t.Helper()
	return await(t, want, func() (string, bool) {
		out, _ := n.Kubectl(t.Context(), append([]string{"-n", n.namespace}, args...)...) // with what is missing it says so
		return out, strings.Contains(fields(out), want)
	})
}

// newProvider is a fake of the providers, on a port of its own or on the one given.
func newProvider(t *testing.T, o llmserver.Options) *llmserver.Server {
	t.Helper()
	o.Hosts = []string{dashscope, moonshot}
	p, err := llmserver.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func portOf(t *testing.T, p *llmserver.Server) string {
	t.Helper()
	_, port, err := net.SplitHostPort(p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// providerOf is the manifest of an LLMProvider for a host that the fake is.
func providerOf(t *testing.T, p *llmserver.Server, name, host, model string) string {
	t.Helper()
	return fmt.Sprintf(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: %s}
spec:
  host: %s
  port: %s
  configs: {defaultConfig: {openAIConfig: {model: %s}}}
---
`, name, host, portOf(t, p), model)
}

// routeOf is the manifest of an LLMRoute that shares calls between the two providers.
func routeOf(name, host string, toDashscope, toMoonshot int) string {
	return fmt.Sprintf(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: %s}
spec:
  host: %s
  rules:
  - backendRefs:
    - {providerHost: %s, weight: %d}
    - {providerHost: %s, weight: %d}
---
`, name, host, dashscope, toDashscope, moonshot, toMoonshot)
}

// sidecar is a running sidecar and an app beside it.
type sidecar struct {
	*installation.Sidecar
	client *http.Client
}

// describe makes a sidecar of the namespace that trusts the fake provider, and does not start it.
func (n *tenant) describe(t *testing.T, p *llmserver.Server, args ...string) *sidecar {
	t.Helper()
	trusted := filepath.Join(t.TempDir(), "ca.pem")
	if err := p.WriteCA(trusted); err != nil {
		t.Fatal(err)
	}
	described, err := n.Sidecar(t.Context(), n.namespace, append(args, "--trusted-ca="+trusted)...)
	if err != nil {
		t.Fatal(err)
	}
	return beside(t, described)
}

// beside puts an app beside a sidecar.
func beside(t *testing.T, described *installation.Sidecar) *sidecar {
	t.Helper()
	s := &sidecar{described, described.Client()}
	s.client.Timeout = 20 * time.Second
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.Kill()
	})
	return s
}

// sidecar starts one.
func (n *tenant) sidecar(t *testing.T, p *llmserver.Server, args ...string) *sidecar {
	t.Helper()
	s := n.describe(t, p, args...)
	s.start(t)
	return s
}

func (s *sidecar) start(t *testing.T) {
	t.Helper()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// config is what the sidecar runs, in its own words.
func (s *sidecar) config(t *testing.T) string {
	t.Helper()
	text, status, err := get(t.Context(), "http://"+s.Admin+"/config")
	if err != nil || status != http.StatusOK {
		t.Fatalf("/config: %d %v", status, err)
	}
	return text
}

// generation names what the sidecar runs.
func (s *sidecar) generation(t *testing.T) string {
	t.Helper()
	first, _, _ := strings.Cut(s.config(t), "\n")
	return first
}

func (s *sidecar) awaitConfig(t *testing.T, want string) string {
	t.Helper()
	return await(t, "the sidecar to run "+want, func() (string, bool) {
		text := s.config(t)
		return text, strings.Contains(text, want)
	})
}

// awaitChange waits until the sidecar runs something else than it did.
func (s *sidecar) awaitChange(t *testing.T, generation string) {
	t.Helper()
	await(t, "another configuration", func() (string, bool) {
		now := s.generation(t)
		return now, now != generation
	})
}

// answer is what became of a call: who answered as which model, or the code of the error.
type answer struct {
	status          int
	provider, model string
	code            string
}

// ask sends a chat completion without a model to a host. Headers are "Name: value".
func (s *sidecar) ask(ctx context.Context, host string, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/", strings.NewReader(`{"messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		return answer{}, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	var body struct {
		Choices []struct{ Message struct{ Content string } }
		Error   struct{ Code string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return answer{}, fmt.Errorf("%s: %w", resp.Status, err)
	}
	a := answer{status: resp.StatusCode, code: body.Error.Code}
	if len(body.Choices) > 0 {
		said, _, _ := strings.Cut(strings.TrimPrefix(body.Choices[0].Message.Content, "I am "), ". You said")
		a.model, a.provider, _ = strings.Cut(said, " at ")
	}
	return a, nil
}

// mustAsk is ask where a failure to be answered at all ends the test.
func (s *sidecar) mustAsk(t *testing.T, host string, headers ...string) answer {
	t.Helper()
	a, err := s.ask(t.Context(), host, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// shares sends n calls to a host and counts who answers.
func (s *sidecar) shares(t *testing.T, n int, host string, headers ...string) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range n {
		a := s.mustAsk(t, host, headers...)
		if a.status != http.StatusOK {
			a.provider = fmt.Sprint(a.status, " ", a.code)
		}
		count[a.provider]++
	}
	return count
}

func get(ctx context.Context, url string) (body string, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), resp.StatusCode, err
}
