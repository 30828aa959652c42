package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

// ejecting is twoProviders where qwen is left alone after three failures. Nothing is tried again.
func ejecting(ejectionTime string) string {
	return strings.Replace(twoProviders("\n  - retries: {attempts: 0}"), "  path: /compatible-mode/v1/chat/completions\n",
		"  path: /compatible-mode/v1/chat/completions\n  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: "+ejectionTime+"}}\n", 1)
}

// exposed is what a scrape of the metrics gives.
func (r *rig) exposed() string {
	var b bytes.Buffer
	r.metrics.Write(&b)
	return b.String()
}

// times counts the lines of the log that have part in them.
func (b *lockedBuffer) times(part string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lines {
		if strings.Contains(l, part) {
			n++
		}
	}
	return n
}

// until has calls made, one after the other, until one went to host. then may have its app leave before it is answered.
// What the provider had received is forgotten.
func (r *rig) until(host string, then func(leave context.CancelFunc)) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	for to := ""; to != host; {
		r.provider.Reset()
		one, leave := context.WithCancel(ctx)
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			if resp, err := r.open(one, "POST", "http://chat", prompt); err == nil {
				_ = resp.Body.Close()
			}
		}()
		got, err := r.provider.Await(ctx, 1)
		if err != nil {
			r.t.Fatalf("no call went to %s", host)
		}
		if to = got[0].Host; to == host {
			then(leave)
		}
		<-answered
		leave()
	}
}

func leaving(leave context.CancelFunc) { leave() }
func staying(context.CancelFunc)       {}

func TestAProviderThatFailsIsLeftAlone(t *testing.T) {
	for name, fault := range map[string]llmserver.Fault{
		"status 500": {Status: 500}, "reset": {Reset: true}, "garbage": {Garbage: true},
		"in the middle of the answer": {CutAfter: new(2)},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, ejecting("1h"))
			fault.Times = -1
			r.provider.Script(qwen, fault)
			for range 3 {
				got, err := r.try("POST", "http://chat", streamed)
				if err == nil && got.status == 200 && strings.Contains(got.body, "[DONE]") {
					t.Fatalf("that is a good answer: %s", got.body)
				}
			}
			for range 10 {
				if got := r.do("POST", "http://chat", prompt); got.status != 200 || r.last().Host != moonshot {
					t.Fatalf("%d from %s: it should be left alone", got.status, r.last().Host)
				}
			}
			if n := r.received(); n[qwen] != 3 {
				t.Errorf("the providers got %v", n)
			}
			if got := r.exposed(); !strings.Contains(got, "remora_ejected_backends 1\n") || !strings.Contains(got, `remora_ejections_total{provider="default/qwen"} 1`) {
				t.Errorf("the metrics say %s", got)
			}
			if r.log.times("left alone where") != 1 || r.log.times(`"code"="BackendEjected"`) != 1 {
				t.Errorf("the log: %q", r.log.lines)
			}
		})
	}
}

func TestAProviderThatAnswersAgainIsBack(t *testing.T) {
	r := newRig(t, ejecting("100ms"))
	r.provider.Script(qwen, llmserver.Fault{Status: 500, Times: 3})
	for range 3 {
		r.do("POST", "http://chat", prompt)
	}
	r.until(qwen, staying)
	for range 5 {
		if got := r.do("POST", "http://chat", prompt); got.status != 200 || r.last().Host != qwen {
			t.Errorf("%d from %s: it should be back", got.status, r.last().Host)
		}
	}
	if r.log.times("left alone where") != 1 || r.log.times("answers again") != 1 || r.log.times(`"code"="BackendEjected"`) != 2 {
		t.Errorf("the log: %q", r.log.lines)
	}
	if got := r.exposed(); !strings.Contains(got, "remora_ejected_backends 0\n") {
		t.Errorf("the metrics say %s", got)
	}
}

func TestWhatIsNoFailureEjectsNobody(t *testing.T) {
	for name, fault := range map[string]llmserver.Fault{
		"429": {Status: 429}, "401": {Status: 401}, "400": {Status: 400}, "a redirect": {Redirect: "https://" + qwen + "/"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, ejecting("1h"))
			fault.Times = -1
			r.provider.Script(qwen, fault)
			r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			for range 10 {
				r.do("POST", "http://chat", prompt)
			}
			if n := r.received(); n[qwen] != 10 {
				t.Errorf("the providers got %v", n)
			}
		})
	}
}

