package llmserver_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
)

const (
	qwen     = "dashscope.aliyuncs.com"
	moonshot = "api.moonshot.cn"
)

// limit ends a test that would otherwise hang; nothing waits for it.
const limit = 10 * time.Second

func start(t *testing.T, change ...func(*llmserver.Options)) *llmserver.Server {
	t.Helper()
	options := llmserver.Options{Hosts: []string{qwen, moonshot}}
	for _, f := range change {
		f(&options)
	}
	s, err := llmserver.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// post sends a body; headers are "Name: value".
func post(t *testing.T, s *llmserver.Server, path, body string, headers ...string) (*http.Response, error) {
	t.Helper()
	return postTo(limited(t), s, qwen, path, body, headers...)
}

func postTo(ctx context.Context, s *llmserver.Server, host, path, body string, headers ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	return s.Client().Do(r)
}

// answered sends a body and decodes the answer, which must have the status.
func answered(t *testing.T, s *llmserver.Server, status int, path, body string, headers ...string) map[string]any {
	t.Helper()
	a, err := post(t, s, path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	raw, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode != status {
		t.Fatalf("%s %s: status %d, want %d: %s", path, body, a.StatusCode, status, raw)
	}
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v: %s", path, err, raw)
	}
	return v
}

// at walks into decoded JSON: names and numbers of elements.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				t.Fatalf("%v has no element %d", v, step)
			}
			v = l[step]
		}
	}
	return v
}

// events reads the data of all events.
func events(t *testing.T, body io.Reader) []string {
	t.Helper()
	var all []string
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			all = append(all, data)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("after %d events: %v", len(all), err)
	}
	return all
}

const hello = `{"model":"qwen-turbo","messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"hello there"}]}`

func streaming(further string) string {
	return strings.TrimSuffix(hello, "}") + `,"stream":true` + further + `}`
}

func TestAnAnswerNamesModelAndHostAndCountsTokens(t *testing.T) {
	v := answered(t, start(t), 200, "/compatible-mode/v1/chat/completions", hello)
	want := "I am qwen-turbo at dashscope.aliyuncs.com. You said: hello there"
	if got := at(t, v, "choices", 0, "message", "content"); got != want {
		t.Errorf("content %q, want %q", got, want)
	}
	if got := at(t, v, "model"); got != "qwen-turbo" {
		t.Errorf("model %v", got)
	}
	usage := at(t, v, "usage")
	for name, want := range map[string]float64{"prompt_tokens": 4, "completion_tokens": 9, "total_tokens": 13} {
		if got := at(t, usage, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := at(t, usage, "prompt_tokens_details", "cached_tokens"); got != 2.0 {
		t.Errorf("cached_tokens is %v, want 2", got)
	}
}

func TestAStreamIsReadEventByEvent(t *testing.T) {
	s := start(t)
	s.Script(qwen, llmserver.Fault{StallAfter: new(3)})
	a, err := post(t, s, "/v1/chat/completions", streaming(""))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	lines := bufio.NewReader(a.Body)
	var got []string
	for len(got) < 3 { // the server is silent from here on, so these three were not held back
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			var v any
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				t.Fatal(err)
			}
			got = append(got, at(t, v, "choices", 0, "delta", "content").(string))
		}
	}
	if strings.Join(got, "|") != "|I| am" {
		t.Errorf("got %q", got)
	}
}

func TestAStreamAddsUpToTheWholeAnswer(t *testing.T) {
	s := start(t)
	a, err := post(t, s, "/v1/chat/completions", streaming(""))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	all := events(t, a.Body)
	content := ""
	for i, data := range all[:len(all)-1] {
		if strings.Contains(data, "usage") {
			t.Errorf("nobody asked for usage: %s", data)
		}
		var v any
		if err := json.Unmarshal([]byte(data), &v); err != nil {
			t.Fatal(err)
		}
		if role := at(t, v, "choices", 0, "delta", "role"); (role != nil) != (i == 0) {
			t.Errorf("event %d has role %v", i, role)
		}
		word, _ := at(t, v, "choices", 0, "delta", "content").(string)
		content += word
	}
	whole := at(t, answered(t, s, 200, "/v1/chat/completions", hello), "choices", 0, "message", "content")
	if content != whole || all[len(all)-1] != "[DONE]" {
		t.Errorf("streamed %q, whole %q, last event %s", content, whole, all[len(all)-1])
	}
}

