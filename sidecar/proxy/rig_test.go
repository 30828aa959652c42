package proxy_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/netns"
)

const (
	qwen     = "dashscope.aliyuncs.com"
	moonshot = "api.moonshot.cn"
	vllm     = "vllm.models.svc.cluster.local"
)

func TestMain(m *testing.M) {
	netns.Enter(map[string]string{qwen: "127.0.0.1", moonshot: "127.0.0.1", vllm: "127.0.0.1", "foreign.example.com": "127.0.0.1", "loop.example.com": "127.0.0.1", "api.default.svc": "127.0.0.3", "other.default.svc": "127.0.0.4", "dead.default.svc": "127.0.0.5", azure: "127.0.0.2", anthropic: "127.0.0.2"})
	os.Exit(m.Run())
}

// rig is a proxy in front of a provider that is TLS on port 443 and plain on port 80 for every host.
type rig struct {
	t        *testing.T
	provider *llmserver.Server
	store    *snapshot.Store
	proxy    *proxy.Proxy
	addr     string
	world    string // an address that the app's connections to are redirected
	client   *http.Client
	log      *lockedBuffer
	metrics  *metrics.Set
}

const providers = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: qwen}
spec:
  host: dashscope.aliyuncs.com
  path: /compatible-mode/v1/chat/completions
  configs:
    defaultConfig: {openAIConfig: {model: qwen-1.8b-chat, apiKey: sk-qwen-0123456789}}
    routeSpecificConfigs: {vip-route: {openAIConfig: {model: qwen-turbo, apiKey: sk-vip-0123456789}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: moonshot}
spec:
  host: api.moonshot.cn
  configs: {defaultConfig: {openAIConfig: {model: moonshot-v1-8k, apiKey: sk-moon-0123456789}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: vllm}
spec:
  host: vllm.models.svc.cluster.local
  tls: {mode: DISABLE}
`

// route is an LLMRoute named after its host; rules are YAML, two spaces deep.
func route(host, rules string) string {
	return fmt.Sprintf("\n---\napiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: %s}\nspec:\n  host: %s\n  rules:\n%s\n",
		strings.ReplaceAll(host, ".", "-"), host, rules)
}

func newRig(t *testing.T, config string, set ...func(*proxy.Options)) *rig {
	t.Helper()
	provider, err := llmserver.Start(llmserver.Options{Addr: "127.0.0.1:443", PlainAddr: "127.0.0.1:80", Hosts: []string{qwen, moonshot, vllm, "foreign.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(provider.CAPEM())
	r := &rig{t: t, provider: provider, store: snapshot.NewStore(), log: &lockedBuffer{}, metrics: metrics.New()}
	log := funcr.New(func(prefix, args string) { r.log.add(args) }, funcr.Options{Verbosity: 1})
	o := proxy.Options{Store: r.store, Log: log, TrustedCAs: pool, Metrics: r.metrics}
	for _, set := range set {
		set(&o)
	}
	if r.proxy, err = proxy.New(o); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.proxy.Serve(l) }()
	r.client = &http.Client{Transport: &http.Transport{
		Proxy:              http.ProxyURL(&url.URL{Scheme: "http", Host: r.addr}),
		DisableCompression: true, MaxIdleConnsPerHost: 64,
	}}
	r.apply(config)
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := r.proxy.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		provider.Close()
		if keys := r.log.find("sk-"); keys != "" {
			t.Errorf("the log has a key: %s", keys)
		}
	})
	return r
}

// apply publishes a configuration; every object must be valid.
func (r *rig) apply(config string) {
	r.t.Helper()
	o := routing.Objects{Secrets: []routing.Secret{}}
	for doc := range strings.SplitSeq(config, "\n---\n") {
		if _, err := o.Decode([]byte(doc), "default"); err != nil {
			r.t.Fatal(err)
		}
	}
	table, problems := routing.Compile(o, &routing.Workload{Namespace: "default", Labels: map[string]string{"app": "sleep"}})
	for _, p := range problems {
		if p.Severity == routing.Invalid {
			r.t.Fatalf("%s %s", p.Object, p)
		}
	}
	r.store.Publish(&snapshot.Snapshot{Table: table, Problems: problems, Ready: true})
}

const (
	prompt   = `{"messages":[{"role":"user","content":"hello there"}]}`
	streamed = `{"stream":true,"messages":[{"role":"user","content":"one two three four five six"}]}`
)

type reply struct {
	status int
	header http.Header
	body   string
}

// do sends a request through the proxy and reads the whole answer.
func (r *rig) do(method, url, body string, header ...string) reply {
	r.t.Helper()
	got, err := r.try(method, url, body, header...)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, url, err)
	}
	return got
}

func (r *rig) try(method, url, body string, header ...string) (reply, error) {
	resp, err := r.open(context.Background(), method, url, body, header...)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}, err
}

func (r *rig) open(ctx context.Context, method, url, body string, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return r.client.Do(req)
}

// last gives the last request that the provider got.
func (r *rig) last() llmserver.Request {
	r.t.Helper()
	all := r.provider.Requests()
	if len(all) == 0 {
		r.t.Fatal("the provider got nothing")
	}
	return all[len(all)-1]
}

// wantError asserts an error in OpenAI's shape.
func (got reply) wantError(t *testing.T, status int, code routing.Code, mentions ...string) {
	t.Helper()
	var e struct {
		Error struct {
			Message, Type string
			Code          routing.Code
		}
	}
	if err := json.Unmarshal([]byte(got.body), &e); err != nil {
		t.Fatalf("%d %q is not an error in OpenAI's shape: %v", got.status, got.body, err)
	}
	if got.status != status || e.Error.Code != code || e.Error.Type == "" {
		t.Errorf("got %d %s, want %d %s", got.status, got.body, status, code)
	}
	for _, m := range mentions {
		if !strings.Contains(e.Error.Message, m) {
			t.Errorf("the message %q does not mention %q", e.Error.Message, m)
		}
	}
	if strings.Contains(got.body, "sk-") {
		t.Errorf("the answer has a key: %s", got.body)
	}
}

// raw sends bytes as they are and gives the first answer.
func (r *rig) raw(text string) (reply, error) {
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		return reply{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return reply{}, err
	}
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}, err
}

// gauge reads one of the metrics.
func (r *rig) gauge(name string) int {
	r.t.Helper()
	var b strings.Builder
	r.metrics.Write(&b)
	for line := range strings.Lines(b.String()) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				r.t.Fatal(err)
			}
			return int(n)
		}
	}
	r.t.Fatalf("there is no %s in %s", name, b.String())
	return 0
}

// await looks until a metric has a value.
func (r *rig) await(name string, want int) {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		got := r.gauge(name)
		if got == want {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s is %d, and should become %d", name, got, want)
		}
	}
}
