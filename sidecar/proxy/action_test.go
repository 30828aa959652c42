package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
)

func TestARuleRewritesWhatTheBackendSees(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", `
  - match: [{uri: {prefix: /old/}}, {uri: {prefix: /older/}}]
    rewrite: {uri: /new/, authority: inside.example.com}
    route: [{destination: {host: api}}]
  - match: [{uri: {exact: /exact}}]
    rewrite: {uri: /else}
    route: [{destination: {host: api}}]
  - match: [{uri: {regex: '/item/[^/]*/.*'}}]
    rewrite: {uriRegexRewrite: {match: '^/item/([^/]*)/(.*)$', rewrite: '/\2/of/\1'}}
    route: [{destination: {host: api}}]
  - rewrite: {uri: /base/}
    route: [{destination: {host: api}}]`))
	f := func(path, want, host string) {
		t.Helper()
		if got := g.call("GET", "http://api.example.com"+path, ""); got.status != 200 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
		if q := g.api.last(); q.URL.RequestURI() != want || q.Host != host {
			t.Errorf("%s: the backend got %s of %s, want %s", path, q.URL.RequestURI(), q.Host, want)
		}
	}
	f("/old/a?b=c", "/new/a?b=c", "inside.example.com")
	f("/older/a%20b", "/new/a%20b", "inside.example.com")
	f("/exact", "/else", "api.example.com")
	f("/item/7/x", "/x/of/7", "api.example.com")
	f("/rest", "/base/rest", "api.example.com")
	f("/", "/base/", "api.example.com")
}

func TestARuleAnswersByItself(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", `
  - match: [{uri: {prefix: /moved/}}]
    redirect: {uri: /here, authority: new.example.com, scheme: https, redirectCode: 308}
  - match: [{uri: {prefix: /part/}}]
    redirect: {prefixRewrite: /whole/, port: 8443}
  - match: [{uri: {exact: /fixed}}]
    directResponse: {status: 418, body: {string: "short and stout"}}
    headers: {response: {set: {content-type: text/x-tea, x-kind: pot}}}
  - route: [{destination: {host: api}}]`))
	f := func(path string, status int, location string) {
		t.Helper()
		if got := g.call("GET", "http://api.example.com"+path, ""); got.status != status || got.header.Get("Location") != location {
			t.Errorf("%s: %d %v", path, got.status, got.header)
		}
	}
	f("/moved/x?a=b", 308, "https://new.example.com/here?a=b")
	f("/part/x?a=b", 301, "http://api.example.com:8443/whole/x?a=b")
	got := g.call("POST", "http://api.example.com/fixed", "ignored")
	if got.status != 418 || got.body != "short and stout" || got.header.Get("Content-Type") != "text/x-tea" || got.header.Get("X-Kind") != "pot" {
		t.Errorf("got %d %q %v", got.status, got.body, got.header)
	}
	if g.api.count() > 0 {
		t.Error("the backend was called")
	}
}

func TestARuleMakesTroubleOnPurpose(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", `
  - match: [{uri: {exact: /always}}]
    fault: {abort: {httpStatus: 555, percentage: {value: 100}}}
    route: [{destination: {host: api}}]
  - match: [{uri: {exact: /half}}]
    fault: {abort: {httpStatus: 503, percentage: {value: 50}}}
    route: [{destination: {host: api}}]
  - match: [{uri: {exact: /late}}]
    fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}}
    route: [{destination: {host: api}}]
  - match: [{uri: {exact: /never}}]
    fault: {delay: {fixedDelay: 1h, percentage: {value: 0}}, abort: {httpStatus: 500, percentage: {value: 0}}}
    route: [{destination: {host: api}}]`))
	for range 20 {
		if got := g.call("GET", "http://api.example.com/always", ""); got.status != 555 || !strings.Contains(got.body, string(routing.FaultInjected)) {
			t.Fatalf("got %d %s", got.status, got.body)
		}
		if got := g.call("GET", "http://api.example.com/never", ""); got.status != 200 {
			t.Fatalf("got %d", got.status)
		}
	}
	failed := 0
	for range 200 {
		if g.call("GET", "http://api.example.com/half", "").status == 503 {
			failed++
		}
	}
	if failed < 60 || failed > 140 { // five standard deviations
		t.Errorf("%d of 200 failed", failed)
	}
	begun := time.Now()
	if got := g.call("GET", "http://api.example.com/late", ""); got.status != 200 || time.Since(begun) < 300*time.Millisecond {
		t.Errorf("got %d after %s", got.status, time.Since(begun))
	}
}

func TestHeadersAreEditedForTheRuleAndTheBackend(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", `
  - headers:
      request: {remove: [x-secret], set: {x-who: gateway, x-level: rule}, add: {x-more: a}}
      response: {remove: [x-backend], set: {server: remora}, add: {x-more: b}}
    route:
    - destination: {host: api}
      headers: {request: {set: {x-level: backend}}, response: {set: {x-route: one}}}`))
	got := g.call("GET", "http://api.example.com/", "", "X-Secret", "s", "X-Who", "me", "X-Who", "too", "X-More", "own", "X-Level", "client")
	h := g.api.last().Header
	if h.Get("X-Secret") != "" || strings.Join(h.Values("X-Who"), ";") != "gateway" || strings.Join(h.Values("X-More"), ";") != "own;a" || strings.Join(h.Values("X-Level"), ";") != "backend" {
		t.Errorf("the backend got %v", h)
	}
	if h := got.header; h.Get("X-Backend") != "" || h.Get("Server") != "remora" || h.Get("X-More") != "b" || h.Get("X-Route") != "one" {
		t.Errorf("the client got %v", h)
	}
}

func TestAMirrorGetsACopyThatNobodyWaitsFor(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", `
  - match: [{uri: {prefix: /two}}]
    rewrite: {uri: /2}
    mirror: {host: other}
    mirrorPercentage: {value: 100}
    route: [{destination: {host: api}}]
  - route: [{destination: {host: api}}]`))
	blocked := make(chan struct{})
	g.other.answer(func(w http.ResponseWriter, _ *http.Request) { <-blocked; w.WriteHeader(500) })
	defer close(blocked)
	body := strings.Repeat("b", 500<<10)
	if got := g.call("POST", "http://api.example.com/two/x?a=b", body, "X-Own", "kept"); got.status != 200 || got.body != "api /2/x" {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	select {
	case <-g.other.asked:
	case <-time.After(10 * time.Second):
		t.Fatal("the mirror got nothing")
	}
	q := g.other.last()
	if q.body != body || q.URL.RequestURI() != "/2/x?a=b" || q.Host != "api.example.com-shadow" || q.Header.Get("X-Own") != "kept" || q.Header.Get("X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("the mirror got %s %s %v and %d bytes", q.Host, q.URL, q.Header, len(q.body))
	}
	if got := g.call("POST", "http://api.example.com/one", "x"); got.status != 200 || g.other.count() != 1 {
		t.Errorf("another rule: %d, %d copies", got.status, g.other.count())
	}
}

func TestAMirrorThatHangsOrIsDeadTakesBoundedMemory(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", `
  - mirrors: [{destination: {host: other}, percentage: {value: 100}}, {destination: {host: dead}, percentage: {value: 100}}]
    route: [{destination: {host: api}}]`))
	blocked := make(chan struct{})
	g.other.answer(func(http.ResponseWriter, *http.Request) { <-blocked })
	defer close(blocked)
	body := strings.Repeat("b", 100<<10)
	by := &http.Transport{DialContext: g.dialContext, MaxIdleConnsPerHost: 16}
	defer by.CloseIdleConnections()
	var failed atomic.Int64
	var all sync.WaitGroup
	begun := time.Now()
	for range 16 {
		all.Go(func() {
			for range 100 {
				if got, err := g.try(by, "POST", "http://api.example.com/", body); err != nil || got.status != 200 {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if failed.Load() > 0 || time.Since(begun) > 60*time.Second {
		t.Errorf("%d calls failed, in %s", failed.Load(), time.Since(begun))
	}
	if n := g.other.count(); n == 0 || n > 256 {
		t.Errorf("%d copies are under way", n)
	}
	if g.metrics.MirrorsDropped("default/other").Get() == 0 {
		t.Error("no copy is said to have been left out")
	}
}

func TestWhatAPlainHostGetsPassesAsItIs(t *testing.T) {
	g := newGateway(t, gatewayOf(plainServer)+virtual("api.example.com", toAPI))
	g.api.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"chat.completion","model":"m","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}`)
	})
	for name, body := range map[string]string{
		"json": `{"model":"m","stream":false,"messages":[]}`, "twice": `{"model":"a","model":"b"}`, "broken": `{"model":`, "none": "no JSON", "empty": "",
		"stream": `{"stream":true,"messages":[]}`, "long": strings.Repeat("x", 5<<20),
	} {
		for _, method := range []string{"POST", "PUT", "DELETE"} {
			if got := g.call(method, "http://api.example.com/v1/chat/completions", body, "Content-Type", "text/odd", "Authorization", "Bearer mine", "Accept-Encoding", "br"); got.status != 200 {
				t.Errorf("%s %s: %d %s", method, name, got.status, got.body)
			}
			q := g.api.last()
			if q.body != body || q.Method != method || q.Header.Get("Content-Type") != "text/odd" || q.Header.Get("Authorization") != "Bearer mine" || q.Header.Get("Accept-Encoding") != "br" {
				t.Errorf("%s %s: the backend got %s %v, %d bytes", method, name, q.Method, q.Header, len(q.body))
			}
		}
	}
	if got := g.call("GET", "http://api.example.com/v1/realtime", ""); got.status != 200 {
		t.Errorf("a path of a WebSocket without one: %d", got.status)
	}
	if got := g.metricsText(); !strings.Contains(got, `remora_tokens_total{provider="default/api",model="",operation="chat",type="input",precision="exact"} 77`) {
		t.Errorf("tokens: %s", grepLines(got, "remora_tokens_total"))
	}
}

func (g *gatewayRig) metricsText() string {
	var b strings.Builder
	g.metrics.Write(&b)
	return b.String()
}

func grepLines(text, part string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) && line[0] != '#' {
			fmt.Fprint(&out, line)
		}
	}
	return out.String()
}
