package proxy_test

import (
	"fmt"
	"net"
	"testing"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/llmserver"
)

// publish makes a table of the configuration, which is to follow the one before as it does in a running sidecar.
func (r *rig) publish(config, cas string) {
	r.t.Helper()
	in := routing.Objects{Secrets: []routing.Secret{}, TrustedCAs: cas}
	if _, err := in.Decode([]byte(config), "default"); err != nil {
		r.t.Fatal(err)
	}
	table, problems := routing.Compile(in, &routing.Workload{Namespace: "default"})
	r.store.Publish(&snapshot.Snapshot{Table: table.Retaining(r.store.Load().Table), Problems: problems, Ready: true})
}

func TestAuthoritiesOfTheInstallationAreTrustedBesideTheOthersAndOnlyWhileTheyAre(t *testing.T) {
	inside, err := llmserver.Start(llmserver.Options{Hosts: []string{moonshot}})
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	_, port, err := net.SplitHostPort(inside.Addr())
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
apiVersion: v1
kind: List
items:
- apiVersion: istio.alibabacloud.com/v1beta1
  kind: LLMProvider
  metadata: {name: qwen}
  spec: {host: %s}
- apiVersion: istio.alibabacloud.com/v1beta1
  kind: LLMProvider
  metadata: {name: inside}
  spec: {host: %s, port: %s}
`, qwen, moonshot, port)
	r := newRig(t, providers)
	const model = `{"model":"m","messages":[{"role":"user","content":"Hi"}]}`
	r.publish(config, "")
	r.do("POST", "http://"+moonshot, model).wantError(t, 502, routing.UntrustedCertificate, "spec.tls.caBundle", "the installation's trusted CAs")
	r.publish(config, string(inside.CAPEM()))
	for _, host := range []string{moonshot, qwen} {
		if got := r.do("POST", "http://"+host, model); got.status != 200 {
			t.Errorf("%s: %d %s", host, got.status, got.body)
		}
	}
	r.publish(config, string(r.provider.CAPEM()))
	r.do("POST", "http://"+moonshot, model).wantError(t, 502, routing.UntrustedCertificate)
}

func TestARetiredHostIsRefusedAndItsPromptsStayHere(t *testing.T) {
	r := newRig(t, providers)
	if got := r.do("POST", "http://"+qwen, prompt); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	r.provider.Reset()
	r.publish("", "")
	r.do("POST", "http://"+qwen, prompt).wantError(t, 503, routing.HostRetired, "no LLMProvider or LLMRoute names "+qwen+" any more: apply one")
	if n := len(r.provider.Requests()); n != 0 {
		t.Errorf("%d requests have left", n)
	}
	// What was in plain text by its configuration goes where the app sends it.
	r.do("POST", "http://"+vllm, prompt)
	if got := r.last(); got.TLS || got.Host != vllm {
		t.Errorf("%+v", got)
	}
}
