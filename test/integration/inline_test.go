package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/assets"
)

// moveKey is the README's line, for the namespace shop and the provider qwen: the key goes from the object into a Secret, through a pipe.
const moveKey = `
kubectl -n shop get llmprovider qwen -o go-template='{{with .spec.configs.defaultConfig.openAIConfig.apiKey}}{"apiVersion":"v1","kind":"Secret","metadata":{"name":"qwen"},"stringData":{"apiKey":{{printf "%q" .}}}}{{end}}' |
  kubectl -n shop create -f - && kubectl -n shop patch llmprovider qwen --type=merge -p '{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":null}},"spec":{"configs":{"defaultConfig":{"openAIConfig":{"apiKey":null,"apiKeyRef":{"name":"qwen"}}}}}}'
`

// shell runs a line as a user does. What each kubectl in it was called with is in the file that is given.
func (k *keyedTenant) shell(t *testing.T, line, called string) (string, error) {
	t.Helper()
	binaries, err := assets.Dir(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$@\" >>%q\nexec %q --kubeconfig=%q --cache-dir=%q \"$@\"\n", called, filepath.Join(binaries, "kubectl"), k.Kubeconfig(), t.TempDir())
	if err := os.WriteFile(filepath.Join(folder, "kubectl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(line, "shop", k.namespace))
	cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestAKeyMovesOutOfAnObjectInOneLineWhileCallsRun(t *testing.T) {
	t.Parallel()
	k := newKeyedTenant(t, installed)
	const key = `sk-"quoted"\and$more'%s`
	inline, err := json.Marshal(map[string]any{
		"apiVersion": v1beta1.GroupVersion.String(), "kind": v1beta1.KindLLMProvider, "metadata": map[string]any{"name": "qwen"},
		"spec": map[string]any{"host": dashscope, "port": json.Number(portOf(t, k.provider)), "configs": map[string]any{"defaultConfig": map[string]any{"openAIConfig": map[string]any{"model": "qwen-turbo", "apiKey": key}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	warns(t, k.apply(t, string(inline)), "whoever may read this object has the key")
	s := k.follower(t)
	s.start(t)
	k.awaitKey(t, key, s)
	apps := s.call(t, 3, dashscope)
	running := s.stream(t, dashscope, "chunks=100 chunk-delay=20ms")
	apps.more(t, 50)

	called := filepath.Join(t.TempDir(), "called")
	if out, err := k.shell(t, moveKey, called); err != nil || strings.Contains(out, key) {
		t.Fatalf("%v\n%s", err, out)
	}
	s.awaitConfig(t, "key=secret:qwen/apiKey")
	apps.more(t, 50)
	apps.noneFailed(t)
	if event, n, err := running.rest(); event != "[DONE]" || err != nil {
		t.Errorf("a stream that was under way ends after %d events with %q, %v", n, event, err)
	}
	if k.times(key) < apps.total {
		t.Errorf("of %d calls %d had the key", apps.total, k.times(key))
	}
	if args, err := os.ReadFile(called); err != nil || !strings.Contains(string(args), "patch") || strings.Contains(string(args), "sk-") {
		t.Errorf("the key was on a command line, or there was none: %v\n%s", err, args)
	}
	if object := k.kubectl(t, "get", "llmprovider", "qwen", "-o", "yaml", "--show-managed-fields"); strings.Contains(object, "sk-") {
		t.Errorf("the key is still in the object:\n%s", object)
	}
	k.awaitOutput(t, "True True", "get", "llmprovider", "qwen")

	// Once more, there is nothing to move, and nothing is changed.
	before := k.kubectl(t, "get", "llmproviders,secrets", "-o", "jsonpath={.items[*].metadata.resourceVersion}", "--field-selector=metadata.name=qwen")
	if out, err := k.shell(t, moveKey, called); err == nil {
		t.Errorf("it succeeds a second time:\n%s", out)
	}
	if after := k.kubectl(t, "get", "llmproviders,secrets", "-o", "jsonpath={.items[*].metadata.resourceVersion}", "--field-selector=metadata.name=qwen"); after != before {
		t.Errorf("a second time changes something: %s, and before %s", after, before)
	}
	// The file that was applied before says what to do.
	if out, err := k.tryApply(t, string(inline)); err == nil || !strings.Contains(out, "give one of apiKey, apiKeyRef and apiKeyRefs") || strings.Contains(out, "sk-") {
		t.Errorf("the file with the key: %v\n%s", err, out)
	}
	k.apply(t, strings.Replace(string(inline), `"apiKey":`+string(must(json.Marshal(key))), `"apiKeyRef":{"name":"qwen"}`, 1))
	if a := s.mustAsk(t, dashscope); a.status != 200 {
		t.Errorf("after the new file was applied: %+v", a)
	}
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return text
}
