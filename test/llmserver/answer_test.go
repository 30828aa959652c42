package llmserver_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
)

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
	f("/v1/completions", `{"model":"m","prompt":"hi <b>"}`, "I am m at dashscope.aliyuncs.com. You said: hi <b>", "choices", 0, "text")
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
