package stage

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// walkthrough holds the manifests of the mesh's own walkthrough that config/samples/asm has not: the app, the Service that
// has nothing behind it, and the provider as it is before it has a config for vip-route.
//
//go:embed walkthrough/*.yaml
var walkthrough embed.FS

// Sleep is the app of the walkthrough: ServiceAccount, Service and Deployment, unchanged.
func Sleep() string { return embedded("sleep.yaml") }

// DemoService is the Service demo-llm-server, which no pod is behind.
func DemoService() string { return embedded("demo-llm-server.yaml") }

// PlainProvider is the LLMProvider dashscope-qwen of the walkthrough's first call, with a key in it.
func PlainProvider(key string) string {
	return strings.ReplaceAll(embedded("dashscope-qwen.yaml"), "${DASHSCOPE_API_KEY}", key)
}

func embedded(name string) string {
	text, err := walkthrough.ReadFile("walkthrough/" + name)
	if err != nil {
		panic(err) // it is in this program
	}
	return string(text)
}

// Sample is a file of config/samples/asm, such as dashscope-route.yaml, with keys in the place of its variables. The module's
// folder is root.
func Sample(root, name string, keys map[string]string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "config", "samples", "asm", name))
	if err != nil {
		return "", err
	}
	missing := ""
	out := os.Expand(string(text), func(variable string) string {
		if keys[variable] == "" {
			missing = variable
		}
		return keys[variable]
	})
	if missing != "" {
		return "", fmt.Errorf("%s needs a value for %s", name, missing)
	}
	return out, nil
}
