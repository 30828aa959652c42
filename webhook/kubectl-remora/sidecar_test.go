package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
)

// demo is the configuration of docs/kubectl-remora.md.
const demo = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: dashscope, namespace: demo}
spec:
  host: dashscope.example
  port: %[1]s
  tls: {mode: DISABLE, allowInsecureKey: true}
  configs: {defaultConfig: {openAIConfig: {model: qwen-turbo, apiKey: sk-very-secret}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: moonshot, namespace: demo}
spec:
  host: 127.0.0.1
  port: %[1]s
  tls: {mode: DISABLE, allowInsecureKey: true}
  configs: {defaultConfig: {openAIConfig: {model: moonshot-v1-8k, apiKey: sk-very-secret}}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: chat, namespace: demo}
spec:
  host: demo-llm-server
  rules:
  - name: subscribers
    matches: [{headers: {user-type: {exact: subscriber}}}]
    backendRefs: [{providerHost: dashscope.example}]
  - name: everybody
    backendRefs: [{providerHost: 127.0.0.1}]
`

// provider answers as providers do.
func provider(t *testing.T) (port string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"model":"moonshot-v1-8k","choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}`)
	}))
	t.Cleanup(s.Close)
	return s.URL[strings.LastIndexByte(s.URL, ':')+1:]
}

// ask makes a call as an app does.
func (s sidecar) ask(t *testing.T) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.app+"/", strings.NewReader(`{"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "demo-llm-server"
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != 200 {
		t.Fatalf("%d %s", answer.StatusCode, text)
	}
}

// What stands in docs/kubectl-remora.md, below the commands that are asked here, is what they write.
func TestTheDocsShowWhatARealSidecarIsShownAs(t *testing.T) {
	port := provider(t)
	p := startPods(t)
	p.add("sleep-1", startSidecar(t, fmt.Sprintf(demo, port)))
	docs, err := os.ReadFile("../../docs/kubectl-remora.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"explain request --from pod/sleep-1 --host demo-llm-server -H user-type:subscriber",
		"explain request --from pod/sleep-1 --host demo-llm-server",
		"config pod/sleep-1",
	} {
		out, fault, code := p.call(t.Context(), strings.Fields(command)...)
		if code != exitOK || fault != "" {
			t.Fatalf("%s: %d %s", command, code, fault)
		}
		out = strings.ReplaceAll(out, ":"+port, ":8080")
		out = regexp.MustCompile(`# generation [0-9a-f]+`).ReplaceAllString(out, "# generation 5f0c21d4")
		if shown := "$ kubectl remora " + command + "\n" + out + "```"; !strings.Contains(string(docs), shown) {
			t.Errorf("docs/kubectl-remora.md does not show\n%s", shown)
		}
		if strings.Contains(out, "sk-very-secret") {
			t.Errorf("%s shows a key", command)
		}
	}
}

func TestTopShowsTheCallsOfEachPodAndNamesThoseThatDoNotAnswer(t *testing.T) {
	p := startPods(t)
	s := startSidecar(t, fmt.Sprintf(demo, provider(t)))
	p.add("busy", sidecar{health: loaded(t, s)})
	p.add("gone", sidecar{health: "127.0.0.1:1"})
	p.add("garbage", sidecar{health: garbage(t, "hello\x1b[2J 1\nworld\n")})
	p.add("endless", sidecar{health: garbage(t, strings.Repeat("x 1\n", maxAnswer/4+1))})

	s.ask(t)
	out, fault, code := p.call(t.Context(), "top", "--once", "-o", "json", "--interval", "1s", "--by", "model")
	if code != exitOK || fault != "" {
		t.Fatalf("%d %s", code, fault)
	}
	var r TopReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 1 || r.Rows[0].Name != "moonshot-v1-8k" || r.Rows[0].Requests <= 0 || r.Rows[0].Failed != 0 {
		t.Errorf("rows: %+v", r.Rows)
	} else if in, out := r.Rows[0].Input/r.Rows[0].Requests, r.Rows[0].Output/r.Rows[0].Requests; math.Abs(in-12)+math.Abs(out-3) > 1e-9 {
		t.Errorf("%v and %v tokens a request, want 12 and 3", in, out)
	}
	silent := map[string]string{}
	for _, s := range r.Silent {
		silent[s.Name] = s.Reason
	}
	for name, why := range map[string]string{"gone": "nothing listens there", "garbage": "something else than metrics", "endless": "more than 16 MiB"} {
		if !strings.Contains(silent[name], why) {
			t.Errorf("%s: %q, want %q", name, silent[name], why)
		}
	}
	out, _, _ = p.call(t.Context(), "top", "--once", "--interval", "1s")
	if !strings.Contains(out, "demo/busy") || !strings.Contains(out, "no answer: demo/gone  the kubelet says: nothing listens there") || strings.Contains(out, "\x1b") {
		t.Errorf("the table is\n%s", out)
	}
}

// loaded shows the metrics of a sidecar. Apps call it between two readings, and none while it is read: what a call adds to several metrics is
// read as a whole.
func loaded(t *testing.T, s sidecar) (health string) {
	t.Helper()
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.health})
	var readings atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if readings.Add(1)%2 == 0 {
			for range 20 {
				s.ask(t)
			}
		}
		to.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return strings.TrimPrefix(front.URL, "http://")
}

// garbage answers everything with a text.
func garbage(t *testing.T, text string) (address string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}
