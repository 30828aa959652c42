//go:build linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/test/cluster/pki"
	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/stage"
)

// The providers of all tests are pods of this namespace. The cluster's DNS gives their addresses for the names that apps call.
const abroad = "e2e-abroad"

const (
	qwen     = "dashscope.aliyuncs.com" // both are the walkthrough's
	moonshot = "api.moonshot.cn"
	example  = "llm.example.com"    // takes any key, for all other tests: each finds its own requests by what they say
	inhouse  = "anybody.e2e-abroad" // the same server in plain HTTP, which no LLMProvider names
)

var keys = map[string]string{"DASHSCOPE_API_KEY": "sk-of-dashscope", "MOONSHOT_API_KEY": "sk-of-moonshot"}

// eventGap is the time between two events of their streams.
const eventGap = 100 * time.Millisecond

var (
	authority     *pki.Authority // of all of them: sidecars learn of it as one that the installation trusts
	atQwen        = stage.Provider{Namespace: abroad, Name: "dashscope", Keys: map[string]string{qwen: keys["DASHSCOPE_API_KEY"]}, ChunkDelay: eventGap}
	atMoonshot    = stage.Provider{Namespace: abroad, Name: "moonshot", Keys: map[string]string{moonshot: keys["MOONSHOT_API_KEY"]}}
	atAnybody     = stage.Provider{Namespace: abroad, Name: "anybody", Keys: map[string]string{example: "", inhouse: ""}, ChunkDelay: eventGap}
	hostOfAddress = map[string]stage.Provider{qwen: atQwen, moonshot: atMoonshot, example: atAnybody}
)

func raiseProviders(ctx context.Context) (err error) {
	if authority, err = pki.NewAuthority("providers of the tests"); err != nil {
		return err
	}
	manifests := []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: " + abroad + "}\n"}
	for _, p := range []stage.Provider{atQwen, atMoonshot, atAnybody} {
		manifest, err := p.Manifest(authority)
		if err != nil {
			return err
		}
		manifests = append(manifests, manifest)
	}
	if out, err := cluster.KubectlWith(ctx, strings.Join(manifests, "---\n"), "apply", "-f", "-"); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	addresses := map[string]string{}
	for host, p := range hostOfAddress {
		if addresses[host], err = p.Address(ctx, cluster.KubectlWith); err != nil {
			return err
		}
	}
	if err := stage.Resolve(ctx, cluster.KubectlWith, addresses); err != nil {
		return err
	}
	if out, err := cluster.Kubectl(ctx, "-n", abroad, "wait", "--for=condition=Available", "deployment", "--all", "--timeout="+patience.String()); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// received are the requests that a provider got and that have this in their body.
func received(t *testing.T, p stage.Provider, words string) []llmserver.Request {
	t.Helper()
	all, err := p.Requests(t.Context(), cluster.KubectlWith)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(r llmserver.Request) bool { return !strings.Contains(string(r.Body), words) })
}

// ask is a shell command: an app's call of a host, which fails where it is not answered 200.
func ask(host, words string) string {
	return fmt.Sprintf(`curl --silent --show-error --fail-with-body --max-time 120 http://%s --data '%s'`, host, question(words))
}

func question(words string) string {
	return fmt.Sprintf(`{"messages":[{"role":"user","content":"%s"}]}`, words)
}

// exampleProvider is an LLMProvider of llm.example.com with a key in it.
func exampleProvider(key string) string {
	return fmt.Sprintf(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: example}
spec:
  host: %s
  path: /v1/chat/completions
  configs: {defaultConfig: {openAIConfig: {model: small, apiKey: %s}}}
`, example, key)
}
