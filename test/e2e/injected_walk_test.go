//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/llmserver"
)

func (w walkthrough) badConfiguration(t *testing.T) {
	faulty := func(host, header, weight string) string {
		out, err := cluster.KubectlWith(t.Context(), `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: faulty}
spec:
  host: `+host+`
  rules:
  - matches: [{headers: {user-type: {regex: "`+header+`"}}}]
    backendRefs:
    - {providerHost: api.moonshot.cn, weight: 50}
    - {providerHost: dashscope.aliyuncs.com`+weight+`}
`, "-n", w.in, "apply", "-f", "-")
		if err == nil {
			t.Errorf("this was accepted: %s", out)
		}
		return out
	}
	// What the schema can tell, and what it cannot.
	has(t, "the refusal", faulty("llm.example.com", "gold", ""), "spec.rules[0]", "give every backendRef a weight, or none")
	has(t, "the refusal", faulty("http://llm.example.com", "gold(", ", weight: 50"), "spec.host", "spec.rules[0].matches[0].headers[user-type].regex")
}

func (w walkthrough) edited(t *testing.T) {
	calls := callAllTheTime(t, w.in, "deployment/sleep", virtual, "of the edit")
	calls.await(t, "the route of before is in use", func(answers []string) bool {
		return contains(answers, `"model":"qwen`) && contains(answers, `"model":"moonshot`)
	})
	manifest := strings.Replace(sample(t, "demo-llm-server.yaml"), "weight: 50", "weight: 0", 1)
	out := apply(t, strings.Replace(manifest, "weight: 50", "weight: 100", 1), "-n", w.in)
	has(t, "kubectl apply", out, "50 % of calls move from "+qwen+" to "+moonshot)
	calls.await(t, "the edit took effect", func(answers []string) bool {
		return len(answers) > 30 && !contains(answers[len(answers)-30:], `"model":"qwen`)
	})
	t.Log(calls.stop(t))
}

// streamed needs no clock: a provider that falls silent has sent three events, and they are here though nothing follows.
func (w walkthrough) streamed(t *testing.T) {
	ask := func(fault, words string) string {
		return `curl --silent --show-error --no-buffer http://` + qwen + ` --header '` + llmserver.FaultHeader + `: ` + fault + `' ` +
			`--data '{"stream":true,"messages":[{"role":"user","content":"` + words + `"}]}'`
	}
	events := strings.Count(shell(t, w.in, "deployment/sleep", ask("chunks=8 chunk-delay=250ms", "of the stream")), "data: ")
	if r := received(t, atQwen, "of the stream"); events < 9 || len(r) != 1 || r[0].Header.Get("Authorization") != "Bearer "+keys["DASHSCOPE_API_KEY"] {
		t.Errorf("%d events came of what the provider received: %+v", events, r)
	}
	out := shell(t, w.in, "deployment/sleep", ask("stall-after=3", "of a silence")+` >/tmp/silence &
until [ "$(grep -c '^data: ' /tmp/silence)" = 3 ]; do sleep 0.1; done
kill $!
wait $! 2>/dev/null || cat /tmp/silence`)
	if strings.Count(out, "data: ") != 3 {
		t.Errorf("of a provider that fell silent after three events there is %s", out)
	}
	eventually(t, "the provider notices that the client has gone", func() (string, bool) {
		r := received(t, atQwen, "of a silence")
		return fmt.Sprintf("%+v", r), len(r) == 1 && r[0].Aborted
	})
}

func (w walkthrough) untouched(t *testing.T) {
	// Headers as only this app would write them, in plain HTTP to a host that nobody names.
	out := shell(t, w.in, "deployment/sleep", `curl --silent --show-error --fail-with-body http://`+inhouse+`/v1/models/mine?a=%41 -H 'x-of-the-App: 1' -H 'Authorization: Bearer a-key-of-the-app' -A the-app`)
	has(t, "the answer", out, `"id":"mine"`)
	all := received(t, atAnybody, "")
	var lines []string
	for _, r := range all {
		if r.Host == inhouse && r.Header.Get("User-Agent") == "the-app" {
			lines = append(lines, fmt.Sprintf("tls %v %s %s?%s %s\n", r.TLS, r.Method, r.Path, r.RawQuery, r.Proto)+strings.Join(r.RawHeader, "\n"))
		}
	}
	want := "tls false GET /v1/models/mine?a=%41 HTTP/1.1\nHost: " + inhouse + "\nUser-Agent: the-app\nAccept: */*\nx-of-the-App: 1\nAuthorization: Bearer a-key-of-the-app"
	if len(lines) != 1 || lines[0] != want {
		t.Errorf("the other side received\n%s\nwant\n%s", strings.Join(lines, "\n\n"), want)
	}
	// TLS of the app's own to a provider: no key is added, and none taken away, so it is refused.
	out = shell(t, w.in, "deployment/sleep", `curl --silent --show-error --insecure https://`+moonshot+`/v1/models -H 'Authorization: Bearer a-key-of-the-app'`)
	has(t, "the answer", out, "invalid_api_key")
	if r := newest(t, atMoonshot); !r.TLS || r.Path != "/v1/models" || r.Header.Get("Authorization") != "Bearer a-key-of-the-app" ||
		!strings.HasPrefix(r.Header.Get("User-Agent"), "curl/") {
		t.Errorf("the other side received %+v", r)
	}
}

func (w walkthrough) keyless(t *testing.T) {
	search := func() string {
		return shell(t, w.in, "deployment/sleep", `
echo environments $(cat /proc/[0-9]*/environ | tr '\0' '\n' | grep -c -e sk-of)
echo files $(grep -r -a -l -e sk-of / --exclude-dir=proc --exclude-dir=sys 2>/dev/null | tr '\n' ' ')
echo tokens $(find / -xdev -path /proc -prune -o -name token -print | tr '\n' ' ') $(ls /run/remora /etc/remora 2>&1 | grep -c 'No such file')`)
	}
	shell(t, w.in, "deployment/sleep", "echo sk-of >/tmp/planted") // what finds nothing must be able to find
	has(t, "the search for a key that is there", search(), "files /tmp/planted\n")
	shell(t, w.in, "deployment/sleep", "rm /tmp/planted")
	if got := search(); !strings.HasPrefix(got, "environments 0\nfiles\ntokens ") || !strings.HasSuffix(got, " 2\n") {
		t.Errorf("the app finds something of the sidecar's: %s", got)
	}
	for _, secret := range []string{v1beta1.KeysSecret, v1beta1.AccessSecret} {
		status := shell(t, w.in, "deployment/sleep", `cd /var/run/secrets/kubernetes.io/serviceaccount
curl --silent --show-error --output /dev/null --write-out '%{http_code}' --cacert ca.crt --header "Authorization: Bearer $(cat token)" \
  https://kubernetes.default.svc/api/v1/namespaces/`+w.in+`/secrets/`+secret)
		if status != "403" {
			t.Errorf("the app's account asks for Secret %s and is answered %s", secret, status)
		}
	}
	// It is there, only not for the app.
	if out := kubectl(t, "-n", w.in, "get", "secrets", v1beta1.KeysSecret, v1beta1.AccessSecret, "-o", "name"); strings.Count(out, "secret/") != 2 {
		t.Errorf("there is only %s", out)
	}
}
