package proxy_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/llmserver"
)

// encrypted is a provider of TLS at an address of this machine, alone in the configuration, without retries.
func encrypted(host, address string, ca []byte, more string) string {
	_, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: encrypted}
spec:
  host: %s
  port: %s
  tls: {caBundle: %s%s}
---
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: once}
spec: {host: once, rules: [{retries: {attempts: 0}, backendRefs: [{providerHost: %s}]}]}
`, host, port, base64.StdEncoding.EncodeToString(ca), more, host)
}

// secure starts a server that answers 200, on a connection that it closes then.
func secure(t *testing.T, config *tls.Config, seen func(*tls.ConnectionState)) (server *httptest.Server, ca []byte) {
	t.Helper()
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		if seen != nil {
			seen(q.TLS)
		}
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "ok")
	}))
	server.TLS, server.Config.ErrorLog = config, log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

func TestTheNextConnectionResumesTheSessionOfTheOneBefore(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var resumed []bool
			server, ca := secure(t, &tls.Config{MaxVersion: version}, func(s *tls.ConnectionState) {
				mu.Lock()
				defer mu.Unlock()
				resumed = append(resumed, s.DidResume)
				if s.Version != version {
					t.Errorf("the version is %x", s.Version)
				}
			})
			config := encrypted("127.0.0.1", server.Listener.Addr().String(), ca, "")
			r := newRig(t, config)
			for range 2 {
				if got := r.do("POST", "http://once", `{"model":"m"}`); got.status != 200 {
					t.Fatalf("%d %s", got.status, got.body)
				}
			}
			// Another policy is not another endpoint.
			r.apply(strings.Replace(config, "  port:", "  trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}\n  port:", 1))
			if got := r.do("POST", "http://once", `{"model":"m"}`); got.status != 200 {
				t.Fatalf("%d %s", got.status, got.body)
			}
			mu.Lock()
			defer mu.Unlock()
			if want := []bool{false, true, true}; fmt.Sprint(resumed) != fmt.Sprint(want) {
				t.Errorf("resumed: %v", resumed)
			}
		})
	}
}

func TestTLSThatIsTooOldIsNotSpoken(t *testing.T) {
	server, ca := secure(t, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, nil)
	r := newRig(t, encrypted("127.0.0.1", server.Listener.Addr().String(), ca, ""))
	r.do("POST", "http://once", `{"model":"m"}`).wantError(t, 502, routing.ConnectFailure, "older than TLS 1.2")
}

func TestAProviderKnowsTheSidecarByItsCertificate(t *testing.T) {
	start := func() *llmserver.Server {
		s, err := llmserver.Start(llmserver.Options{Hosts: []string{moonshot}, MutualHosts: []string{moonshot}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	provider, stranger := start(), start()
	r := newRig(t, providers)
	ask := func(tlsFields string, secrets ...routing.Secret) reply {
		t.Helper()
		o := routing.Objects{Secrets: secrets}
		for doc := range strings.SplitSeq(encrypted(moonshot, provider.Addr(), provider.CAPEM(), tlsFields), "\n---\n") {
			if _, err := o.Decode([]byte(doc), "default"); err != nil {
				t.Fatal(err)
			}
		}
		table, problems := routing.Compile(o, &routing.Workload{Namespace: "default"})
		r.store.Publish(&snapshot.Snapshot{Table: table, Problems: problems, Ready: true})
		return r.do("POST", "http://once", `{"model":"m","messages":[{"role":"user","content":"Hi"}]}`)
	}
	const mutual = ", mode: MUTUAL, clientCertificateRef: {name: client}"
	client := func(of *llmserver.Server) routing.Secret {
		cert, key, err := of.IssueClient("remora")
		if err != nil {
			t.Fatal(err)
		}
		return routing.Secret{Namespace: "default", Name: "client", Type: v1beta1.SecretTypeTLS, Data: map[string]routing.Key{
			"tls.crt": routing.NewKey(string(cert)), "tls.key": routing.NewKey(string(key)),
		}}
	}
	if got := ask(mutual, client(provider)); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	} else if q := provider.Requests(); q[0].Client != "remora" {
		t.Errorf("the provider knows the sidecar as %q", q[0].Client)
	}
	ask("").wantError(t, 502, routing.ConnectFailure, "demands a client certificate", "tls.mode MUTUAL and tls.clientCertificateRef")
	ask(mutual, client(stranger)).wantError(t, 502, routing.ConnectFailure, "does not accept the client certificate", "tls.clientCertificateRef")
	if n := provider.Received(); n != 1 {
		t.Errorf("the provider got %d requests", n)
	}
}

// What accepts connections and says nothing takes no longer than the policy says, and keeps nothing.
func TestAProviderThatSaysNothingToTLSIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the kernel accepts
	server, ca := secure(t, nil, nil)
	server.Close()
	r := newRig(t, strings.Replace(encrypted("127.0.0.1", l.Addr().String(), ca, ""), "  port:", "  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 100ms}}}\n  port:", 1))
	r.do("POST", "http://once", `{"model":"m"}`).wantError(t, 502, routing.ConnectFailure, "TLS with it took longer than 100ms", "connectTimeout")
	r.await(openConnections, 0)
}

func TestAProviderThatDemandsACertificateInTheHandshakeIsUnderstoodToo(t *testing.T) {
	server, ca := secure(t, &tls.Config{MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert}, nil)
	r := newRig(t, encrypted("127.0.0.1", server.Listener.Addr().String(), ca, ""))
	r.do("POST", "http://once", `{"model":"m"}`).wantError(t, 502, routing.ConnectFailure, "may demand a client certificate (tls.mode MUTUAL)")
}
