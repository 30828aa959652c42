//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

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

// streamed looks at when each event is there, not at how many reads it took.
func (w walkthrough) streamed(t *testing.T) {
	const gap = 250 * time.Millisecond
	events, arrived, err := stream(t, w.in, fmt.Sprintf("chunks=8 chunk-delay=%v", gap), "of the stream", 30*time.Second)
	if err != nil || len(events) < 9 || events[len(events)-1] != "[DONE]" {
		t.Fatalf("%v, events: %q", err, events)
	}
	var gaps []string
	slow := 0
	for i := range arrived[1:] {
		between := arrived[i+1].Sub(arrived[i])
		gaps = append(gaps, between.Round(time.Millisecond).String())
		if between > gap/2 {
			slow++
		}
	}
	if slow < len(gaps)-3 { // a busy machine holds up some of them
		t.Errorf("events were not sent on one by one: the provider waits %v between two of them, here it was %v", gap, gaps)
	}
	t.Logf("between events: %v", gaps)
	if r := received(t, atQwen, "of the stream"); len(r) != 1 || r[0].Header.Get("Authorization") != "Bearer "+keys["DASHSCOPE_API_KEY"] {
		t.Errorf("the provider received %+v", r)
	}

	// No clock is needed where the provider falls silent: what it has sent is here, though nothing follows.
	if events, _, err = stream(t, w.in, "stall-after=3", "of a silence", 3*time.Second); err == nil || len(events) != 3 {
		t.Errorf("%v; of a provider that fell silent after three events there are %q", err, events)
	}
	eventually(t, "the provider notices that the client has gone", func() (string, bool) {
		r := received(t, atQwen, "of a silence")
		return fmt.Sprintf("%+v", r), len(r) == 1 && r[0].Aborted
	})
}

// stream gives the events of an answer, and when each was here. After some time the client gives up.
func stream(t *testing.T, in, fault, words string, most time.Duration) (events []string, arrived []time.Time, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), cluster.Binary("kubectl"), "--kubeconfig="+cluster.Kubeconfig(), "-n", in, "exec", "deployment/sleep", "--",
		"curl", "--silent", "--show-error", "--no-buffer", "--max-time", fmt.Sprint(most.Seconds()), "http://"+qwen, "--header", llmserver.FaultHeader+": "+fault,
		"--data", `{"stream":true,"messages":[{"role":"user","content":"`+words+`"}]}`)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			events, arrived = append(events, text), append(arrived, time.Now())
		}
	}
	_, _ = io.Copy(io.Discard, out)
	if err = cmd.Wait(); err != nil {
		err = fmt.Errorf("%w: %s", err, complaint.String())
	}
	return events, arrived, err
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
