package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/test/cluster/controlplane"
)

func TestTheProxyFollowsTheNamespaceOfItsKubeconfig(t *testing.T) {
	cp, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cp.Stop()
	kubectl := func(stdin string, args ...string) {
		t.Helper()
		if out, err := cp.KubectlWith(t.Context(), stdin, args...); err != nil {
			t.Fatalf("kubectl %v: %s", args, out)
		}
	}
	crds := []string{"-f", "../config/crd/istio.alibabacloud.com_llmproviders.yaml", "-f", "../config/crd/istio.alibabacloud.com_llmroutes.yaml"}
	kubectl("", append([]string{"apply"}, crds...)...)
	kubectl("", append([]string{"wait", "--for=condition=Established"}, crds...)...)
	kubectl("", "create", "namespace", "team")
	kubectl(valid, "apply", "-n", "team", "-f", "-")
	kubectl("", "config", "set-context", "--current", "--namespace=team", "--kubeconfig", cp.Kubeconfig())

	kept := filepath.Join(t.TempDir(), "kept", "last-good.json")
	s := start(t, "--kubeconfig", cp.Kubeconfig(), "--last-good", kept)
	s.await(s.health+"/readyz", "ok generation=")
	s.await(s.admin, "of LLMProvider team/qwen")
	cp.APIServer.Kill()
	s.await(s.health+"/readyz", "the API server has not been reachable since")
	s.signal()
	if err := s.process.Wait(); err != nil {
		t.Errorf("it did not end well: %v", err)
	}
	s = start(t, "--kubeconfig", cp.Kubeconfig(), "--last-good", kept)
	s.await(s.health+"/readyz", "the configuration is the one that was saved at")
	if status, body := s.get(s.health + "/readyz"); status != 200 {
		t.Errorf("readyz: %d %s", status, body)
	}
	s.await(s.admin, "host qwen.example")
}

// await asks until the answer has the text.
func (s *sidecar) await(url, want string) {
	s.t.Helper()
	for limit := time.Now().Add(30 * time.Second); ; {
		_, body := s.get(url)
		if strings.Contains(body, want) {
			return
		}
		if time.Now().After(limit) {
			s.t.Fatalf("%s does not say %q but\n%s", url, want, body)
		}
	}
}
