package proxy_test

import (
	"net/http"
	"testing"

	"remora.dev/remora/test/llmserver"
)

const azureSpec = `  path: /openai/deployments/my-gpt/chat/completions
  authScheme: api-key
  query: {api-version: 2024-10-21}
  configs: {defaultConfig: {openAIConfig: {model: gpt-4o-mini, apiKey: sk-azure-0123456789}}}
`

func azureServer() llmserver.Options {
	return llmserver.Options{
		Keys: map[string]string{azure: "sk-azure-0123456789"}, KeyHeaders: map[string]string{azure: "api-key"},
		Queries: map[string]string{azure: "api-version=2024-10-21"},
	}
}

func TestAnAzureDeploymentAnswers(t *testing.T) {
	r := newRig(t, providers)
	s := r.strictly(azure, azureServer(), azureSpec)
	for _, call := range []struct{ method, url, body, path string }{
		{"POST", "/", prompt, "/openai/deployments/my-gpt/chat/completions"},
		{"POST", "/v1/chat/completions", streamed, "/openai/deployments/my-gpt/chat/completions"},
		{"POST", "/openai/deployments/my-gpt/chat/completions?api-version=2023-05-15", prompt, "/openai/deployments/my-gpt/chat/completions"},
		{"POST", "/v1/embeddings?api%2Dversion=2023-05-15&API-VERSION=2023-05-15", `{"model":"e","input":"a"}`, "/openai/deployments/my-gpt/embeddings"},
		{"GET", "/v1/models", "", "/openai/deployments/my-gpt/models"},
	} {
		got := r.do(call.method, "http://"+azure+call.url, call.body, credentials...)
		all := s.Requests()
		if got.status != http.StatusOK || len(all) == 0 {
			t.Errorf("%s %s: %d %s", call.method, call.url, got.status, got.body)
			continue
		}
		last := all[len(all)-1]
		if last.Path != call.path || last.RawQuery != "api-version=2024-10-21" || !last.TLS || last.Host != azure {
			t.Errorf("%s %s arrives as %s?%s at %s", call.method, call.url, last.Path, last.RawQuery, last.Host)
		}
		wantOneCredential(t, s, "api-key: sk-azure-0123456789")
	}
}

func TestWhatElseTheAppAsksOfAzureIsKept(t *testing.T) {
	r := newRig(t, providers)
	s := r.strictly(azure, azureServer(), azureSpec)
	// The server cannot read %zz, and says so itself: it is neither mended nor taken out.
	r.do("POST", "http://"+azure+"/?a=%41+b&api-version=x&c&d=%zz", prompt).wantError(t, http.StatusBadRequest, "bad_query")
	if got := s.Requests()[0].RawQuery; got != "api-version=2024-10-21&a=%41+b&c&d=%zz" {
		t.Errorf("the query arrives as %q", got)
	}
}
