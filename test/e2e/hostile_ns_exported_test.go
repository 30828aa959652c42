//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// exportedObjects are a provider of the installation's namespace that the editor's may use, and its key.
const exportedObjects = `
{apiVersion: v1, kind: Secret, metadata: {name: exported}, stringData: {apiKey: sk-of-moonshot}}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: exported}
spec:
  host: ` + moonshot + `
  exportTo: [e2e-hostile]
  configs: {defaultConfig: {openAIConfig: {model: small, apiKeyRef: {name: exported}}}}
`

// export makes it, and returns when a pod may use it.
func (e *editor) export(t *testing.T, pod string) {
	t.Helper()
	apply(t, exportedObjects, "-n", system)
	t.Cleanup(func() { kubectl(t, "-n", system, "delete", "llmprovider/exported", "secret/exported") })
	eventually(t, "an exported provider is used", func() (string, bool) {
		out := e.uses(t, pod, "exported")
		return out, strings.HasSuffix(out, " 200")
	})
	e.hide(t, keys["MOONSHOT_API_KEY"])
}

// uses calls it from a pod, and tells the answer with its status.
func (e *editor) uses(t *testing.T, pod, words string) string {
	t.Helper()
	return e.saw(shell(t, e.in, "pod/"+pod, "curl --silent --write-out ' %{http_code}' http://"+moonshot+" --data '"+question(words)+"'"))
}

// exported tries to have its key: it may be used, and neither be seen nor be turned.
func (e *editor) exported(t *testing.T, pod string) {
	t.Helper()
	own := strings.NewReplacer("name: team}\n", "name: own}\n", example, moonshot).Replace(teamProvider)
	t.Run("see it among one's own", func(t *testing.T) {
		e.attempt(t)
		if out, err := e.kubectl(t, "get", "llmproviders", "-o", "yaml"); err != nil || strings.Contains(out, "exported") {
			t.Errorf("%v:\n%s", err, out)
		}
	})
	t.Run("a provider of one's own for its host, with its Secret", func(t *testing.T) {
		e.attempt(t)
		_, err := e.create(t, strings.Replace(own, "{name: team}", "{name: exported}", 1))
		refused(t, err)
	})
	t.Run("a route to it that says another host", func(t *testing.T) {
		e.attempt(t)
		_, err := e.create(t, fmt.Sprintf("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: attempt}\nspec: {host: chat, rules: [{backendRefs: [{providerHost: %s, hostRewrite: %s}]}]}", moonshot, evilHost))
		denied(t, err, "hostRewrite")
	})
	t.Run("a provider of one's own for its host, without a key", func(t *testing.T) {
		e.attempt(t)
		if _, err := e.create(t, strings.Replace(own, ", apiKeyRef: {name: team}", "", 1)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "one's own is used, and its calls have no key", func() (string, bool) {
			out := e.uses(t, pod, "own")
			return out, strings.HasSuffix(out, " 401")
		})
		if out, err := e.kubectl(t, "delete", "llmprovider", "own"); err != nil {
			t.Fatal(out, err)
		}
	})
}
