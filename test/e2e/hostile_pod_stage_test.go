//go:build linux

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/pki"
	"remora.dev/remora/test/stage"
)

// prepare makes the three namespaces and what is in them.
func prepare(t *testing.T) *heist {
	t.Helper()
	archives, err := stage.WriteHostile(t.Context(), root, t.TempDir())
	if err == nil {
		err = cluster.Load(t.Context(), archives...)
	}
	if err != nil {
		t.Fatal(err)
	}
	h := &heist{keys: map[string]string{}, open: loot + "open-" + strings.ToLower(rand.Text())}
	demanded := map[string]string{openHost: h.open, plainHost: h.open}
	for _, host := range []string{bankHost, guardedHost, nginxHost, hostsHost, dnsHost, routedHost} {
		h.keys[host] = loot + strings.ToLower(rand.Text())
		demanded[host] = h.keys[host]
	}
	h.bank = stage.Provider{Namespace: labelled(t, heistBank), Name: "bank", Keys: demanded}
	h.thief = stage.Provider{Namespace: labelled(t, heistThief), Name: "thief", Keys: map[string]string{thiefHost: ""}}
	apply(t, h.bankManifest(t))
	apply(t, h.thiefManifest(t))
	injected(t, heistPod)
	apply(t, h.pod(t), "-n", heistPod)
	for _, in := range []string{heistBank, heistThief} {
		kubectl(t, "-n", in, "wait", "--for=condition=Available", "deployment", "--all", "--timeout="+patience.String())
	}
	for address, of := range map[*string]stage.Provider{&h.bankIP: h.bank, &h.thiefIP: h.thief} {
		if *address, err = of.Address(t.Context(), cluster.KubectlWith); err != nil {
			t.Fatal(err)
		}
	}
	awaitReady(t, heistPod, "pod/app")
	eventually(t, "the sidecar has all providers", func() (string, bool) {
		out := h.run(t, asRoot, "curl --silent http://127.0.0.1:14020/config")
		return h.redacted(out), strings.Contains(out, routedHost) && strings.Contains(out, openHost) && !strings.Contains(out, "SecretNotFound")
	})
	return h
}

// bankManifest is the provider under all its names, and nginx in front of it under one.
func (h *heist) bankManifest(t *testing.T) string {
	t.Helper()
	manifest, err := h.bank.Manifest(authority)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Server("nginx", nil, nginxHost)
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]string{"nginx.conf": bankNginx, "tls.crt": string(pair.Certificate), "tls.key": string(pair.Key)})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"open", "guarded"} {
		manifest += fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: %s}
spec:
  selector: {app: bank}
  ports: [{name: https, port: 443, targetPort: https}, {name: http, port: 80, targetPort: http}]
`, name, heistBank)
	}
	return manifest + fmt.Sprintf(`
---
apiVersion: v1
kind: ConfigMap
metadata: {name: nginx, namespace: %[1]s}
data: %[2]s
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: nginx, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsUser: 1000}
      containers:
      - name: nginx
        image: %[3]s
        imagePullPolicy: IfNotPresent
        command: [/usr/sbin/nginx, -e, /tmp/errors, -c, /etc/bank/nginx.conf]
        readinessProbe: {tcpSocket: {port: 8443}, periodSeconds: 1}
        volumeMounts: [{name: config, mountPath: /etc/bank}]
      volumes: [{name: config, configMap: {name: nginx}}]
---
apiVersion: v1
kind: Service
metadata: {name: nginx, namespace: %[1]s}
spec:
  selector: {app: nginx}
  ports: [{name: https, port: 443, targetPort: 8443}, {name: http, port: 80, targetPort: 8080}]
`, heistBank, config, stage.NginxImage)
}

const bankNginx = `
daemon off;
master_process off;
pid /tmp/pid;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  upstream behind {
    server bank.` + heistBank + `:80;
    keepalive 4;
  }
  server {
    listen 8080;
    listen 8443 ssl;
    ssl_certificate /etc/bank/tls.crt;
    ssl_certificate_key /etc/bank/tls.key;
    location / {
      proxy_pass http://behind;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
    }
  }
}
`

// thiefManifest is the thief's server. It takes the names of the bank too, and has a certificate that is good, but for its own name.
func (h *heist) thiefManifest(t *testing.T) string {
	t.Helper()
	manifest, err := h.thief.Manifest(authority)
	if err != nil {
		t.Fatal(err)
	}
	names := `":8443",`
	for _, host := range []string{hostsHost, dnsHost, routedHost, plainHost, bankHost} {
		names += `"` + host + `=",`
	}
	if !strings.Contains(manifest, `":8443",`) {
		t.Fatalf("a provider is told otherwise whom it is:\n%s", manifest)
	}
	// A second one has the right names in a certificate of the thief's own authority.
	own, err := pki.NewAuthority("the thief's")
	if err != nil {
		t.Fatal(err)
	}
	forger := stage.Provider{Namespace: heistThief, Name: "forger", Keys: map[string]string{
		thiefHost: "", hostsHost: "", dnsHost: "", routedHost: "", bankHost: "",
	}}
	forged, err := forger.Manifest(own)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(manifest, `":8443",`, names, 1) + "---\n" + forged
}

// pod is the providers with their Secrets, and the pod with the thief's containers.
func (h *heist) pod(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	ca := base64.StdEncoding.EncodeToString(authority.Certificate)
	provider := func(host, key, tls, more string) {
		name, _, _ := strings.Cut(host, ".")
		fmt.Fprintf(&text, `
apiVersion: v1
kind: Secret
metadata: {name: %[1]s}
stringData: {apiKey: %[2]s}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: %[1]s}
spec:
  host: %[3]s
  tls: %[4]s
  configs: {defaultConfig: {openAIConfig: {model: small, apiKeyRef: {name: %[1]s}}}}
  %[5]s
---`, name, key, host, tls, more)
	}
	for host, key := range h.keys {
		more := ""
		if host == guardedHost {
			more = "allowedUIDs: [1000]"
		}
		provider(host, key, "{caBundle: "+ca+"}", more)
	}
	for _, host := range []string{openHost, plainHost} {
		provider(host, h.open, "{mode: DISABLE, allowInsecureKey: true}", "")
	}
	hostile := func(name, security string) string {
		return fmt.Sprintf(`
  - name: %s
    image: %s
    imagePullPolicy: IfNotPresent
    command: [sh, -c, %q]
    securityContext: %s
    env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
`, name, stage.HostileImage, idle, security)
	}
	return text.String() + `
apiVersion: v1
kind: Pod
metadata: {name: app, labels: {app: app}, annotations: {` + v1beta1.MemoryAnnotation + `: 32Mi}}
spec:
  terminationGracePeriodSeconds: 1
  containers:` + hostile(asRoot, "{runAsUser: 0}") + hostile(asOther, "{runAsUser: 1000, runAsGroup: 1000}") +
		hostile(asAdmin, "{runAsUser: 0, capabilities: {add: [NET_ADMIN]}}")
}
