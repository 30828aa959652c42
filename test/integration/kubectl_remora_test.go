package integration

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
)

// Without a kubelet, the pods are what is written of them. The one that is looked at is a gateway: sidecars are for injection to write.
func TestThePlugInUnderstandsFlagsAndSelectionsAsKubectlDoes(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "kubectl-remora")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../webhook/kubectl-remora").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	namespace := newNamespace(t)
	manifest := `
apiVersion: v1
kind: ServiceAccount
metadata: {name: default}
---
apiVersion: v1
kind: Pod
metadata: {name: sleep-1, labels: {app: sleep}}
spec: {containers: [{name: edge, image: example.com/sidecar, args: [gateway]}]}
---
apiVersion: v1
kind: Service
metadata: {name: sleep}
spec: {selector: {app: sleep}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleep}
spec:
  replicas: 0
  selector: {matchLabels: {app: sleep}}
  template: {metadata: {labels: {app: sleep}}, spec: {containers: [{name: app, image: example.com/app}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, labels: {app: bare}}
spec: {containers: [{name: app, image: example.com/app}]}
`
	if out, err := installed.KubectlWith(t.Context(), manifest, "-n", namespace, "apply", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f := func(wantCode int, want string, args ...string) {
		t.Helper()
		args = append([]string{"--kubeconfig", installed.Kubeconfig(), "-n", namespace}, args...)
		out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
		code := 0
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			code = ended.ExitCode()
		}
		if code != wantCode || !strings.Contains(string(out), want) {
			t.Errorf("%s: %d, want %d and %q\n%s", strings.Join(args[4:], " "), code, wantCode, want, out)
		}
	}
	const asleep = "container edge does not run"
	for _, selected := range []string{"pod/sleep-1", "sleep-1", "svc/sleep", "deploy/sleep"} {
		f(1, asleep, "config", selected)
		f(1, asleep, "explain", "request", "--from", selected, "--host", "a")
		f(0, "no answer: "+namespace+"/sleep-1", "top", "--once", "--interval", "1s", selected)
	}
	f(0, "no answer: "+namespace+"/sleep-1", "top", "--once", "-l", "app=sleep")
	f(1, "none has a sidecar", "top", "--once", "-l", "app=bare")
	f(1, `"nobody" not found`, "config", "pod/nobody")
	f(1, "to list pods, as the ClusterRole remora-viewer has it", "top", "--once", "--as", "eve")
	f(2, "exclude each other", "top", "-A", "pod/sleep-1")
	f(2, "--by \"day\" is not known", "top", "--by", "day")
	f(2, "--host is missing", "explain", "request", "--from", "pod/sleep-1")
	f(0, "pod/sleep-1", "__complete", "config", "pod/")
	f(0, namespace, "__complete", "top", "-n", namespace)

	f(1, "it has no label "+v1beta1.InjectLabel, "check", "--own-namespace")
	f(1, "Deployment remora-system/remora-webhook", "check")
	f(1, "not looked at", "check", "--as", "eve")
}
