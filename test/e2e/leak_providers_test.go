//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"remora.dev/remora/test/cluster/pki"
	"remora.dev/remora/test/stage"
)

// Services of these names answer in plain HTTP at port 80 what their providers answer over TLS at port 443, so that nothing but the
// sidecar keeps a prompt from leaving in plain text.
const leakAbroad = "e2e-leak-abroad"

func leakHost(service string) string { return service + "." + leakAbroad }

var (
	steady     = leakHost("steady")     // has a provider all the time
	guarded    = leakHost("guarded")    // its key is in a Secret
	gone       = leakHost("gone")       // has only a provider
	routed     = leakHost("routed")     // has only a route
	both       = leakHost("both")       // has both
	distrusted = leakHost("distrusted") // nobody trusts its certificate
	unready    = leakHost("unready")    // has no endpoint at port 443, which the kernel says, or leaves calls to hang
	leakKept   = []string{steady, guarded, gone, routed, both, distrusted, unready}
	leakTold   = leakHost("told") // no object names it
)

// raiseLeakProviders starts one that sidecars trust and one that they do not.
func raiseLeakProviders(t *testing.T) []stage.Provider {
	t.Helper()
	labelled(t, leakAbroad)
	other, err := pki.NewAuthority("nobody knows")
	if err != nil {
		t.Fatal(err)
	}
	trusted := stage.Provider{Namespace: leakAbroad, Name: "trusted", Keys: map[string]string{}}
	untrusted := stage.Provider{Namespace: leakAbroad, Name: "untrusted", Keys: map[string]string{distrusted: ""}}
	for _, host := range append([]string{leakTold}, leakKept...) {
		trusted.Keys[host] = ""
	}
	var manifests []string
	for _, p := range []struct {
		stage.Provider
		of *pki.Authority
	}{{trusted, authority}, {untrusted, other}} {
		manifest, err := p.Manifest(p.of)
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, manifest)
	}
	for host := range maps.Keys(trusted.Keys) {
		name, _, _ := strings.Cut(host, ".")
		app, port := trusted.Name, "https"
		switch host {
		case distrusted:
			app = untrusted.Name
		case unready:
			port = "nobody-listens"
		}
		manifests = append(manifests, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %s}
spec:
  selector: {app: %s}
  ports: [{name: https, port: 443, targetPort: %s}, {name: http, port: 80, targetPort: http}]
`, name, app, port))
	}
	apply(t, strings.Join(manifests, "---\n"), "-n", leakAbroad)
	kubectl(t, "-n", leakAbroad, "wait", "--for=condition=Available", "deployment", "--all", "--timeout="+patience.String())
	return []stage.Provider{trusted, untrusted}
}

var leakObjects = leakProvider("guarded", "apiKeyRef: {name: guarded}") + leakProvider("gone", "apiKey: sk-x") +
	leakProvider("both", "apiKey: sk-x") + leakProvider("distrusted", "apiKey: sk-x") + leakProvider("unready", "apiKey: sk-x") +
	leakRoute("routed", steady) + leakRoute("both", both) + `---
apiVersion: v1
kind: Secret
metadata: {name: guarded}
stringData: {apiKey: sk-guarded}
`

func leakProvider(name, key string) string {
	return fmt.Sprintf(`---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: %s}
spec:
  host: %s
  configs: {defaultConfig: {openAIConfig: {model: small, %s}}}
`, name, leakHost(name), key)
}

func leakRoute(name, to string) string {
	return fmt.Sprintf(`---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: %s}
spec:
  host: %s
  rules: [{backendRefs: [{providerHost: %s}]}]
`, name, leakHost(name), to)
}
