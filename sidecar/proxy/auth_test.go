package proxy_test

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
)

const (
	azure     = "my-resource.openai.azure.com"
	anthropic = "api.anthropic.com"
)

// credentials are all that an app could send of its own.
var credentials = []string{
	"Authorization", "Bearer sk-app-authorization", "Api-Key", "sk-app-api-key", "X-API-Key", "sk-app-x-api-key",
	"x-goog-api-key", "sk-app-goog", "Cookie", "session=sk-app-cookie",
}

// strictly starts a provider that demands its key and its query, and tells the proxy of it. spec is YAML, two spaces deep.
func (r *rig) strictly(host string, options llmserver.Options, spec string) *llmserver.Server {
	r.t.Helper()
	options.Addr, options.Hosts = "127.0.0.2:443", []string{host}
	s, err := llmserver.Start(options)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(s.Close)
	r.apply("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: strict}\nspec:\n  host: " + host +
		"\n  tls: {caBundle: " + base64.StdEncoding.EncodeToString(s.CAPEM()) + "}\n" + spec)
	return s
}

// wantOneCredential asserts that of all credentials one arrived, in its own line, with its own name.
func wantOneCredential(t *testing.T, s *llmserver.Server, line string) {
	t.Helper()
	all := s.Requests()
	if len(all) == 0 {
		t.Fatal("nothing arrived")
	}
	got := all[len(all)-1].RawHeader
	if !slices.Contains(got, line) {
		t.Errorf("%q is not among\n%s", line, strings.Join(got, "\n"))
	}
	if n := strings.Count(strings.Join(got, "\n"), "sk-"); n != 1 {
		t.Errorf("%d credentials arrived:\n%s", n, strings.Join(got, "\n"))
	}
}

// An app cannot have its own credentials sent in the provider's name by calling them the connection's.
func TestAKeyIsSentWhateverTheAppNominates(t *testing.T) {
	r := newRig(t, providers)
	s := r.strictly(azure, llmserver.Options{Keys: map[string]string{azure: "sk-azure-0123456789"}, KeyHeaders: map[string]string{azure: "api-key"}},
		"  authScheme: api-key\n  configs: {defaultConfig: {openAIConfig: {model: m, apiKey: sk-azure-0123456789}}}\n")
	got, err := r.raw("POST / HTTP/1.1\r\nHost: " + azure + "\r\nConnection: api-key, close\r\nAPI-KEY: sk-app\r\nContent-Type: application/json\r\nContent-Length: " +
		strconv.Itoa(len(prompt)) + "\r\n\r\n" + prompt)
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("%v %+v", err, got)
	}
	wantOneCredential(t, s, "api-key: sk-azure-0123456789")
}

func TestTheAppsOwnCredentialsPassWhereTheProviderHasNoKeyWhateverTheScheme(t *testing.T) {
	r := newRig(t, providers)
	s := r.strictly(anthropic, llmserver.Options{}, "  authScheme: x-api-key\n")
	if got := r.do("POST", "http://"+anthropic+"/", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`, credentials...); got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	header := s.Requests()[0].Header
	for i := 0; i < len(credentials); i += 2 {
		if got := header.Values(credentials[i]); !slices.Equal(got, []string{credentials[i+1]}) {
			t.Errorf("%s is %q", credentials[i], got)
		}
	}
}
