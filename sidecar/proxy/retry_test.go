package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

func TestAShortRetryAfterIsHonouredAndALongOneIsTheAppsAffair(t *testing.T) {
	for _, c := range []struct {
		after   string
		tries   int
		atLeast time.Duration
	}{
		{"0", 2, 0}, {"1", 2, time.Second}, {"100", 1, 0}, {"-1", 1, 0}, {"soon", 1, 0}, {"", 1, 0},
		{"Wed, 21 Oct 2015 07:28:00 GMT", 2, 0}, {"Wed, 21 Oct 2015", 1, 0}, {"Fri, 31 Dec 9999 23:59:59 GMT", 1, 0}, {"18446744074", 1, 0}, {"9223372036854775808", 1, 0},
	} {
		t.Run(c.after, func(t *testing.T) {
			r := newRig(t, providers)
			r.provider.Script("", llmserver.Fault{Status: 429, RetryAfter: c.after})
			begun := time.Now()
			got := r.do("POST", "http://"+qwen, prompt)
			want := 200
			if c.tries == 1 {
				want = 429
			}
			if n := r.provider.Received(); got.status != want || n != c.tries || time.Since(begun) < c.atLeast {
				t.Errorf("%d after %d requests and %s", got.status, n, time.Since(begun))
			}
		})
	}
}

func TestARequestIsSentAgainOnlyWhereTheRuleSaysSo(t *testing.T) {
	for _, c := range []struct {
		fault, retries string
		status, sent   int
	}{
		{"status=500", "", 500, 1},
		{"status=502", "", 502, 1},
		{"reset", "", 502, 1},
		{"close", "", 502, 1},
		{"garbage", "{attempts: 3, retryOn: [reset]}", 502, 1},
		{"reset", "{attempts: 3, retryOn: [reset]}", 502, 4},
		{"close", "{attempts: 1, retryOn: [reset]}", 502, 2},
		{"status=429 retry-after=0", "{attempts: 0}", 429, 1},
		{"status=429 retry-after=0", "", 429, 3},
		{"status=400 retry-after=0", "", 400, 1},
	} {
		t.Run(c.fault+" "+c.retries, func(t *testing.T) {
			rule := "\n  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]"
			if c.retries != "" {
				rule += "\n    retries: " + c.retries
			}
			r := newRig(t, providers+route("demo-llm-server", rule))
			f, err := llmserver.ParseFault(c.fault)
			if err != nil {
				t.Fatal(err)
			}
			f.Times = -1
			r.provider.Script("", f)
			got := r.do("POST", "http://demo-llm-server", prompt)
			if n := r.provider.Received(); got.status != c.status || n != c.sent {
				t.Errorf("%d after %d requests, want %d after %d", got.status, n, c.status, c.sent)
			}
			if c.sent > 1 && got.header.Get("X-Should-Retry") != "false" {
				t.Errorf("SDKs would try again: %v", got.header)
			}
		})
	}
}

func TestAnInterimAnswerMeansThatTheProviderHasTheRequest(t *testing.T) {
	r := newRig(t, rawConfig("\n    retries: {attempts: 0}"))
	h := serve(t, func(n int, c *net.TCPConn, _ *http.Request) bool {
		if n == 0 {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			return true
		}
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		return false
	})
	r.do("POST", "http://raw", prompt)
	r.do("POST", "http://raw", prompt).wantError(t, 502, routing.UpstreamReset)
	if h.count() != 2 {
		t.Errorf("the provider got %d requests", h.count())
	}
}

