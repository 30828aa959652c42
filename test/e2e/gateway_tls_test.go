//go:build linux

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/pki"
	"remora.dev/remora/test/stage"
)

const tlsGateway = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: tls}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [tls.example.com], tls: {mode: SIMPLE, credentialName: e2e-tls}}
  - {port: {number: 443, name: mutual, protocol: HTTPS}, hosts: [mutual.example.com], tls: {mode: MUTUAL, credentialName: e2e-mutual}}
  - {port: {number: 443, name: none, protocol: HTTPS}, hosts: [missing.example.com], tls: {mode: SIMPLE, credentialName: e2e-missing}}
  - {port: {number: 443, name: passed, protocol: TLS}, hosts: [passed.example.com], tls: {mode: PASSTHROUGH}}
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [tls.example.com], tls: {httpsRedirect: true}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tls}
spec:
  hosts: [tls.example.com, mutual.example.com, missing.example.com]
  gateways: [tls]
  http: [{route: [{destination: {host: tls, port: {number: 80}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: passed}
spec:
  hosts: [passed.example.com]
  gateways: [tls]
  tls: [{match: [{port: 443, sniHosts: [passed.example.com]}], route: [{destination: {host: tls, port: {number: 443}}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: tls}
spec:
  selector: {app: large-language-model-api}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: https, port: 443, targetPort: 8443}]
`

// gatewayTLS ends TLS with certificates of Secrets beside the gateway, changes one while calls run, asks clients for theirs, and lets TLS pass.
func gatewayTLS(t *testing.T) {
	t.Helper()
	in := labelled(t, "e2e-gateway-tls")
	authority, err := pki.NewAuthority("the gateway's callers trust it")
	if err != nil {
		t.Fatal(err)
	}
	servers(t, in, stage.API{Name: "api", Replicas: 1, Authority: authority, Names: []string{"passed.example.com"}})
	pair := func(serial string, hosts ...string) pki.Pair {
		t.Helper()
		p, err := authority.Server(serial, nil, hosts...)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	credential(t, "e2e-tls", pair("the first", "tls.example.com"), nil)
	credential(t, "e2e-mutual", pair("mutual", "mutual.example.com"), authority.Certificate)
	apply(t, tlsGateway, "-n", in)

	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(authority.Certificate)
	at := func(host string) stage.Caller {
		c := through(t, host, 443)
		c.TLS = &tls.Config{RootCAs: trust}
		return c
	}
	first := at("tls.example.com")
	answers(t, first, "tls.example.com is served", stage.Answer.OK)
	wantCertificate := func(name string) {
		t.Helper()
		eventually(t, "the certificate of "+name, func() (string, bool) {
			for range 2 * len(gatewayPods(t)) {
				if got := certificateOf(t, first); got != name {
					return got, false
				}
			}
			return "", true
		})
	}
	wantCertificate("the first")
	load := first.Begin(t.Context(), 2, 5*time.Millisecond)
	defer load.Stop()
	credential(t, "e2e-tls", pair("the second", "tls.example.com"), nil)
	wantCertificate("the second")
	if end := load.Stop(); len(end.Failed) > 0 {
		t.Errorf("while the certificate was changed: %v", end)
	}

	mutual := at("mutual.example.com")
	if a := mutual.Call(t.Context(), 0); a.Err == nil {
		t.Errorf("without a certificate of its own, a client is answered: %v", a)
	}
	client, err := authority.Client("somebody")
	if err != nil {
		t.Fatal(err)
	}
	own, err := tls.X509KeyPair(client.Certificate, client.Key)
	if err != nil {
		t.Fatal(err)
	}
	mutual.TLS.Certificates = []tls.Certificate{own}
	answers(t, mutual, "mutual.example.com is served to those with a certificate", stage.Answer.OK)

	passed := at("passed.example.com")
	answers(t, passed, "passed.example.com is passed through", stage.Answer.OK)
	if got := certificateOf(t, passed); got != "api" {
		t.Errorf("passed.example.com shows the certificate of %s, which is not the server's own", got)
	}

	plain := through(t, "tls.example.com", 80)
	answers(t, plain, "http is sent to https", func(a stage.Answer) bool {
		return a.Status/100 == 3 && strings.HasPrefix(a.Header.Get("Location"), "https://tls.example.com/")
	})

	missing := at("missing.example.com")
	if a := missing.Call(t.Context(), 0); a.Err == nil {
		t.Errorf("without a Secret: %v", a)
	}
	condition(t, in, "gateway", "tls", "e2e-missing")
	credential(t, "e2e-missing", pair("late", "missing.example.com"), nil)
	answers(t, missing, "missing.example.com is served once its Secret is there", stage.Answer.OK)
}

// credential makes a Secret beside the gateway, as kubectl create secret tls does, or changes it.
func credential(t *testing.T, name string, pair pki.Pair, callers []byte) {
	t.Helper()
	data := map[string]string{"tls.crt": string(pair.Certificate), "tls.key": string(pair.Key)}
	if callers != nil {
		data["ca.crt"] = string(callers)
	}
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\nstringData: %s\n", name, v1beta1.GatewayName, text))
}

// certificateOf is the name in the certificate that a caller is shown.
func certificateOf(t *testing.T, c stage.Caller) string {
	t.Helper()
	conn, err := c.Dial(t.Context())
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	config := c.TLS.Clone()
	config.ServerName = c.Host
	client := tls.Client(conn, config)
	if err := client.HandshakeContext(t.Context()); err != nil {
		return err.Error()
	}
	return client.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// condition waits until a condition of an object says the words.
func condition(t *testing.T, in, kind, name string, words ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the conditions of %s %s say %q", kind, name, words), func() (string, bool) {
		out := kubectl(t, "-n", in, "get", kind, name, "-o", "jsonpath={.status.conditions}")
		for _, w := range words {
			if !strings.Contains(out, w) {
				return out, false
			}
		}
		return out, true
	})
}
