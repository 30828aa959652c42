package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/snapshot"
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

func TestClientGoSaysNothingByItself(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "config")
	text := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k}}]\nclusters: [{name: k, cluster: {server: 'https://127.0.0.1:1'}}]\n"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	log := funcr.New(func(_, line string) { said.WriteString(line) }, funcr.Options{Verbosity: 9})
	if _, err := open(launch.Args{Command: launch.Proxy, Kubeconfig: kubeconfig}, log, told{store: snapshot.NewStore()}, metrics.New()); err != nil {
		t.Fatal(err)
	}
	klog.ErrorS(nil, "sk-quoted")
	klog.Background().Error(nil, "sk-quoted")
	utilruntime.HandleErrorWithContext(t.Context(), nil, "sk-quoted")
	if said.Len() > 0 {
		t.Errorf("the log has: %s", said.String())
	}
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
