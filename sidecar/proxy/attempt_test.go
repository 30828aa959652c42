package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

// twoProviders is a route to qwen and, where that fails, to moonshot. more is of the rule.
func twoProviders(more string) string {
	return providers + route("chat", more+`
    backendRefs:
    - {providerHost: dashscope.aliyuncs.com}
    - {providerHost: api.moonshot.cn, priority: 1}`)
}

// fault is the one that a text means, for all requests to come.
func fault(t *testing.T, text string) llmserver.Fault {
	t.Helper()
	f, err := llmserver.ParseFault(text)
	if err != nil {
		t.Fatal(err)
	}
	f.Times = -1
	return f
}

// received counts the requests that each host got.
func (r *rig) received() map[string]int {
	n := map[string]int{}
	for _, q := range r.provider.Requests() {
		n[q.Host]++
	}
	return n
}

// conditions are all of retries.retryOn.
var conditions = []string{"connect-failure", "rate-limited", "reset", "gateway-error", "5xx", "first-token"}

func TestEachFaultIsTriedElsewhereOnTheConditionsThatNameIt(t *testing.T) {
	const cut = 0 // the answer has begun, so that its status is good
	for _, c := range []struct {
		fault   string
		retried string       // the conditions on which it is; & is between two that are needed both
		status  int          // that the app sees otherwise
		code    routing.Code // and the error, where it is the sidecar's
		streams string       // the operations: empty for both
	}{
		{fault: "status=400", status: 400, streams: "no"},
		{fault: "status=401", status: 401},
		{fault: "status=404", status: 404},
		{fault: "status=409", status: 409},
		{fault: "status=429", retried: "rate-limited", status: 429},
		{fault: "status=500", retried: "5xx", status: 500},
		{fault: "status=501", retried: "5xx", status: 501},
		{fault: "status=502", retried: "5xx gateway-error", status: 502},
		{fault: "status=503", retried: "5xx gateway-error rate-limited", status: 503},
		{fault: "status=504 body={}", retried: "5xx gateway-error", status: 504},
		{fault: "status=529 chunked", retried: "5xx", status: 529},
		{fault: "status=500 huge=100000", retried: "5xx", status: 500},
		{fault: "reset", retried: "reset", status: 502, code: routing.UpstreamReset},
		{fault: "close", retried: "reset", status: 502, code: routing.UpstreamReset},
		{fault: "garbage", retried: "5xx gateway-error", status: 502, code: routing.UpstreamInvalid},
		{fault: "cut-after=0 headers=early", retried: "reset&first-token", status: cut, code: routing.UpstreamReset},
		{fault: "first-token=1h", retried: "first-token", status: 504, code: routing.FirstTokenTimeout, streams: "no"},
		{fault: "delay=1h", retried: "first-token", status: 504, code: routing.FirstTokenTimeout},
		{fault: "first-token=1h headers=early", retried: "first-token", status: cut, code: routing.FirstTokenTimeout},
		{fault: "keepalive-comments first-token=1h", retried: "first-token", status: cut, code: routing.FirstTokenTimeout, streams: "only"},
	} {
		for _, body := range []string{prompt, streamed} {
			stream := body == streamed
			if c.streams == "no" && stream || c.streams == "only" && !stream {
				continue
			}
			retried := strings.Fields(strings.ReplaceAll(c.retried, "&", ", "))
			if strings.Contains(c.retried, "&") {
				retried = []string{strings.Join(retried, " ")}
			}
			others := slices.DeleteFunc(slices.Clone(conditions), func(s string) bool { return strings.Contains(c.retried, s) })
			if len(retried) > 0 && !strings.Contains(c.fault, "1h") { // which takes its time
				retried = append(retried, strings.Join(conditions, ", "))
			}
			for i, on := range append(slices.Clone(retried), strings.Join(others, ", "), "none") {
				name := fmt.Sprintf("%s, stream: %t, on %s", c.fault, stream, on)
				t.Run(name, func(t *testing.T) {
					limit := "200ms"
					if i < len(retried) {
						limit = "1s" // which the second provider has to keep, be the machine busy or not
					}
					rule := "\n  - timeouts: {firstToken: " + limit + "}\n    retries: {attempts: 1, retryOn: [" + on + "]}"
					if on == "none" {
						rule = "\n  - timeouts: {firstToken: " + limit + "}\n    retries: {attempts: 0}"
					}
					r := newRig(t, twoProviders(rule))
					r.provider.Script(qwen, fault(t, c.fault))
					got, err := r.try("POST", "http://chat", body, "Authorization", "Bearer the app's own")
					n := r.received()
					retry := got.header.Get("X-Should-Retry")
					if i < len(retried) {
						wantMoonshotOnly(t, r, got, n)
						return
					}
					if n[qwen] != 1 || n[moonshot] != 0 {
						t.Errorf("the providers got %v", n)
					}
					switch {
					case c.status == cut && stream:
						if got.status != 200 || strings.Count(got.body, `"code":"`+string(c.code)+`"`) != 1 {
							t.Errorf("%d %s, want an event with %s", got.status, got.body, c.code)
						}
					case c.status == cut:
						if err == nil {
							t.Errorf("the app takes %d %q for a whole answer", got.status, got.body)
						}
					case c.code != "":
						got.wantError(t, c.status, c.code)
						if retry != "" {
							t.Errorf("X-Should-Retry: %s, and nothing was tried again", retry)
						}
					case got.status != c.status || !slices.Contains(got.header.Values("Server"), "llmserver") || retry != "":
						t.Errorf("%d %v, want the provider's own %d", got.status, got.header, c.status)
					}
				})
			}
		}
	}
}

