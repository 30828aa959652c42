//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/stage"
)

const teamProvider = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: team}
spec:
  host: ` + example + `
  configs: {defaultConfig: {openAIConfig: {model: small, apiKeyRef: {name: team}}}}
`

const ofProviders = "istio.alibabacloud.com/v1beta1 LLMProvider team"

// turns are patches that would have the team's key sent somewhere else.
var turns = map[string]string{
	"host":                       "host: " + evilHost,
	"port":                       "port: 8443",
	"path":                       "path: /log",
	"authScheme":                 "authScheme: x-api-key",
	"query":                      "query: {to: evil}",
	"tls.sni":                    "tls: {sni: " + evilHost + "}",
	"tls.caBundle":               "", // an authority of his own, below
	"tls.mode":                   "tls: {mode: DISABLE, allowInsecureKey: true}",
	"tls.clientCertificateRef":   "tls: {mode: MUTUAL, clientCertificateRef: {name: attacker-tls}}",
	"host, and its model, too":   "host: " + evilHost + "\n  configs: {defaultConfig: {openAIConfig: {model: other}}}",
	"host, the key by a list":    "host: " + evilHost + "\n  configs: {defaultConfig: {openAIConfig: {apiKeyRef: null, apiKeyRefs: [{name: team}]}}}",
	"host, the key by a rule's":  "host: " + evilHost + "\n  configs: {routeSpecificConfigs: {r: {openAIConfig: {apiKeyRef: {name: team}}}}}",
	"the key of another Secret":  "configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: decoy, key: k}}}}",
	"the keys of all, as a key":  "configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: remora-sidecar-keys, key: team_apiKey}}}}",
	"the token, as a key":        "configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: remora-sidecar-access, key: token}}}}",
	"an exported provider's key": `configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: "", key: provider_exported}}}}`,
}

// providers tries to have a key sent to somewhere else.
func (e *editor) providers(t *testing.T) {
	t.Helper()
	turns["tls.caBundle"] = "tls: {caBundle: " + base64.StdEncoding.EncodeToString(authority.Certificate) + "}"
	own := strings.NewReplacer("name: team}\n", "name: own}\n", example, evilHost).Replace(teamProvider)
	for field, turn := range turns {
		t.Run("turn a provider by "+field, func(t *testing.T) {
			e.attempt(t)
			refused(t, e.patch(t, ofProviders, "spec:\n  "+turn))
		})
	}
	for name, manifest := range map[string]string{
		"a provider of one's own":                own,
		"with a list of keys":                    strings.Replace(own, "apiKeyRef: {name: team}", "apiKeyRefs: [{name: mine}, {name: team}]", 1),
		"with a key for one rule":                strings.Replace(own, "apiKeyRef: {name: team}}}", "apiKeyRef: {name: mine}}}, routeSpecificConfigs: {r: {openAIConfig: {apiKeyRef: {name: team}}}}", 1),
		"with the keys of all":                   strings.Replace(own, "{name: team}", "{name: remora-sidecar-keys, key: team_apiKey}", 1),
		"with the keys of all as a certificate":  strings.Replace(own, "{name: team}", "{name: mine}", 1) + "  tls: {mode: MUTUAL, clientCertificateRef: {name: remora-sidecar-keys}}\n",
		"with what another namespace exports":    strings.Replace(own, "{name: team}", `{name: "", key: provider_exported}`, 1),
		"with a Secret that is still to be made": strings.Replace(own, "{name: team}", "{name: to-come}", 1),
	} {
		t.Run(name, func(t *testing.T) {
			e.attempt(t)
			_, err := e.create(t, manifest)
			refused(t, err)
		})
	}
	if _, err := e.create(t, strings.Replace(own, "{name: team}", "{name: mine}", 1), metav1.DryRunAll); err != nil {
		t.Errorf("a provider with a key that the editor may read: %v", err)
	}
	t.Run("a route that says another host", func(t *testing.T) {
		e.attempt(t)
		_, err := e.create(t, fmt.Sprintf("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: attempt}\nspec: {host: chat, rules: [{backendRefs: [{providerHost: %s, hostRewrite: %s}]}]}", example, evilHost))
		denied(t, err, "hostRewrite")
	})
	t.Run("delete a provider, and make it anew with another host", func(t *testing.T) {
		e.attempt(t)
		if out, err := e.kubectl(t, "delete", "llmprovider", "team"); err != nil {
			t.Fatal(out, err)
		}
		_, err := e.create(t, strings.Replace(teamProvider, example, evilHost, 1))
		refused(t, err)
		apply(t, teamProvider, "-n", e.in)
	})
}

// refused is for the answer to who may not read the key, or to what nobody may name.
func refused(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Error("it is let in")
	case strings.Contains(err.Error(), "KeyNotPermitted"), strings.Contains(err.Error(), "belongs to Remora"), strings.Contains(err.Error(), "apiKeyRef.name"):
	default:
		t.Errorf("the refusal does not say why: %v", err)
	}
}

// unjudged is what becomes of all that while nobody judges it.
func (e *editor) unjudged(t *testing.T) {
	t.Helper()
	for field, turn := range turns {
		t.Run("turn a provider by "+field, func(t *testing.T) {
			e.attempt(t)
			err := e.patch(t, ofProviders, "spec:\n  "+turn)
			if field == "an exported provider's key" {
				refused(t, err) // the schema
				return
			}
			denied(t, err, "failed calling webhook")
		})
	}
	t.Run("delete a provider, and make it anew with another host", func(t *testing.T) {
		e.attempt(t)
		if out, err := e.kubectl(t, "delete", "llmprovider", "team"); err != nil {
			t.Fatal(out, err)
		}
		_, err := e.create(t, strings.Replace(teamProvider, example, evilHost, 1))
		denied(t, err, "failed calling webhook")
	})
}

// misled has a sidecar find the editor's server where the provider, or the API server, should be. What it holds, it sends to neither.
func (e *editor) misled(t *testing.T, attacker stage.Provider) {
	t.Helper()
	address, err := attacker.Address(t.Context(), cluster.KubectlWith)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("lead the provider's name to a server of one's own", func(t *testing.T) {
		e.attempt(t)
		manifest := pod("misled", container("app", idle), "hostAliases: [{ip: "+address+", hostnames: ["+example+", "+moonshot+"]}]")
		if out, err := e.kubectlWith(t, manifest, "apply", "-f", "-"); err != nil {
			t.Fatal(out, err)
		}
		awaitReady(t, e.in, "pod/misled")
		out := e.saw(shell(t, e.in, "pod/misled", "curl --silent http://"+example+" --data '"+question("misled")+"'"))
		has(t, "the answer", out, "UntrustedCertificate")
		has(t, "the answer of an exported one", e.uses(t, "misled", "misled"), "UntrustedCertificate")
	})
	t.Run("lead the API server's name there", func(t *testing.T) {
		e.attempt(t)
		const service = "apiVersion: v1\nkind: Service\nmetadata: {name: kubernetes}\nspec: {selector: {app: attacker}, ports: [{name: https, port: 443, targetPort: 8443}]}\n"
		if _, err := e.create(t, service); err != nil {
			t.Fatal(err)
		}
		if out, err := e.kubectlWith(t, pod("lost", container("app", idle)), "apply", "-f", "-"); err != nil {
			t.Fatal(out, err)
		}
		eventually(t, "its sidecar does not trust what it finds", func() (string, bool) {
			out, _ := e.kubectl(t, "logs", "lost", "-c", v1beta1.SidecarContainer)
			return out, strings.Contains(out, "x509: ")
		})
		kubectl(t, "-n", e.in, "delete", "service/kubernetes", "pod/lost", "pod/misled", "--wait=false")
	})
	t.Run("forward the ports of the sidecar", func(t *testing.T) {
		e.attempt(t)
		ports := e.forward(t, "victim", "14020", "14001")
		config := e.call(t, http.MethodGet, "http://"+ports[0]+"/config", "", "")
		has(t, "/config", config, example, "team")
		has(t, "the answer", e.call(t, http.MethodPost, "http://"+ports[1]+"/", example, question("forwarded")), "403", "DirectConnection")
	})
}

// forward runs kubectl port-forward until the test ends, and tells where each port is.
func (e *editor) forward(t *testing.T, pod string, ports ...string) (at []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	args := []string{"--kubeconfig=" + e.kubeconfig, "port-forward", "--address=127.0.0.1", "pod/" + pod}
	for _, p := range ports {
		args = append(args, ":"+p)
	}
	cmd := exec.CommandContext(ctx, cluster.Binary("kubectl"), args...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	lines := bufio.NewScanner(out)
	for len(at) < len(ports) && lines.Scan() {
		if local, _, found := strings.Cut(strings.TrimPrefix(lines.Text(), "Forwarding from "), " -> "); found {
			at = append(at, local)
		}
	}
	if len(at) < len(ports) {
		t.Fatalf("kubectl port-forward: %v", lines.Err())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return at
}

// call asks a forwarded port. A provider tells back all that it received.
func (e *editor) call(t *testing.T, method, url, host, body string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Host = host
	request.Header.Set(llmserver.FaultHeader, "reflect")
	response, err := (&http.Transport{}).RoundTrip(request)
	if err != nil {
		return e.saw(err.Error())
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return e.saw(fmt.Sprint(response.Status, response.Header) + string(text))
}
