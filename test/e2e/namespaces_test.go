//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/stage"
)

// namespace makes one whose pods must meet the restricted standard.
func namespace(t *testing.T, name string) string {
	t.Helper()
	return labelled(t, name, "pod-security.kubernetes.io/enforce=restricted")
}

// injected makes one in which every pod gets a sidecar.
func injected(t *testing.T, name string) string {
	t.Helper()
	return labelled(t, name, v1beta1.InjectLabel+"="+v1beta1.InjectEnabled)
}

func labelled(t *testing.T, name string, labels ...string) string {
	t.Helper()
	kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(diagnosis(name))
		}
		kubectl(t, "delete", "namespace", name, "--wait=false")
	})
	if len(labels) > 0 {
		kubectl(t, append([]string{"label", "namespace", name}, labels...)...)
	}
	return name
}

// diagnosis is all that a namespace has to say, its sidecars first of all, and what the providers and the installation said last.
func diagnosis(namespace string) string {
	var text strings.Builder
	show := func(title string, args ...string) {
		out, err := cluster.Kubectl(context.Background(), args...)
		fmt.Fprintf(&text, "--- %s (%v):\n%s\n", title, err, out)
	}
	show("objects of "+namespace, "-n", namespace, "get", "pods,deployments,jobs,llmproviders,llmroutes", "-o", "wide")
	show("events", "-n", namespace, "get", "events", "--sort-by=.metadata.creationTimestamp", "--no-headers",
		"--output=custom-columns=:.lastTimestamp,:.involvedObject.kind,:.involvedObject.name,:.reason,:.message")
	names, _ := cluster.Kubectl(context.Background(), "-n", namespace, "get", "pods", "-o", "name")
	for pod := range strings.FieldsSeq(names) {
		for _, container := range []string{v1beta1.RedirectContainer, v1beta1.SidecarContainer} {
			show(pod+", "+container, "-n", namespace, "logs", pod, "-c", container, "--tail=60")
		}
		show(pod+", its own", "-n", namespace, "logs", pod, "--tail=20")
	}
	for _, p := range []stage.Provider{atQwen, atMoonshot, atAnybody} {
		show("provider "+p.Name, "-n", abroad, "logs", "deployment/"+p.Name, "--tail=15")
	}
	for _, name := range []string{v1beta1.WebhookName, v1beta1.ControllerName} {
		show(name, "-n", system, "logs", "-l", "app.kubernetes.io/name="+name, "--tail=8", "--prefix")
	}
	return text.String()
}

// typed runs a command line as a person would type it, with kubectl at hand and the namespace as the current one.
func typed(t *testing.T, in, line string) (string, error) {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text, err := os.ReadFile(cluster.Kubeconfig())
	if err == nil {
		err = os.WriteFile(kubeconfig, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "kubectl config set-context --current --namespace="+in+" >/dev/null\n"+line)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "NO_PROXY=*", "PATH="+filepath.Dir(cluster.Binary("kubectl"))+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// shell runs a script in an app, which must succeed.
func shell(t *testing.T, in, app, script string) string {
	t.Helper()
	out, err := cluster.KubectlWith(t.Context(), script, "-n", in, "exec", "-i", app, "--", "sh")
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return out
}

// container is YAML of one that runs a script, with the walkthrough's image. More is what else it has, such as "restartPolicy: Always".
func container(name, script string, more ...string) string {
	text, err := json.Marshal(script)
	if err != nil {
		panic(err) // it is a string
	}
	return fmt.Sprintf("{%s}", strings.Join(append([]string{"name: " + name, "image: " + stage.AppImage, "imagePullPolicy: IfNotPresent",
		"command: [sh, -c, " + string(text) + "]"}, more...), ", "))
}

// pod is YAML of one that runs one container. More are lines of its spec, each complete.
func pod(name, container string, more ...string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %[1]s}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [%s]
  %s
`, name, container, strings.Join(more, "\n  "))
}

// idle is what an app does that others run commands in.
const idle = "trap exit TERM; sleep infinity & wait"

// awaitReady returns when a pod is, or tells at once of one that has ended.
func awaitReady(t *testing.T, in, what string) {
	t.Helper()
	kubectl(t, "-n", in, "wait", "--for=condition=Ready", what, "--timeout="+patience.String())
}