// wantMoonshotOnly asserts that qwen failed, and that the app got one answer, all of it from moonshot, which got a
// request of its own.
func wantMoonshotOnly(t *testing.T, r *rig, got reply, n map[string]int) {
	t.Helper()
	if got.status != 200 || strings.Contains(got.body, "qwen") || !strings.Contains(got.body, "moonshot-v1-8k") || n[qwen] != 1 || n[moonshot] != 1 {
		t.Errorf("%d after %v: %s", got.status, n, got.body)
	}
	if strings.Contains(got.body, "ping") || got.header.Get("X-Should-Retry") != "" || len(got.header.Values("Content-Type")) != 1 {
		t.Errorf("something of the first answer is left: %v %s", got.header, got.body)
	}
	q := r.last()
	if q.Host != moonshot || q.SNI != moonshot || q.Path != "/v1/chat/completions" || !strings.Contains(string(q.Body), `"model":"moonshot-v1-8k"`) {
		t.Errorf("the second provider got %s %s %s", q.Host, q.Path, q.Body)
	}
	if v := q.Header.Values("Authorization"); len(v) != 1 || v[0] != "Bearer sk-moon-0123456789" {
		t.Errorf("the second provider got Authorization %q", v)
	}
	for _, line := range append(q.RawHeader, string(q.Body), q.RawQuery) {
		if strings.Contains(line, "qwen") || strings.Contains(line, "own") {
			t.Errorf("the second provider learns of the first, or of the app's key: %s", line)
		}
	}
	if v := r.metrics.Failures("UpstreamReset").Get(); v != 0 {
		t.Error("what another attempt made good is counted as a failure")
	}
}

func TestAProviderThatCannotBeReachedIsLeftForTheNext(t *testing.T) {
	for on, sent := range map[string]int{"connect-failure": 1, "rate-limited, reset, gateway-error, 5xx, first-token": 0} {
		t.Run(on, func(t *testing.T) {
			r := newRig(t, providers+at("foreign.example.com", 9, "mode: DISABLE")+route("chat", `
  - retries: {attempts: 1, retryOn: [`+on+`]}
    backendRefs:
    - {providerHost: foreign.example.com}
    - {providerHost: api.moonshot.cn, priority: 1}`))
			got := r.do("POST", "http://chat", prompt)
			if n := r.provider.Received(); n != sent || (got.status == 200) != (sent == 1) {
				t.Errorf("on %s: %d after %d requests", on, got.status, n)
			}
			if v := r.metrics.Retries("default/p9", "ConnectFailure").Get(); int(v) != sent {
				t.Errorf("%d retries are counted", v)
			}
			if v := r.metrics.Failures("ConnectFailure").Get(); int(v) != 1-sent {
				t.Errorf("%d failures are counted", v)
			}
		})
	}
}

