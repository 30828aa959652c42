package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/test/llmserver"
)

// counted is what the metrics say of the calls of one operation at qwen.
type counted struct {
	Requests, Input, Output, Cached, Reasoned              int
	EstimatedInput, EstimatedOutput, Estimated, Unreported int
}

func (r *rig) counted(operation string) counted {
	model := "qwen-1.8b-chat"
	if operation != "chat" && operation != "completions" && operation != "responses" {
		model = "" // the app's own
	}
	c := r.metrics.Calls(metrics.Call{Provider: "default/qwen", Model: model, Operation: operation})
	return counted{
		int(c.Requests.Get()), int(c.Input.Get()), int(c.Output.Get()), int(c.Cached.Get()), int(c.Reasoned.Get()),
		int(c.EstimatedInput.Get()), int(c.EstimatedOutput.Get()), int(c.Estimated.Get()), int(c.Unreported.Get()),
	}
}

// direct gives what the provider answers without the proxy, which it has forgotten afterwards.
func (r *rig) direct(path, body, fault string) string {
	r.t.Helper()
	r.provider.Reset()
	defer func() {
		if _, err := r.provider.AwaitEnded(r.t.Context(), 1); err != nil {
			r.t.Fatal(err)
		}
		r.provider.Reset()
	}()
	req, err := http.NewRequestWithContext(r.t.Context(), "POST", "https://"+qwen+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(llmserver.FaultHeader, fault)
	resp, err := r.provider.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

const (
	words = `"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"one two three \"usage\":null four"}]`
	tools = `,"tools":[{"type":"function","function":{"name":"weather","parameters":{}}}]`
)

// The provider's own tally is the judge of each count, and what it answers without the proxy that of each byte.
func TestTokensAreCountedToTheOneAndTheAppSeesNothingOfIt(t *testing.T) {
	for _, operation := range []struct{ name, path, body string }{
		{"chat", "chat/completions", `{"model":"qwen-1.8b-chat",` + words + `}`},
		{"chat", "chat/completions", `{"model":"qwen-1.8b-chat","stream":true,` + words + `}`},
		{"chat", "chat/completions", `{"model":"qwen-1.8b-chat","stream":true,"stream_options":{},` + words + `}`},
		{"chat", "chat/completions", `{"model":"qwen-1.8b-chat","stream":true,"stream_options":null,` + words + `}`},
		{"chat", "chat/completions", `{"model":"qwen-1.8b-chat","stream":true,"stream_options":{"include_usage":false},` + words + `}`},
		{"chat", "chat/completions", `{"model":"qwen-1.8b-chat","stream":true,"stream_options":{"include_usage":true},` + words + `}`},
		{"chat", "chat/completions", `{"stream_options":{"include_obfuscation":false},"model":"qwen-1.8b-chat","stream":true,` + words + `}`},
		{"chat", "chat/completions", `{"model":"qwen-1.8b-chat","stream":true,` + words + tools + `}`},
		{"chat", "chat/completions", `{"model":"qwen-1.8b-chat",` + words + tools + `}`},
		{"completions", "completions", `{"model":"qwen-1.8b-chat","prompt":"one two three"}`},
		{"completions", "completions", `{"model":"qwen-1.8b-chat","stream":true,"prompt":"one two three"}`},
		{"responses", "responses", `{"model":"qwen-1.8b-chat","instructions":"be brief","input":"one two three"}`},
		{"responses", "responses", `{"model":"qwen-1.8b-chat","stream":true,"instructions":"be brief","input":"one two three"}`},
		{"embeddings", "embeddings", `{"model":"e","input":["one two three","four"]}`},
		{"rerank", "rerank", `{"model":"e","query":"one","documents":["two three","four"]}`},
	} {
		for _, fault := range []string{"", "split", "chunked", "chunks=700 cached=2 reasoning=9"} {
			t.Run(operation.path+" "+fault+operation.body[:40], func(t *testing.T) {
				r := newRig(t, providers)
				want := r.direct("/compatible-mode/v1/"+operation.path, operation.body, fault)
				got := r.do("POST", "http://"+qwen+"/v1/"+operation.path, operation.body, llmserver.FaultHeader, fault)
				if got.status != 200 || got.body != want {
					t.Errorf("%d\n%s\nand directly\n%s", got.status, got.body, want)
				}
				n := r.counted(operation.name)
				if _, err := r.provider.AwaitEnded(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
				tokens := r.provider.Tally(qwen).Reported
				if tokens.Answers != 1 || tokens.Input == 0 {
					t.Fatalf("the provider has reported nothing: %+v", r.provider.Tally(qwen))
				}
				if want := (counted{Requests: 1, Input: tokens.Input, Output: tokens.Output, Cached: tokens.Cached, Reasoned: tokens.Reasoning}); n != want {
					t.Errorf("counted %+v, want %+v", n, want)
				}
			})
		}
	}
}

func TestUsageIsTakenWhereverTheProviderPutsIt(t *testing.T) {
	for _, shape := range []string{"own", "last", "running"} {
		for _, options := range []string{"", `"stream_options":{"include_usage":true},`} {
			t.Run(shape+options, func(t *testing.T) {
				r := newRig(t, providers)
				body := `{"model":"qwen-1.8b-chat","stream":true,` + options + words + `}`
				fault := "chunks=30 cached=1 usage=" + shape
				want := r.direct("/compatible-mode/v1/chat/completions", body, fault)
				if options == "" {
					want = r.direct("/compatible-mode/v1/chat/completions", body, "chunks=30")
				}
				if got := r.do("POST", "http://"+qwen, body, llmserver.FaultHeader, fault); got.body != want {
					t.Errorf("\n%s\nand directly\n%s", got.body, want)
				}
				n := r.counted("chat")
				if _, err := r.provider.AwaitEnded(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
				tokens := r.provider.Tally(qwen).Reported
				if want := (counted{Requests: 1, Input: tokens.Input, Output: tokens.Output, Cached: 1}); n != want || tokens.Output != 30 {
					t.Errorf("counted %+v, want %+v", n, want)
				}
			})
		}
	}
}

func TestAStreamThatTheConfigurationTurnsOnIsCounted(t *testing.T) {
	r := newRig(t, strings.Replace(providers, "model: qwen-1.8b-chat,", "model: qwen-1.8b-chat, stream: true,", 1))
	got := r.do("POST", "http://"+qwen, `{`+words+`}`)
	if strings.Contains(strings.ReplaceAll(got.body, `\"usage\"`, ""), "usage") || !strings.HasSuffix(got.body, "data: [DONE]\n\n") {
		t.Errorf("got %s", got.body)
	}
	if n := r.counted("chat"); n.Input == 0 || n.Output == 0 || n.Unreported != 0 {
		t.Errorf("counted %+v", n)
	}
	var sent map[string]json.RawMessage
	if err := json.Unmarshal(r.last().Body, &sent); err != nil || string(sent["stream_options"]) != `{"include_usage":true}` {
		t.Errorf("the provider got %s: %v", r.last().Body, err)
	}
}

func TestAProviderThatRefusesToBeAskedForUsageIsAskedWithout(t *testing.T) {
	for _, status := range []int{400, 422} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			r := newRig(t, providers)
			r.provider.Script("", llmserver.Fault{RefuseStreamOptions: status, Times: -1})
			body := `{"model":"qwen-1.8b-chat","stream":true,` + words + `}`
			for i, wanted := range []int{2, 1, 1} { // it is remembered
				r.provider.Reset()
				if got := r.do("POST", "http://"+qwen, body); got.status != 200 || !strings.HasSuffix(got.body, "data: [DONE]\n\n") {
					t.Fatalf("%d %s", got.status, got.body)
				}
				if n := r.provider.Received(); n != wanted {
					t.Errorf("call %d took %d requests, want %d", i, n, wanted)
				}
				if string(r.last().Body) != body {
					t.Errorf("the provider got %s", r.last().Body)
				}
			}
			n := r.counted("chat")
			if n.Requests != 3 || n.Unreported != 3 || n.Input != 0 || n.EstimatedInput == 0 || n.EstimatedOutput == 0 || n.Estimated != 0 {
				t.Errorf("counted %+v", n)
			}

			// An app that asks by itself hears what the provider says, once.
			r.provider.Reset()
			got := r.do("POST", "http://"+qwen, strings.Replace(body, "{", `{"stream_options":{"include_usage":true},`, 1))
			if got.status != status || r.provider.Received() != 1 {
				t.Errorf("%d after %d requests", got.status, r.provider.Received())
			}
			// Another model may be of another mind.
			r.provider.Reset()
			r.do("POST", "http://"+vllm, `{"model":"other","stream":true,`+words+`}`)
			if n := r.provider.Received(); n != 2 {
				t.Errorf("another provider got %d requests", n)
			}
		})
	}
}

func TestARefusalForAnotherReasonIsTheAppsToSee(t *testing.T) {
	r := newRig(t, providers)
	body := `{"model":"qwen-1.8b-chat","stream":true,"messages":[{"content":"no role"}]}`
	want := r.direct("/compatible-mode/v1/chat/completions", body, "")
	for range 2 {
		r.provider.Reset()
		if got := r.do("POST", "http://"+qwen, body); got.status != 400 || got.body != want {
			t.Errorf("%d %s, and directly %s", got.status, got.body, want)
		}
		if n := r.provider.Received(); n != 2 { // nothing is learnt from it
			t.Errorf("%d requests", n)
		}
	}
	if n := r.counted("chat"); n != (counted{Requests: 2}) {
		t.Errorf("counted %+v", n)
	}
}

func TestErrorsAreCountedAsRequestsOnly(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script(qwen, llmserver.Fault{Status: 500}, llmserver.Fault{Status: 404, Body: `{"usage":{"prompt_tokens":1,"completion_tokens":1}}`})
	r.do("POST", "http://"+qwen, prompt)
	r.do("POST", "http://"+qwen, prompt)
	if n := r.counted("chat"); n != (counted{Requests: 2}) {
		t.Errorf("counted %+v", n)
	}
}

func TestAnAnswerThatWasTriedAgainIsCountedOnce(t *testing.T) {
	r := newRig(t, providers)
	r.provider.Script(qwen, llmserver.Fault{Status: 429, RetryAfter: "0"})
	r.do("POST", "http://"+qwen, streamed)
	if n := r.counted("chat"); n.Requests != 1 || n.Input == 0 || n.Unreported != 0 {
		t.Errorf("counted %+v", n)
	}
}

// awaitCounted waits until an answer has been counted.
func (r *rig) awaitCounted(operation string, done func(counted) bool) counted {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	for {
		n := r.counted(operation)
		if done(n) {
			return n
		}
		select {
		case <-ctx.Done():
			r.t.Fatalf("counted %+v", n)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestAnAnswerThatIsCutIsEstimatedApartFromTheOthers(t *testing.T) {
	for _, operation := range []struct{ name, path, body string }{
		{"chat", "", `{"stream":true,` + words + `}`},
		{"completions", "/v1/completions", `{"stream":true,"prompt":"one two three"}`},
		{"responses", "/v1/responses", `{"stream":true,"input":"one two three"}`},
	} {
		for _, fault := range []string{"cut-after=60", "cut-after=60 mid-event", "stall-after=60"} {
			t.Run(operation.name+" "+fault, func(t *testing.T) {
				r := newRig(t, providers+route("chat", "\n  - backendRefs: [{providerHost: dashscope.aliyuncs.com}]\n    timeouts: {idle: 300ms}"))
				got := r.do("POST", "http://chat"+operation.path, operation.body, llmserver.FaultHeader, "chunks=100 "+fault)
				if !strings.Contains(got.body, `"error":{`) {
					t.Errorf("got %s", got.body)
				}
				n := r.counted(operation.name)
				if n.Requests != 1 || n.Input != 0 || n.Output != 0 || n.Estimated != 1 || n.Unreported != 0 {
					t.Errorf("counted %+v", n)
				}
				// The words are word1, word2 and so on: two or three tokens each.
				if n.EstimatedInput < 3 || n.EstimatedInput > 40 || n.EstimatedOutput < 50 || n.EstimatedOutput > 200 {
					t.Errorf("counted %+v", n)
				}
			})
		}
	}
}

func TestWhatAnAppGotThatLeavesIsEstimated(t *testing.T) {
	r := newRig(t, providers)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	resp, err := r.open(ctx, "POST", "http://"+qwen, streamed, llmserver.FaultHeader, "chunks=100 stall-after=60")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for in := bufio.NewScanner(resp.Body); in.Scan() && !strings.Contains(in.Text(), "word50"); {
	}
	leave()
	n := r.awaitCounted("chat", func(n counted) bool { return n.Estimated == 1 })
	if n.Input != 0 || n.EstimatedInput == 0 || n.EstimatedOutput < 40 || n.EstimatedOutput > 200 {
		t.Errorf("counted %+v", n)
	}
}

func TestRunningTotalsOfAStreamThatIsCutAreExact(t *testing.T) {
	r := newRig(t, providers)
	r.do("POST", "http://"+qwen, streamed, llmserver.FaultHeader, "chunks=100 usage=running cut-after=60")
	n := r.counted("chat")
	if n.Input == 0 || n.Output < 50 || n.Output > 60 || n.Estimated != 0 || n.EstimatedOutput != 0 {
		t.Errorf("counted %+v", n)
	}
}

func TestAnAnswerWithoutUsageIsEstimated(t *testing.T) {
	r := newRig(t, providers)
	for _, body := range []string{prompt, streamed} {
		r.do("POST", "http://"+qwen, body, llmserver.FaultHeader, "usage=none")
	}
	n := r.counted("chat")
	if n.Requests != 2 || n.Unreported != 2 || n.Input != 0 || n.EstimatedInput == 0 || n.EstimatedOutput == 0 {
		t.Errorf("counted %+v", n)
	}
}

func TestCommentsPassAndAreNoTokens(t *testing.T) {
	r := newRig(t, providers)
	got := r.do("POST", "http://"+qwen, streamed, llmserver.FaultHeader, "keepalive-comments")
	if strings.Count(got.body, ": ping\n\n") != 3 || strings.Contains(got.body, "usage") {
		t.Errorf("got %s", got.body)
	}
	if n := r.counted("chat"); n.Input == 0 || n.Unreported != 0 {
		t.Errorf("counted %+v", n)
	}
}

// What a provider sends may come to the proxy in any pieces.
func TestUsageThatIsSplitOverReadsIsFoundAndRemoved(t *testing.T) {
	const (
		content = `data: {"id":"1","choices":[{"index":0,"delta":{"content":"hi"}}]`
		used    = `,"usage":{"prompt_tokens":11,"completion_tokens":22,"total_tokens":33}}` + "\n\n"
		want    = content + "}\n\ndata: [DONE]\n\n"
	)
	whole := content + `,"usage":null}` + "\n\n" + `data: {"id":"1","choices":[]` + used + "data: [DONE]\n\n"
	r := newRig(t, rawConfig(""))
	pieces := make(chan int, 1)
	serve(t, func(_ int, c *net.TCPConn, _ *http.Request) bool {
		n := <-pieces
		_, _ = io.WriteString(c, eventsHead+chunkOf(whole[:n]))
		_, _ = io.WriteString(c, chunkOf(whole[n:])+"0\r\n\r\n")
		return true
	})
	for n := 1; n < len(whole); n += 3 {
		pieces <- n
		if got := r.do("POST", "http://raw", streamed); got.body != want {
			t.Fatalf("in two pieces, of %d and the rest: %q", n, got.body)
		}
	}
	c := r.metrics.Calls(metrics.Call{Provider: "default/raw", Operation: "chat"})
	if in, out := c.Input.Get(), c.Output.Get(); in == 0 || in != 11*c.Requests.Get() || out != 2*in {
		t.Errorf("counted %d and %d in %d requests", in, out, c.Requests.Get())
	}
}

func TestEventsWithALengthAreCountedToo(t *testing.T) {
	const want = "data: {\"choices\":[{}]}\n\ndata: [DONE]\n\n"
	for name, padding := range map[string]string{"at once": "", "in pieces": ": " + strings.Repeat("x", 20<<10) + "\n\n"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rawConfig(""))
			body := padding + "data: {\"choices\":[{}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n"
			serve(t, always(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s", len(body), body), true))
			for _, asked := range []string{streamed, strings.Replace(streamed, "{", `{"stream_options":{"include_usage":true},`, 1)} {
				want := padding + want
				if asked != streamed {
					want = body
				}
				if got := r.do("POST", "http://raw", asked); got.body != want {
					t.Errorf("got %.200q", got.body)
				}
			}
			c := r.metrics.Calls(metrics.Call{Provider: "default/raw", Operation: "chat"})
			if in, out := c.Input.Get(), c.Output.Get(); in != 2 || out != 4 {
				t.Errorf("counted %d and %d", in, out)
			}
		})
	}
}

func TestAnErrorPassesAlsoWithUsageAndWhereNothingIsEncoded(t *testing.T) {
	for name, c := range map[string]struct{ event, seen string }{
		"an error":          {`{"error":{"message":"out of memory"},"usage":{"prompt_tokens":1,"completion_tokens":2}}`, `data: {"error":{"message":"out of memory"}}` + "\n\n"},
		"an error's text":   {`{"usage":{"prompt_tokens":1,"completion_tokens":2},"error":"out of memory"}`, `data: {"error":"out of memory"}` + "\n\n"},
		"no error":          {`{"error":null,"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, ""},
		"filters' findings": {`{"prompt_filter_results":[{}],"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, `data: {"prompt_filter_results":[{}],"choices":[]}` + "\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rawConfig(""))
			head := strings.Replace(eventsHead, "\r\n\r\n", "\r\nContent-Encoding: identity\r\n\r\n", 1)
			serve(t, always(head+chunkOf("data: "+c.event+"\n\n")+chunkOf("data: [DONE]\n\n")+"0\r\n\r\n", true))
			if got := r.do("POST", "http://raw", streamed); got.body != c.seen+"data: [DONE]\n\n" {
				t.Errorf("got %q", got.body)
			}
			if n := r.metrics.Calls(metrics.Call{Provider: "default/raw", Operation: "chat"}); n.Input.Get() != 1 || n.Output.Get() != 2 {
				t.Errorf("counted %d and %d", n.Input.Get(), n.Output.Get())
			}
		})
	}
}

func TestAResponseThatHasEndedIsNotCut(t *testing.T) {
	for _, end := range []string{"response.completed", "response.incomplete", "response.failed", "response.in_progress"} {
		t.Run(end, func(t *testing.T) {
			r := newRig(t, rawConfig(""))
			sent := "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n" +
				"event: " + end + "\ndata: {\"type\":\"" + end + "\",\"response\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}}\n\n"
			serve(t, always(eventsHead+chunkOf(sent), false)) // the last chunk is missing
			got := r.do("POST", "http://raw/v1/responses", `{"stream":true,"input":"one"}`)
			cut := end == "response.in_progress"
			if !strings.HasPrefix(got.body, sent) || (len(got.body) > len(sent)) != cut || (r.metrics.Failures("UpstreamReset").Get() == 1) != cut {
				t.Errorf("got %s", got.body)
			}
		})
	}
}

func TestALargeEventPassesInPiecesWithoutItsUsage(t *testing.T) {
	r := newRig(t, rawConfig(""))
	image := strings.Repeat("A", 200<<10)
	event := `data: {"choices":[{"delta":{"images":["` + image + `"]}}]`
	serve(t, always(eventsHead+chunkOf(event+`,"usage":null}`+"\n\n")+chunkOf("data: [DONE]\n\n")+"0\r\n\r\n", true))
	if got := r.do("POST", "http://raw", streamed); got.body != event+"}\n\ndata: [DONE]\n\n" {
		t.Errorf("got %.100q … %.100q", got.body, got.body[max(0, len(got.body)-100):])
	}
}

func TestAnErrorEventOfResponsesIsNumberedAndNamed(t *testing.T) {
	r := newRig(t, providers)
	got := r.do("POST", "http://"+qwen+"/v1/responses", `{"stream":true,"input":"one two three"}`, llmserver.FaultHeader, "chunks=100 cut-after=20")
	_, last, ok := strings.Cut(got.body, "event: error\ndata: ")
	var e struct {
		Type     string
		Sequence *int `json:"sequence_number"`
		Code     string
		Message  string
		Param    *string
		Error    struct{ Message, Code string }
	}
	if err := json.Unmarshal([]byte(last), &e); !ok || err != nil || !strings.HasSuffix(last, "\n\n") {
		t.Fatalf("%q: %v", last, err)
	}
	if e.Type != "error" || e.Sequence == nil || *e.Sequence != 20 || e.Code != "UpstreamReset" || e.Error.Code != e.Code || e.Message == "" || e.Message != e.Error.Message {
		t.Errorf("the last event is %s", last)
	}
}