func TestUsageInAStreamIsNullUntilItsOwnChunk(t *testing.T) {
	a, err := post(t, start(t), "/v1/chat/completions", streaming(`,"stream_options":{"include_usage":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	all := events(t, a.Body)
	last := all[len(all)-2]
	for _, data := range all[:len(all)-2] {
		if !strings.Contains(data, `"usage":null`) {
			t.Errorf("no null usage in %s", data)
		}
	}
	var v any
	if err := json.Unmarshal([]byte(last), &v); err != nil {
		t.Fatal(err)
	}
	if choices := at(t, v, "choices").([]any); len(choices) != 0 {
		t.Errorf("the chunk with usage has choices %v", choices)
	}
	if total := at(t, v, "usage", "total_tokens"); total != 13.0 {
		t.Errorf("total_tokens %v, want 13", total)
	}
}

func TestAToolIsCalledOnceUntilItHasAnswered(t *testing.T) {
	s := start(t)
	tools := `,"tools":[{"type":"function","function":{"name":"weather"}}]`
	v := answered(t, s, 200, "/v1/chat/completions", strings.TrimSuffix(hello, "}")+tools+"}")
	if got := at(t, v, "choices", 0, "message", "tool_calls", 0, "function", "name"); got != "weather" {
		t.Errorf("tool call of %v", got)
	}
	if got := at(t, v, "choices", 0, "finish_reason"); got != "tool_calls" {
		t.Errorf("finish_reason %v", got)
	}
	a, err := post(t, s, "/v1/chat/completions", streaming(tools))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	arguments, deltas := "", 0
	for _, data := range events(t, a.Body) {
		var chunk struct {
			Choices []struct {
				Delta struct {
					ToolCalls []struct{ Function struct{ Arguments string } } `json:"tool_calls"`
				}
			}
		}
		if data != "[DONE]" {
			if err := json.Unmarshal([]byte(data), &chunk); err != nil {
				t.Fatal(err)
			}
			for _, call := range chunk.Choices[0].Delta.ToolCalls {
				arguments += call.Function.Arguments
				deltas++
			}
		}
	}
	if arguments != "{}" || deltas < 2 {
		t.Errorf("arguments %q in %d deltas", arguments, deltas)
	}
	answeredTool := strings.Replace(hello, `]`, `,{"role":"tool","tool_call_id":"x","content":"rain"}]`, 1)
	v = answered(t, s, 200, "/v1/chat/completions", strings.TrimSuffix(answeredTool, "}")+tools+"}")
	if got := at(t, v, "choices", 0, "finish_reason"); got != "stop" {
		t.Errorf("after the tool's answer: finish_reason %v", got)
	}
}

func TestABadRequestIsRefusedAsAProviderDoes(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.Keys = map[string]string{moonshot: "sk-moon"} })
	f := func(path, body, want string) {
		t.Helper()
		message, _ := at(t, answered(t, s, 400, path, body), "error", "message").(string)
		if !strings.Contains(message, want) {
			t.Errorf("%s %s: message %q lacks %q", path, body, message, want)
		}
	}
	f("/v1/chat/completions", `{"model":`, "JSON")
	f("/v1/chat/completions", hello+"x", "follows")
	f("/v1/chat/completions", `[1]`, "object")
	f("/v1/chat/completions", `{"model":"m"}`, "you must provide a messages parameter")
	f("/v1/chat/completions", `{"messages":[{"role":"user","content":"x"}]}`, "you must provide a model parameter")
	f("/v1/chat/completions", `{"Model":"m","messages":[{"role":"user","content":"x"}]}`, "you must provide a model parameter")
	f("/v1/chat/completions", `{"model":"a","model":"b","messages":[]}`, "twice")
	f("/v1/chat/completions", strings.TrimSuffix(hello, "}")+`,"stream":"yes"}`, "stream")
	f("/v1/chat/completions", strings.TrimSuffix(hello, "}")+`,"stream_options":{"include_usage":true}}`, "stream_options")
	f("/v1/embeddings", `{"model":"m","input":"x","stream_options":{"include_usage":true}}`, "stream_options")
	f("/v1/responses", `{"model":"m","input":"x","stream":true,"stream_options":{"include_usage":true}}`, "include_usage")

	if v := answered(t, s, 404, "/v1/fine_tuning/jobs", `{}`); at(t, v, "error", "code") != "unknown_url" {
		t.Errorf("an unknown operation: %v", v)
	}
	for _, authorization := range []string{"X-Api-Key: sk-moon", "Authorization: Bearer sk-sun", "Authorization: sk-moon"} {
		a, err := postTo(limited(t), s, moonshot, "/v1/chat/completions", hello, authorization)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(a.Body)
		a.Body.Close()
		if a.StatusCode != 401 || !bytes.Contains(raw, []byte(`"code":"invalid_api_key"`)) || bytes.Contains(raw, []byte("sk-")) {
			t.Errorf("%s: %d %s", authorization, a.StatusCode, raw)
		}
	}
	a, err := postTo(limited(t), s, moonshot, "/v1/chat/completions", hello, "Authorization: Bearer sk-moon")
	if err != nil || a.StatusCode != 200 {
		t.Fatalf("the right key: %v %v", a, err)
	}
	a.Body.Close()
}

func TestTheOtherOperationsAnswer(t *testing.T) {
	s := start(t)
	f := func(path, body string, want any, where ...any) {
		t.Helper()
		if got := at(t, answered(t, s, 200, path, body), where...); got != want {
			t.Errorf("%s: %v is %v, want %v", path, where, got, want)
		}
	}
	f("/v1/completions", `{"model":"m","prompt":"hi"}`, "I am m at dashscope.aliyuncs.com. You said: hi", "choices", 0, "text")
	f("/v1/responses", `{"model":"m","input":"hi"}`, "I am m at dashscope.aliyuncs.com. You said: hi", "output", 0, "content", 0, "text")
	f("/v1/responses", `{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"hi all"}]}]}`, 2.0, "usage", "input_tokens")
	f("/v1/embeddings", `{"model":"m","input":["a b","c"]}`, 3.0, "usage", "total_tokens")
	f("/v1/embeddings", `{"model":"m","input":"a"}`, 34.0/128, "data", 0, "embedding", 0)
	f("/v1/embeddings", `{"model":"m","input":"a","encoding_format":"base64"}`, "AACIPgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "data", 0, "embedding")
	f("/v1/moderations", `{"input":"x"}`, false, "results", 0, "flagged")
	f("/v1/rerank", `{"model":"m","query":"q","documents":["a","b"]}`, 1.0, "results", 1, "index")
	f("/v1/images/generations", `{"prompt":"a fish"}`, float64(1_700_000_000), "created")

	a, err := post(t, s, "/v1/audio/speech", `{"model":"m","input":"x","voice":"v"}`)
	if err != nil {
		t.Fatal(err)
	}
	sound, err := io.ReadAll(a.Body)
	a.Body.Close()
	if err != nil || len(sound) != 4096 || sound[255] != 255 {
		t.Errorf("speech: %d bytes, %v", len(sound), err)
	}
	form := "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n--b\r\n" +
		"Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n12345\r\n--b--\r\n"
	v := answered(t, s, 200, "/v1/audio/transcriptions", form, "Content-Type: multipart/form-data; boundary=b")
	if at(t, v, "text") != "I am whisper at dashscope.aliyuncs.com. I heard 5 bytes of a.wav." {
		t.Errorf("transcription: %v", v)
	}
	for path, want := range map[string]string{"/v1/models": `"object":"list"`, "/v1/models/qwen-turbo": `"id":"qwen-turbo"`} {
		a, err := s.Client().Get("https://" + qwen + path)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(a.Body)
		a.Body.Close()
		if !bytes.Contains(raw, []byte(want)) {
			t.Errorf("%s: %s", path, raw)
		}
	}
}

func TestAResponseStreamEndsWithItsUsage(t *testing.T) {
	a, err := post(t, start(t), "/v1/responses", `{"model":"m","input":"hi","stream":true}`)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	raw, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	all := events(t, bytes.NewReader(raw))
	var last any
	if err := json.Unmarshal([]byte(all[len(all)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(raw, []byte("event: response.created\ndata: {")) || at(t, last, "type") != "response.completed" ||
		at(t, last, "response", "usage", "total_tokens") != 9.0 {
		t.Errorf("%s", raw)
	}
}

func TestANameThatIsNotServedIsRefused(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.PlainAddr = "127.0.0.1:0" })
	_, err := s.Client().Get("https://api.openai.com/v1/models")
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("TLS with another name: %v, want the alert", err)
	}
	r, err := http.NewRequestWithContext(limited(t), http.MethodGet, "http://"+s.PlainAddr()+"/v1/models", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "api.openai.com"
	a, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("a Host header with another name: %d, want 421", a.StatusCode)
	}
}

func TestWhatWasReceivedIsKeptToTheLetter(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.PlainAddr = "127.0.0.1:0" })
	conn, err := net.Dial("tcp", s.PlainAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const sent = "POST /a%2fb/chat/completions?x=1&x HTTP/1.1\r\nhost: " + qwen + "\r\nX-b: 2\r\nx-A:1\r\n" +
		"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n" +
		"DELETE /v1/models/m HTTP/1.1\r\nHost: " + qwen + "\r\n\r\n"
	if _, err := io.WriteString(conn, sent); err != nil {
		t.Fatal(err)
	}
	all, err := s.AwaitEnded(limited(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	got := all[0]
	if got.Path != "/a%2fb/chat/completions" || got.RawQuery != "x=1&x" || got.Host != qwen || got.TLS || string(got.Body) != "abcde" {
		t.Errorf("got %+v", got)
	}
	if lines := strings.Join(got.RawHeader, "|"); lines != "host: "+qwen+"|X-b: 2|x-A:1|transfer-encoding: chunked" {
		t.Errorf("raw headers %s", lines)
	}
	if all[1].Method != "DELETE" || all[1].Status != 404 || all[1].Connection != got.Connection {
		t.Errorf("the second request: %+v", all[1])
	}
	if s.Reset(); len(s.Requests()) != 0 {
		t.Error("Reset keeps requests")
	}
}

func TestAnAbortBeforeTheFirstByteIsRecorded(t *testing.T) {
	for _, fault := range []string{"delay=1h", "first-token=1h"} {
		s := start(t)
		ctx, cancel := context.WithCancel(limited(t))
		defer cancel()
		failed := make(chan error)
		go func() {
			a, err := postTo(ctx, s, qwen, "/v1/chat/completions", streaming(""), llmserver.FaultHeader+": "+fault)
			if err == nil {
				a.Body.Close()
			}
			failed <- err
		}()
		if _, err := s.Await(limited(t), 1); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", fault, err)
		}
		got, err := s.AwaitAborted(limited(t))
		if err != nil || got.Ended.IsZero() || got.Status != 0 {
			t.Errorf("%s: %v, aborted request %+v", fault, err, got)
		}
	}
}

func TestAnAbortWithinAnAnswerIsRecorded(t *testing.T) {
	for _, fault := range []string{"stall-after=0", "stall-after=2", "stall-after=1000", "chunk-delay=1h"} {
		s := start(t)
		a, err := post(t, s, "/v1/chat/completions", streaming(""), llmserver.FaultHeader+": "+fault)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		got, err := s.AwaitAborted(limited(t))
		if err != nil || got.Ended.IsZero() || got.Status != 200 {
			t.Errorf("%s: %v, aborted request %+v", fault, err, got)
		}
	}
}

func TestAHalfClosedConnectionCountsAsAbort(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.PlainAddr = "127.0.0.1:0" })
	conn, err := net.Dial("tcp", s.PlainAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v1/models HTTP/1.1\r\nHost: "+qwen+"\r\n"+llmserver.FaultHeader+": delay=1h\r\n\r\n")
	if _, err := s.Await(limited(t), 1); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AwaitAborted(limited(t)); err != nil {
		t.Error(err)
	}
}

func TestACompleteAnswerIsNoAbortAndItsConnectionIsReused(t *testing.T) {
	s := start(t)
	client := s.Client()
	for range 3 {
		a, err := client.Get("https://" + qwen + "/v1/models")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, a.Body); err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
	}
	client.CloseIdleConnections()
	all, err := s.AwaitEnded(limited(t), 3)
	if err != nil || s.Aborted() != 0 || s.Connections() != 1 || all[2].SNI != qwen || !all[2].TLS {
		t.Errorf("%v, %d aborted, %d connections, %+v", err, s.Aborted(), s.Connections(), all)
	}
}

func TestQuietKeepsNothingButCounters(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.Quiet = true })
	first := answered(t, s, 200, "/v1/chat/completions", hello)
	second := answered(t, s, 200, "/v1/chat/completions", hello)
	if at(t, first, "id") != at(t, second, "id") {
		t.Error("equal requests have unequal answers")
	}
	answered(t, s, 400, "/v1/chat/completions", `{}`)
	if len(s.Requests()) != 0 || s.Received() != 3 {
		t.Errorf("%d requests kept, %d counted", len(s.Requests()), s.Received())
	}
}