func TestAHeadThatBreaksOffIsLeftForTheNext(t *testing.T) {
	for _, head := range []string{"HTTP/1.1 200 OK\r\nContent-Ty", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"} {
		t.Run(head, func(t *testing.T) {
			r := newRig(t, rawConfig("")+route("chat", `
  - retries: {attempts: 1, retryOn: [reset]}
    backendRefs: [{providerHost: 127.0.0.5}, {providerHost: api.moonshot.cn, priority: 1}]`))
			serve(t, func(_ int, c *net.TCPConn, _ *http.Request) bool {
				_, _ = c.Write([]byte(head))
				return false
			})
			if got := r.do("POST", "http://chat", prompt); got.status != 200 || !strings.Contains(got.body, "moonshot-v1-8k") {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
}

func TestAnAnswerThatBreaksBeforeItsFirstTokenIsLeftForTheNext(t *testing.T) {
	for on, sent := range map[string]int{"first-token, gateway-error": 1, "first-token, 5xx": 1, "first-token, reset": 0} {
		t.Run(on, func(t *testing.T) {
			r := newRig(t, rawConfig("")+route("chat", `
  - retries: {attempts: 1, retryOn: [`+on+`]}
    backendRefs: [{providerHost: 127.0.0.5}, {providerHost: api.moonshot.cn, priority: 1}]`))
			serve(t, always(eventsHead+"no size\r\n", false))
			got := r.do("POST", "http://chat", streamed)
			if n := r.provider.Received(); n != sent || (got.status == 200) != (sent == 1) {
				t.Errorf("%d after %d requests to the second", got.status, n)
			}
		})
	}
}

func TestAProviderWithoutTheOperationIsNoElsewhere(t *testing.T) {
	r := newRig(t, strings.Replace(providers, "host: api.moonshot.cn\n", "host: api.moonshot.cn\n  path: /odd\n", 1)+route("chat", `
  - retries: {attempts: 1, retryOn: [5xx]}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}, {providerHost: api.moonshot.cn, priority: 1}]`))
	r.provider.Script(qwen, llmserver.Fault{Status: 503, Times: -1})
	got := r.do("POST", "http://chat/v1/embeddings", `{"model":"e","input":"one"}`)
	if got.status != 503 || r.provider.Received() != 2 {
		t.Errorf("%d %s after %d requests", got.status, got.body, r.provider.Received())
	}
}

func TestAttemptsGoToTheSamePriorityThenToTheNextThenRoundAgain(t *testing.T) {
	r := newRig(t, providers+route("chat", `
  - retries: {attempts: 4, retryOn: [5xx]}
    backendRefs:
    - {providerHost: dashscope.aliyuncs.com}
    - {providerHost: api.moonshot.cn}
    - {providerHost: vllm.models.svc.cluster.local, priority: 1}`))
	for range 20 { // pay for the retries
		r.do("POST", "http://chat", prompt)
	}
	r.provider.Reset()
	r.provider.Script("", fault(t, "status=500"))
	got := r.do("POST", "http://chat", prompt)
	var order []string
	for _, q := range r.provider.Requests() {
		order = append(order, q.Host)
	}
	if len(order) != 5 || order[0] == vllm || order[1] == vllm || order[0] == order[1] || order[2] != vllm || order[3] == vllm || order[4] == vllm || order[3] == order[4] {
		t.Errorf("the attempts went to %q", order)
	}
	if got.status != 500 || got.header.Get("X-Should-Retry") != "false" {
		t.Errorf("%d %v", got.status, got.header)
	}
}

func TestAnAnswerThatIsThrownAwayCostsNoConnection(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script(qwen, llmserver.Fault{Status: 429, RetryAfter: "0", Times: 2})
	if got := r.do("POST", "http://"+qwen, prompt); got.status != 200 || r.provider.Connections() != 1 {
		t.Errorf("%d after %d connections", got.status, r.provider.Connections())
	}
}

func TestAnAnswerOfKnownLengthArrivesAsAWholeAfterItsFirstByteWasAwaited(t *testing.T) {
	r := newRig(t, twoProviders("\n  - retries: {attempts: 1, retryOn: [first-token]}"))
	r.provider.Script(qwen, llmserver.Fault{Huge: 300_000})
	got := r.do("POST", "http://chat", prompt)
	if got.status != 200 || len(got.body) != 300_000 || got.header.Get("Content-Length") != "300000" {
		t.Errorf("%d, %d bytes, %v", got.status, len(got.body), got.header)
	}
}

func TestRetryAfterMayBeADateOrMilliseconds(t *testing.T) {
	date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for _, c := range []struct {
		name, header string
		tries        int
	}{
		{"a date soon", "Date: " + date(0) + "\r\nRetry-After: " + date(time.Second), 2},
		{"a date by a clock that is wrong", "Date: " + date(-1000*time.Hour) + "\r\nRetry-After: " + date(-1000*time.Hour+time.Second), 2},
		{"a date far away by a clock that is wrong", "Date: " + date(-1000*time.Hour) + "\r\nRetry-After: " + date(0), 1},
		{"a date without a clock", "Retry-After: " + date(time.Second), 2},
		{"a date far away", "Retry-After: " + date(time.Hour), 1},
		{"milliseconds", "Retry-After-Ms: 20\r\nRetry-After: 100", 2},
		{"many milliseconds", "Retry-After-Ms: 5001\r\nRetry-After: 1", 1},
		{"no milliseconds", "Retry-After-Ms: soon\r\nRetry-After: 0", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, rawConfig(""))
			h := serve(t, func(n int, w *net.TCPConn, _ *http.Request) bool {
				head := "HTTP/1.1 200 OK\r\n"
				if n == 0 {
					head = "HTTP/1.1 429 Too Many Requests\r\n" + c.header + "\r\n"
				}
				_, _ = w.Write([]byte(head + "Content-Length: 2\r\n\r\n{}"))
				return true
			})
			got := r.do("POST", "http://raw", prompt)
			want := 200
			if c.tries == 1 {
				want = 429
			}
			if got.status != want || h.count() != c.tries {
				t.Errorf("%d after %d requests", got.status, h.count())
			}
			if c.tries == 1 && got.header.Get("X-Should-Retry") != "" {
				t.Error("an SDK may wait for it, and is told not to")
			}
		})
	}
}

func TestAWaitThatTheRuleHasNoTimeForIsTheAppsAffair(t *testing.T) {
	r := newRig(t, providers+route("chat", `
  - timeouts: {request: 3s}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}]`))
	r.provider.Script(qwen, llmserver.Fault{Status: 429, RetryAfter: "4", Times: -1})
	got := r.do("POST", "http://chat", prompt)
	if got.status != 429 || got.header.Get("Retry-After") != "4" || got.header.Get("X-Should-Retry") != "" || r.provider.Received() != 1 {
		t.Errorf("%d after %d requests, %v", got.status, r.provider.Received(), got.header)
	}
}

func TestTheAppsDepartureEndsAWait(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script(qwen, llmserver.Fault{Status: 429, RetryAfter: "5", Times: -1})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	begun := time.Now()
	left, leave := context.WithCancel(ctx)
	go func() {
		_, _ = r.provider.AwaitEnded(ctx, 1)
		leave()
	}()
	if _, err := r.open(left, "POST", "http://"+qwen, prompt); err == nil {
		t.Fatal("the app did not leave")
	}
	for r.metrics.Failures("ClientGone").Get() == 0 {
		select {
		case <-ctx.Done():
			t.Fatal("the departure is not noticed")
		case <-time.After(time.Millisecond):
		}
	}
	if time.Since(begun) < 5*time.Second && r.provider.Received() != 1 {
		t.Errorf("%d requests", r.provider.Received())
	}
}

func TestCommentsPassAtOnceWhereTheFirstTokenIsNotAwaited(t *testing.T) {
	r := newRig(t, twoProviders("\n  - timeouts: {firstToken: 1s}\n    retries: {attempts: 1, retryOn: [reset]}"))
	r.provider.Script(qwen, llmserver.Fault{FirstToken: time.Hour, KeepaliveComments: true})
	resp, err := r.open(t.Context(), "POST", "http://chat", streamed)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || line != ": ping\n" {
		t.Errorf("the first comment is %q, %v", line, err)
	}
}
