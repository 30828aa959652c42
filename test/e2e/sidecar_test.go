//go:build linux

package e2e

import (
	_ "embed"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/installation"
)

//go:embed pod_test.yaml
var pod string

// providerAddress is where dashscope.aliyuncs.com is, for the app's pod.
const providerAddress = "10.96.200.1"

func aSidecarFollowsTheAPIServer(t *testing.T) {
	t.Parallel()
	in := namespace(t, "e2e-app")
	apply(t, strings.ReplaceAll(pod, "PROVIDER", providerAddress), "-n", in)
	kubectl(t, "-n", in, "wait", "--for=condition=Ready", "pod/provider", "--timeout="+patience.String())
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, []byte(kubectl(t, "-n", in, "logs", "provider")), 0o644); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", in, "create", "configmap", "authority", "--from-file="+authority)
	kubectl(t, "-n", in, "wait", "--for=condition=Ready", "pod/app", "--timeout="+patience.String())

	// As the README shows it.
	call := func() (answer string) {
		t.Helper()
		return kubectl(t, "-n", in, "exec", "app", "-c", "app", "--", "curl", "-sS", "http://dashscope.aliyuncs.com",
			"-d", `{"messages":[{"role":"user","content":"hello"}]}`)
	}
	shows := func(change string, ask func(answer string) bool) {
		t.Helper()
		began := time.Now()
		eventually(t, change, func() (string, bool) {
			answer := call()
			return answer, ask(answer)
		})
		t.Logf("%s: shown by a call %v later", change, time.Since(began).Round(time.Millisecond))
	}
	answers := func(model string) func(string) bool {
		return func(answer string) bool {
			var chat struct {
				Model   string
				Choices []struct{ Message struct{ Content string } }
			}
			return json.Unmarshal([]byte(answer), &chat) == nil && chat.Model == model && len(chat.Choices) == 1 && chat.Choices[0].Message.Content != ""
		}
	}

	is := func(code string) func(string) bool {
		return func(answer string) bool { return strings.Contains(answer, `"code":"`+code+`"`) }
	}
	// The sample has a Secret, which the sidecar may not read; its key comes by the Secret that is the sidecars'.
	kubectl(t, "-n", in, "apply", "-f", root+"/config/samples/key-from-secret.yaml")
	shows("a provider without its key", is("SecretNotFound"))
	kubectl(t, append([]string{"-n", in, "create", "secret", "generic", v1beta1.KeysSecret, "--from-literal=" + v1beta1.KeysSecretEntry("dashscope", "apiKey") + "=sk-mistyped"},
		installation.AsController()...)...)
	shows("a key that the provider does not know", is("invalid_api_key"))
	kubectl(t, append([]string{"-n", in, "patch", "secret", v1beta1.KeysSecret, "--patch", `{"stringData":{"dashscope_apiKey":"sk-of-dashscope"}}`}, installation.AsController()...)...)
	shows("the key", answers("qwen-turbo"))
	kubectl(t, "-n", in, "patch", "llmprovider", "dashscope", "--type=merge",
		"--patch", `{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"qwen-plus"}}}}}`)
	shows("another model", answers("qwen-plus"))

	// Only its own container reaches it.
	out, err := cluster.Kubectl(t.Context(), "-n", in, "exec", "provider", "--", "curl", "-sS", "--max-time", "5",
		"http://"+kubectl(t, "-n", in, "get", "pod", "app", "-o", "jsonpath={.status.podIP}")+":14001")
	if err == nil || !strings.Contains(out, "Failed to connect") {
		t.Errorf("another pod reaches the sidecar: %v, %s", err, out)
	}
	log := kubectl(t, "-n", in, "logs", "app", "-c", "sidecar")
	for _, key := range []string{"sk-of-dashscope", "sk-mistyped"} {
		if strings.Contains(log, key) {
			t.Errorf("the log shows a key:\n%s", log)
		}
	}
	if strings.Contains(log, `"level":"error"`) {
		t.Errorf("the sidecar has something to complain of:\n%s", log)
	}
	t.Logf("the sidecar's log:\n%s", log)
}