func TestAQueueThatTakesAllTheTimeEjectsNobody(t *testing.T) {
	config := strings.Replace(ejecting("1h"), "trafficPolicy: {", "trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}, ", 1)
	r := newRig(t, strings.Replace(config, "{attempts: 0}", "{attempts: 0}\n    timeouts: {request: 200ms}", 1)+route("slow", "\n  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]"))
	r.provider.Script(qwen, llmserver.Fault{StallAfter: new(1)})
	resp, err := r.open(t.Context(), "POST", "http://slow", streamed)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() // it has the only connection
	for range 4 {
		r.do("POST", "http://chat", prompt).wantError(t, 504, routing.DeadlineExceeded, "became free")
	}
	if n := r.received(); n[moonshot] > 0 {
		t.Errorf("the providers got %v", n)
	}
}

func TestAQueueThatLeavesLittleTimeEjectsNobody(t *testing.T) {
	config := strings.Replace(ejecting("1h"), "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3", "trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}, outlierDetection: {consecutive5xxErrors: 1", 1)
	r := newRig(t, strings.Replace(config, "{attempts: 0}", "{attempts: 0}\n    timeouts: {request: 2s}", 1)+route("slow", "\n  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]"))
	r.provider.Script(qwen, llmserver.Fault{StallAfter: new(1)}, llmserver.Fault{Delay: time.Hour})
	resp, err := r.open(t.Context(), "POST", "http://slow", streamed) // it has the only connection
	if err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(1500*time.Millisecond, func() { _ = resp.Body.Close() }).Stop()
	r.do("POST", "http://chat", prompt).wantError(t, 504, routing.DeadlineExceeded, "2s")
	if got := r.exposed(); !strings.Contains(got, "remora_ejected_backends 0\n") {
		t.Error("the provider is left alone")
	}
}

func TestAppsThatLeaveEjectNobody(t *testing.T) {
	r := newRig(t, ejecting("1h"))
	r.provider.Script(qwen, llmserver.Fault{Delay: time.Hour, Times: 10})
	for range 10 {
		r.until(qwen, leaving)
	}
	if got := r.do("POST", "http://chat", prompt); got.status != 200 || r.last().Host != qwen {
		t.Errorf("%d from %s", got.status, r.last().Host)
	}
}

func TestAProbeWhoseAppLeavesIsFollowedByAnother(t *testing.T) {
	r := newRig(t, ejecting("100ms"))
	r.provider.Script(qwen, llmserver.Fault{Status: 500, Times: 3}, llmserver.Fault{Delay: time.Hour, Times: 3})
	for range 3 {
		r.do("POST", "http://chat", prompt)
	}
	for range 3 {
		r.until(qwen, leaving)
	}
	r.until(qwen, staying)
	if got := r.do("POST", "http://chat", prompt); got.status != 200 || r.last().Host != qwen {
		t.Errorf("%d from %s: it should be back", got.status, r.last().Host)
	}
}

func TestAProbeWhoseAppLeavesBeforeTheFirstEventIsFollowedByAnother(t *testing.T) {
	r := newRig(t, ejecting("100ms"))
	r.provider.Script(qwen, llmserver.Fault{Status: 500, Times: 3}, llmserver.Fault{FirstToken: time.Hour, HeadersEarly: true, Times: 3})
	for range 3 {
		r.do("POST", "http://chat", prompt)
	}
	for range 3 {
		r.until(qwen, staying) // as long as the headers take to come
	}
	r.until(qwen, staying)
	if got := r.do("POST", "http://chat", prompt); got.status != 200 || r.last().Host != qwen {
		t.Errorf("%d from %s: it should be back", got.status, r.last().Host)
	}
}

