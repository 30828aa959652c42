package proxy_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
)

func TestRetriesDoNotMultiplyAnOutage(t *testing.T) {
	const requests = 1000
	r := newRig(t, providers+route("chat", `
  - retries: {attempts: 5, retryOn: [5xx, reset]}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}, {providerHost: api.moonshot.cn}]`))
	r.provider.Script(qwen, llmserver.Fault{Status: 500, Times: -1})
	r.provider.Script(moonshot, llmserver.Fault{Reset: true, Times: -1})
	begun := time.Now()
	var apps sync.WaitGroup
	var invited atomic.Int64
	for range 10 {
		apps.Go(func() {
			for range requests / 10 {
				got, err := r.try("POST", "http://chat", prompt)
				if err != nil || got.status < 500 {
					t.Errorf("%d %v", got.status, err)
				}
				if got.header.Get("X-Should-Retry") != "false" {
					invited.Add(1)
				}
			}
		})
	}
	apps.Wait()
	n := r.provider.Received()
	most := requests + requests/5 + 3*int(time.Since(begun)/time.Second+2)
	if n > most || n < requests+requests/5 {
		t.Errorf("%d requests became %d, which should be about a fifth more and at most %d", requests, n, most)
	}
	if invited.Load() > 0 {
		t.Errorf("%d times SDKs were not told to stop", invited.Load())
	}
	if got := r.exposed(); !strings.Contains(got, `remora_retries_withheld_total{provider="default/qwen"}`) {
		t.Errorf("the metrics say %s", got)
	}
	if r.log.find(`"retry"="RetryBudgetSpent"`) == "" {
		t.Error("the log does not say why there is no retry")
	}
}

func TestTheBudgetOfOneHostIsNotAnothers(t *testing.T) {
	rule := `
  - retries: {attempts: 10, retryOn: [5xx]}
    backendRefs: [{providerHost: dashscope.aliyuncs.com}, {providerHost: api.moonshot.cn}]`
	r := newRig(t, providers+route("chat", rule)+route("quiet", rule))
	r.provider.Script(qwen, llmserver.Fault{Status: 500, Times: -1})
	r.provider.Script(moonshot, llmserver.Fault{Status: 500, Times: -1})
	for range 30 {
		r.do("POST", "http://chat", prompt)
	}
	r.provider.Unscript()
	r.provider.Script("", llmserver.Fault{Status: 500, Times: 2})
	if got := r.do("POST", "http://quiet", prompt); got.status != 200 {
		t.Errorf("the outage of one host takes the retries of another: %d", got.status)
	}
}
