package routing_test

import (
	"testing"

	"remora.dev/remora/sidecar/routing"
)

func TestOnlyInferenceHasAnUpstreamPath(t *testing.T) {
	f := func(providerPath, path, method, upstream string) {
		t.Helper()
		table, _ := routing.Compile(decodeAll(t, []byte(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: p}
spec: {host: llm.example.com, path: "`+providerPath+`"}
`)), nil)
		host := table.Host([]byte("llm.example.com"))
		o, model := host.Operation([]byte(path))
		if o == nil {
			if upstream != "" {
				t.Errorf("%s with provider path %s: no operation, want %s %s", path, providerPath, method, upstream)
			}
			return
		}
		got, ok := host.Rules[0].Levels[0].Backends[0].Target.PathFor(o, model)
		if !ok {
			got = ""
		}
		if got != upstream || upstream != "" && o.Method != method {
			t.Errorf("%s with provider path %s: %s %q, want %s %q", path, providerPath, o.Method, got, method, upstream)
		}
	}
	const dashscope = "/compatible-mode/v1/chat/completions"
	f(dashscope, "/", "POST", dashscope)
	f(dashscope, "", "POST", dashscope)
	f(dashscope, dashscope, "POST", dashscope)
	f(dashscope, "/v1/chat/completions", "POST", dashscope)
	f(dashscope, "/chat/completions", "POST", dashscope)
	f(dashscope, "/v1/completions", "POST", "/compatible-mode/v1/completions")
	f(dashscope, "/v1/responses", "POST", "/compatible-mode/v1/responses")
	f(dashscope, "/v1/embeddings", "POST", "/compatible-mode/v1/embeddings")
	f(dashscope, "/compatible-mode/v1/embeddings", "POST", "/compatible-mode/v1/embeddings")
	f(dashscope, "/embeddings", "POST", "/compatible-mode/v1/embeddings")
	f(dashscope, "/v1/moderations", "POST", "/compatible-mode/v1/moderations")
	f(dashscope, "/v1/rerank", "POST", "/compatible-mode/v1/rerank")
	f(dashscope, "/v1/images/generations", "POST", "/compatible-mode/v1/images/generations")
	f(dashscope, "/v1/images/edits", "POST", "/compatible-mode/v1/images/edits")
	f(dashscope, "/v1/images/variations", "POST", "/compatible-mode/v1/images/variations")
	f(dashscope, "/v1/audio/speech", "POST", "/compatible-mode/v1/audio/speech")
	f(dashscope, "/v1/audio/transcriptions", "POST", "/compatible-mode/v1/audio/transcriptions")
	f(dashscope, "/v1/audio/translations", "POST", "/compatible-mode/v1/audio/translations")
	f(dashscope, "/v1/models", "GET", "/compatible-mode/v1/models")
	f(dashscope, "/v1/models/gpt-4", "GET", "/compatible-mode/v1/models/gpt-4")
	f(dashscope, "/v1/models/ft:gpt-4o:org:name:id", "GET", "/compatible-mode/v1/models/ft:gpt-4o:org:name:id")
	f(dashscope, "/v1/models/Qwen%2FQwen2.5-7B", "GET", "/compatible-mode/v1/models/Qwen%2FQwen2.5-7B")
	f(dashscope, "/v1/models/a%3Ab", "GET", "/compatible-mode/v1/models/a%3Ab")

	// A path of the provider's own making says where chat is, and not where anything else would be.
	f("/api/generate", "/", "POST", "/api/generate")
	f("/api/generate", "/api/generate", "POST", "/api/generate")
	f("/api/generate", "/v1/embeddings", "POST", "")

	for _, path := range []string{
		// nothing but inference
		"/v1", "/v1/", "/v1/files", "/v1/files/file-1", "/v1/fine_tuning/jobs", "/v1/batches", "/v1/assistants", "/v1/threads",
		"/v1/organization/api_keys", "/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/v1/chat/completions/chatcmpl-1",
		"/dashboard/billing", "/admin", "/v2/chat/completions",
		// to the letter
		"//", "//v1/chat/completions", "/v1//chat/completions", "/v1/chat/completions/", "/V1/chat/completions", "/v1/Chat/Completions",
		"/v1/chat/completions?x=1", "/v1/chat/completions#x", "/v1/chat/completions;x", "/v1/chat%2Fcompletions", "/v1/%63hat/completions",
		"/./v1/chat/completions", "/v1/../v1/chat/completions", "/v1/x/../chat/completions", "/v1/%2e%2e/v1/chat/completions",
		"v1/chat/completions", " /v1/chat/completions", "/v1/chat/completions ", "/v1/chat/completions\x00", "\\v1\\chat\\completions",
		"/compatible-mode", "/compatible-mode/", "/compatible-mode/v1", "http://llm.example.com/v1/chat/completions", "*",
		// a model's name leads nowhere else
		"/v1/models/", "/v1/models/.", "/v1/models/..", "/v1/models/...", "/v1/models/../files", "/v1/models/a/b", "/v1/models/a/..", "/v1/models//a",
		"/v1/models/%2e%2e", "/v1/models/%2E%2E%2Ffiles", "/v1/models/..%2Ffiles", "/v1/models/..%2ffiles", "/v1/models/a%2F..%2F..%2Ffiles",
		"/v1/models/a%2F..", "/v1/models/%2Ffiles", "/v1/models/a%2F", "/v1/models/a%2F%2Fb", "/v1/models/a%252F..", "/v1/models/a%5C..",
		"/v1/models/a%00", "/v1/models/a%", "/v1/models/a%2", "/v1/models/a;b", "/v1/models/a?b", "/v1/models/a#b", "/v1/models/a b", "/v1/models/é",
	} {
		f(dashscope, path, "", "")
	}
}