func TestNothingIsTriedAgainOnceTheAppHasSomething(t *testing.T) {
	r := newRig(t, providers+route("demo-llm-server", `
  - retries: {attempts: 3, retryOn: [reset, first-token]}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	r.provider.Script("", llmserver.Fault{CutAfter: new(1), Times: -1})
	got := r.do("POST", "http://demo-llm-server", streamed)
	if n := r.provider.Received(); n != 1 || strings.Count(got.body, `"code":"UpstreamReset"`) != 1 {
		t.Errorf("%d requests, %s", n, got.body)
	}
}

func TestASlowFirstTokenIsFollowedByTheNextBackend(t *testing.T) {
	r := newRig(t, providers+route("demo-llm-server", `
  - timeouts: {firstToken: 200ms}
    retries: {attempts: 1, retryOn: [first-token]}
    backendRefs:
    - {providerHost: dashscope.aliyuncs.com, priority: 0}
    - {providerHost: api.moonshot.cn, priority: 1}`))
	r.provider.Script(qwen, llmserver.Fault{FirstToken: time.Hour, HeadersEarly: true})
	got := r.do("POST", "http://demo-llm-server", streamed)
	if got.status != 200 || !strings.Contains(got.body, "moonshot-v1-8k") || strings.Contains(got.body, "qwen") {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestTheTimeOfARuleCutsAStreamWithAnErrorEvent(t *testing.T) {
	r := newRig(t, providers+route("demo-llm-server", `
  - timeouts: {request: 500ms}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	r.provider.Script("", llmserver.Fault{ChunkDelay: 100 * time.Millisecond, Chunks: 100})
	got := r.do("POST", "http://demo-llm-server", streamed)
	if !strings.HasSuffix(got.body, "\"code\":\"DeadlineExceeded\"}}\n\n") {
		t.Errorf("the stream ends in %s", got.body[max(0, len(got.body)-200):])
	}
}

func TestTheShareOfAMissingProviderIsNobodyElses(t *testing.T) {
	r := newRig(t, providers+route("demo-llm-server", `
  - backendRefs:
    - {providerHost: dashscope.aliyuncs.com, weight: 70}
    - {providerHost: missing.example.com, weight: 30}`))
	served := 0
	for range 300 {
		got := r.do("POST", "http://demo-llm-server", prompt)
		if got.status == 200 {
			served++
		} else {
			got.wantError(t, 503, routing.ProviderNotFound, "missing.example.com")
		}
	}
	if served < 170 || served > 250 {
		t.Errorf("%d of 300 were served, and 210 should be", served)
	}
}

func TestARedirectIsTheAppsToFollow(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script("", llmserver.Fault{Redirect: "https://" + moonshot + "/v1/chat/completions"})
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	got := r.do("POST", "http://"+qwen, prompt)
	if got.status != 307 || r.provider.Received() != 1 || got.header.Get("Location") == "" {
		t.Errorf("got %d, %d requests", got.status, r.provider.Received())
	}
}

func TestTheProxyDoesNotCallItself(t *testing.T) {
	r := newRig(t, providers)
	_, port, _ := net.SplitHostPort(r.addr)
	for _, host := range []string{"127.0.0.1", "loop.example.com", "[::ffff:127.0.0.1]"} {
		r.do("GET", fmt.Sprintf("http://%s:%s/", host, port), "").wantError(t, 421, routing.MisdirectedRequest)
	}
	all, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = r.proxy.Serve(all) }()
	_, port, _ = net.SplitHostPort(all.Addr().String())
	for _, host := range []string{"127.0.0.1", "127.0.0.9", "[::1]"} {
		r.do("GET", fmt.Sprintf("http://%s:%s/", host, port), "").wantError(t, 421, routing.MisdirectedRequest)
	}
}

func TestARetryNeverFallsOnAMissingProvider(t *testing.T) {
	r := newRig(t, providers+route("demo-llm-server", `
  - retries: {attempts: 1, retryOn: [reset]}
    backendRefs:
    - {providerHost: dashscope.aliyuncs.com, weight: 1, priority: 0}
    - {providerHost: missing.example.com, weight: 999999, priority: 1}
    - {providerHost: api.moonshot.cn, weight: 1, priority: 1}`))
	r.provider.Script(qwen, llmserver.Fault{Reset: true, Times: -1})
	if got := r.do("POST", "http://demo-llm-server", prompt); got.status != 200 || r.last().Host != moonshot {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestAnSDKIsToldWhetherToTryAgain(t *testing.T) {
	r := newRig(t, providers+route("demo-llm-server", "\n  - backendRefs: [{providerHost: missing.example.com}]"))
	if got := r.do("POST", "http://demo-llm-server", prompt); got.header.Get("X-Should-Retry") != "false" {
		t.Errorf("a missing provider: %q", got.header.Get("X-Should-Retry"))
	}
	// Nothing was tried again here, so the SDK may do as it would without the sidecar.
	r.provider.Script(qwen, llmserver.Fault{Reset: true})
	if got := r.do("POST", "http://"+qwen, prompt); got.status != 502 || got.header.Get("X-Should-Retry") != "" {
		t.Errorf("a reset: %d %q", got.status, got.header.Get("X-Should-Retry"))
	}
}

func TestANameThatDoesNotExistIsTriedOnce(t *testing.T) {
	dns, err := net.ListenPacket("udp", "127.0.0.1:53") // where the namespace's resolv.conf points
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := dns.ReadFrom(buf)
			if err != nil {
				return
			}
			// RFC 1035, section 4.1.1: the question comes back as a response, with "no such name".
			buf[2], buf[3] = 0x81, 0x83
			_, _ = dns.WriteTo(buf[:n], from)
		}
	}()
	r := newRig(t, strings.ReplaceAll(providers, moonshot, "nowhere.example.com"))
	r.do("POST", "http://nowhere.example.com", prompt).wantError(t, 502, routing.ConnectFailure, "nowhere.example.com does not resolve")
	if l := r.log.find("another follows"); l != "" {
		t.Errorf("it is tried again: %s", l)
	}
}
