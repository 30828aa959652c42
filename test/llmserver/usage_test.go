package llmserver_test

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
)

const askedForUsage = `,"stream_options":{"include_usage":true}`

// usages gives what each event says of usage: "" for nothing, "null", or the tokens of output.
func usages(t *testing.T, s *llmserver.Server, body, fault string) []string {
	t.Helper()
	a, err := post(t, s, "/v1/chat/completions", body, llmserver.FaultHeader+": "+fault)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	var got []string
	for _, data := range events(t, a.Body) {
		if data == "[DONE]" {
			continue
		}
		var chunk struct {
			Choices []struct {
				FinishReason *string `json:"finish_reason"`
			}
			Usage json.RawMessage
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			t.Fatal(err)
		}
		said := string(chunk.Usage)
		if _, number, ok := strings.Cut(said, `"completion_tokens":`); ok {
			said, _, _ = strings.Cut(number, ",")
		}
		switch {
		case len(chunk.Choices) == 0:
			said += " alone"
		case chunk.Choices[0].FinishReason != nil:
			said += " at the end"
		}
		got = append(got, strings.TrimSpace(said))
	}
	return got
}

func TestAStreamSaysItsUsageInTheWaysOfProviders(t *testing.T) {
	s := start(t)
	f := func(further, fault string, want ...string) {
		t.Helper()
		if got := usages(t, s, streaming(further), fault+" chunks=2"); !slices.Equal(got, want) {
			t.Errorf("%q with the fault %q: %q, want %q", further, fault, got, want)
		}
	}
	f("", "cached=1", "", "", "", "at the end")
	f(askedForUsage, "cached=1", "null", "null", "null", "null at the end", "2 alone")
	f("", "usage=own", "", "", "", "at the end", "2 alone")
	f(askedForUsage, "usage=last", "null", "null", "null", "2 at the end")
	f("", "usage=last", "", "", "", "2 at the end")
	f("", "usage=running", "0", "1", "2", "2 at the end")
	f("", "usage=running reasoning=5", "5", "6", "7", "7 at the end")
	f(askedForUsage, "usage=none", "", "", "", "at the end")
	if _, err := llmserver.ParseFault("usage=often"); err == nil {
		t.Error("usage=often is no way")
	}
}

func TestCachedAndReasoningTokensAreParts(t *testing.T) {
	s := start(t)
	header := llmserver.FaultHeader + ": cached=3 reasoning=7 chunks=2"
	f := func(path, body string, want float64, where ...any) {
		t.Helper()
		if got := at(t, answered(t, s, 200, path, body, header), append([]any{"usage"}, where...)...); got != want {
			t.Errorf("%s: %v is %v, want %v", path, where, got, want)
		}
	}
	f("/v1/chat/completions", hello, 9, "completion_tokens")
	f("/v1/chat/completions", hello, 7, "completion_tokens_details", "reasoning_tokens")
	f("/v1/chat/completions", hello, 3, "prompt_tokens_details", "cached_tokens")
	f("/v1/chat/completions", hello, 13, "total_tokens")
	f("/v1/completions", `{"model":"m","prompt":"one two"}`, 2, "prompt_tokens_details", "cached_tokens")
	f("/v1/responses", `{"model":"m","input":"a b c d"}`, 3, "input_tokens_details", "cached_tokens")
	f("/v1/responses", `{"model":"m","input":"a b c d"}`, 7, "output_tokens_details", "reasoning_tokens")
	f("/v1/responses", `{"model":"m","input":"a b c d"}`, 13, "total_tokens")
}

func TestStreamOptionsCanBeRefused(t *testing.T) {
	s := start(t)
	refuse := llmserver.FaultHeader + ": refuse-stream-options="
	for status, want := range map[string]string{"400": "stream_options", "422": "extra_forbidden"} {
		a, err := post(t, s, "/v1/chat/completions", streaming(askedForUsage), refuse+status)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(a.Body)
		a.Body.Close()
		if !strings.HasPrefix(a.Status, status) || !strings.Contains(string(raw), want) {
			t.Errorf("%s: %s %s", status, a.Status, raw)
		}
		a, err = post(t, s, "/v1/chat/completions", streaming(""), refuse+status)
		if err != nil || a.StatusCode != 200 {
			t.Fatalf("without stream_options: %v %v", err, a)
		}
		a.Body.Close()
	}
}

func TestNoUsageMeansNone(t *testing.T) {
	s := start(t)
	for path, body := range map[string]string{
		"/v1/chat/completions": hello,
		"/v1/completions":      `{"model":"m","prompt":"x"}`,
		"/v1/responses":        `{"model":"m","input":"x"}`,
		"/v1/embeddings":       `{"model":"m","input":"x"}`,
		"/v1/rerank":           `{"model":"m","query":"q","documents":["a"]}`,
	} {
		if v := at(t, answered(t, s, 200, path, body, llmserver.FaultHeader+": usage=none"), "usage"); v != nil {
			t.Errorf("%s has usage %v", path, v)
		}
		if v := at(t, answered(t, s, 200, path, body), "usage"); v == nil {
			t.Errorf("%s has no usage", path)
		}
	}
}
