package llmserver_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
)

func TestAHostDemandsItsKeyInItsHeaderAndItsQuery(t *testing.T) {
	const azure, anthropic = "azure.example.com", "anthropic.example.com"
	s := start(t, func(o *llmserver.Options) {
		o.Hosts = append(o.Hosts, azure, anthropic)
		o.Keys = map[string]string{qwen: "sk-q", azure: "sk-a", anthropic: "sk-x"}
		o.KeyHeaders = map[string]string{azure: "api-key", anthropic: "x-api-key"}
		o.Queries = map[string]string{azure: "api-version=2024-10-21"}
	})
	f := func(host, query string, status int, headers ...string) {
		t.Helper()
		a, err := postTo(limited(t), s, host, "/v1/chat/completions"+query, hello, headers...)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		raw, err := io.ReadAll(a.Body)
		if err != nil || a.StatusCode != status {
			t.Errorf("%s%s %q: %d, want %d: %v %s", host, query, headers, a.StatusCode, status, err, raw)
		}
		if strings.Contains(string(raw), "sk-") {
			t.Errorf("the answer has the key: %s", raw)
		}
	}
	const version = "?api-version=2024-10-21"
	f(qwen, "", 200, "Authorization: Bearer sk-q")
	f(qwen, "", 401, "Authorization: Bearer sk-q", "api-key: sk-q")
	f(qwen, "", 401, "Authorization: Bearer sk-q", "x-api-key: anything")
	f(azure, version, 200, "api-key: sk-a")
	f(azure, version+"&x=y", 200, "API-KEY: sk-a")
	f(azure, version, 401, "api-key: Bearer sk-a")
	f(azure, version, 401, "api-key: sk-x")
	f(azure, version, 401, "Authorization: Bearer sk-a")
	f(azure, version, 401, "api-key: sk-a", "Authorization: Bearer sk-a")
	f(azure, "", 400, "api-key: sk-a")
	f(azure, "?api-version=2023-01-01", 400, "api-key: sk-a")
	f(azure, version+"&api-version=2023-01-01", 400, "api-key: sk-a")
	f(anthropic, "", 200, "x-api-key: sk-x")
	f(anthropic, "", 401, "api-key: sk-x")
}

func TestADemandOfNoHostIsAMistake(t *testing.T) {
	for name, o := range map[string]llmserver.Options{
		"a header without a key": {KeyHeaders: map[string]string{"localhost": "api-key"}},
		"a query of another":     {Queries: map[string]string{"elsewhere": "a=b"}},
		"a query that is none":   {Queries: map[string]string{"localhost": "a=%zz"}},
	} {
		if s, err := llmserver.Start(o); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAKeyThatIsGoodNoMoreIsRefused(t *testing.T) {
	s := start(t, func(o *llmserver.Options) {
		o.Revoked = func(h http.Header) bool { return h.Get("Authorization") == "Bearer old" }
	})
	for key, want := range map[string]int{"old": 401, "new": 200} {
		a, err := postTo(limited(t), s, qwen, "/v1/chat/completions", hello, "Authorization: Bearer "+key)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != want {
			t.Errorf("the %s key is answered %d", key, a.StatusCode)
		}
	}
}