func TestTheFirstEventOfAProbeBringsTheProviderBack(t *testing.T) {
	for _, on := range []string{"reset", "first-token"} { // the latter awaits that event
		t.Run(on, func(t *testing.T) {
			r := newRig(t, strings.Replace(ejecting("100ms"), "{attempts: 0}", "{attempts: 1, retryOn: ["+on+"]}", 1))
			r.provider.Script(qwen, llmserver.Fault{Status: 500, Times: 3}, llmserver.Fault{StallAfter: new(1), Times: 1})
			for range 3 {
				r.do("POST", "http://chat", prompt)
			}
			for {
				resp, err := r.open(t.Context(), "POST", "http://chat", streamed)
				if err != nil {
					t.Fatal(err)
				}
				if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || !strings.HasPrefix(line, "data:") {
					t.Fatalf("the first event is %q, %v", line, err)
				}
				defer resp.Body.Close() // the probe's answer goes on
				if r.last().Host == qwen {
					break
				}
			}
			if got := r.do("POST", "http://chat", prompt); got.status != 200 || r.last().Host != qwen {
				t.Errorf("%d from %s, though it answers", got.status, r.last().Host)
			}
		})
	}
}

func TestAPromptThatNobodyCanAnswerEjectsNobodyAmongOthers(t *testing.T) {
	r := newRig(t, ejecting("1h"))
	for range 20 {
		for range 2 {
			r.do("POST", "http://chat", prompt, llmserver.FaultHeader, "status=500")
		}
		r.do("POST", "http://chat", prompt)
	}
	if n := r.received(); n[qwen] != 60 {
		t.Errorf("the providers got %v", n)
	}
}

func TestWhileOneCallIsTheProbeAllOthersGoElsewhere(t *testing.T) {
	r := newRig(t, ejecting("1s"))
	r.provider.Script(qwen, llmserver.Fault{Status: 500, Times: 3}, llmserver.Fault{Delay: time.Hour, Times: -1})
	for range 3 {
		r.do("POST", "http://chat", prompt)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// The calls begin before the ejection ends, and go on until one of them is the probe, which hangs.
	var calls sync.WaitGroup
	probing := make(chan struct{})
	for range 200 {
		calls.Go(func() {
			for {
				resp, err := r.open(ctx, "POST", "http://chat", prompt)
				if err != nil {
					return // the probe, at the end
				}
				_ = resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("status %d", resp.StatusCode)
				}
				select {
				case <-probing:
					return
				default:
				}
			}
		})
	}
	for r.received()[qwen] < 4 {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("there is no probe")
		}
	}
	for range 200 {
		if got := r.do("POST", "http://chat", prompt); got.status != 200 {
			t.Errorf("status %d", got.status)
		}
	}
	close(probing)
	if n := r.received()[qwen]; n != 4 {
		t.Errorf("%d calls at once were probes", n-3)
	}
	cancel()
	calls.Wait()
}

func TestTheOnlyProviderIsCalledHoweverOftenItFails(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script(qwen, llmserver.Fault{Status: 500, Times: 50})
	for range 50 {
		if got := r.do("POST", "http://"+qwen, prompt); got.status != 500 {
			t.Fatalf("status %d", got.status)
		}
	}
	if got := r.do("POST", "http://"+qwen, prompt); got.status != 200 || r.log.times("left alone where") != 1 {
		t.Errorf("%d, and the log: %q", got.status, r.log.find("left alone"))
	}
}

func TestARuleWithItsOwnModelAndKeySharesTheProvidersState(t *testing.T) {
	r := newRig(t, ejecting("1h")+route("vip", `
  - name: vip-route
    retries: {attempts: 0}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}, {providerHost: api.moonshot.cn, priority: 1}]`))
	r.provider.Script(qwen, llmserver.Fault{Status: 500, Times: 3})
	for range 3 {
		r.do("POST", "http://chat", prompt)
	}
	if got := r.do("POST", "http://vip", prompt); got.status != 200 || r.last().Host != moonshot {
		t.Errorf("%d from %s", got.status, r.last().Host)
	}
	// A change that leaves the provider as it is changes nothing about that; one that removes it does.
	r.apply(ejecting("1h") + route("other", "\n  - backendRefs: [{providerHost: api.moonshot.cn}]"))
	if r.do("POST", "http://chat", prompt); r.last().Host != moonshot {
		t.Error("another configuration forgets that the provider fails")
	}
	r.apply(providers[strings.Index(providers, "---"):])
	r.apply(ejecting("1h"))
	if r.do("POST", "http://chat", prompt); r.last().Host != qwen {
		t.Error("the state outlives the provider")
	}
}
