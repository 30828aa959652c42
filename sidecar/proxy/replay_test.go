package proxy_test

import (
	"encoding/json"
	"testing"

	"remora.dev/remora/test/llmserver"
)

// A provider closes a kept connection while a request is on its way. What follows on the next connection would show
// whether more was sent there than one request.
func TestARequestThatIsSentAgainIsSentOnce(t *testing.T) {
	r := newRig(t, providers)
	for i := range 3 {
		if i == 1 {
			r.provider.Script(qwen, llmserver.Fault{Close: true})
		}
		if got := r.do("POST", "http://"+qwen+"/", prompt); got.status != 200 {
			t.Fatalf("request %d: %d %s", i+1, got.status, got.body)
		}
	}
	requests := r.provider.Requests()
	if len(requests) != 4 {
		t.Errorf("the provider got %d requests, want 4: three, and one of them twice", len(requests))
	}
	for _, q := range requests {
		if !json.Valid(q.Body) || q.Method != "POST" {
			t.Errorf("the provider got %s %s", q.Method, q.Body)
		}
	}
}
