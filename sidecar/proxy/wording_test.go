package proxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

// at is a provider without a key on some port of this machine.
func at(host string, port int, tls string) string {
	return fmt.Sprintf("\n---\napiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: p%d}\nspec: {host: %s, port: %d, tls: {%s}}\n", port, host, port, tls)
}

func TestAFailureToConnectSaysWhatToCheck(t *testing.T) {
	for _, c := range []struct {
		name, host string
		port       int
		tls        string
		code       routing.Code
		want       string
	}{
		{"nothing listens there", "foreign.example.com", 9, "mode: DISABLE", routing.ConnectFailure, "check that it is up"},
		{"no DNS server answers", "unheard-of.example.com", 80, "mode: DISABLE", routing.ConnectFailure, "check that the DNS server answers"},
		{"TLS to another name", "loop.example.com", 443, "mode: SIMPLE", routing.ConnectFailure, "check port, tls.mode and tls.sni"},
		{"plain HTTP to a port of TLS", "foreign.example.com", 443, "mode: DISABLE", routing.UpstreamReset, "check its port and tls.mode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, providers+at(c.host, c.port, c.tls)+route("once", "\n  - retries: {attempts: 0}\n    backendRefs: [{providerHost: "+c.host+"}]"))
			got := r.do("POST", "http://once", prompt)
			got.wantError(t, 502, c.code, c.want)
		})
	}
}

func TestAWrongMethodIsToldTheRightOne(t *testing.T) {
	r := newRig(t, providers)
	r.do("GET", "http://"+qwen, "").wantError(t, 405, routing.MethodNotAllowed, "GET / is not", "use POST")
	r.do("POST", "http://"+qwen+"/v1/models", prompt).wantError(t, 405, routing.MethodNotAllowed, "use GET")
}

func TestTheLogTellsOfAnAttemptThatAnotherMadeGood(t *testing.T) {
	r := newRig(t, providers+route("chat", `
  - backendRefs:
    - {providerHost: dashscope.aliyuncs.com}
    - {providerHost: api.moonshot.cn, priority: 1}`))
	r.provider.Script(qwen, llmserver.Fault{Status: 503})
	if got := r.do("POST", "http://chat", prompt); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	line := r.log.find("attempt failed, another follows")
	for _, want := range []string{"UpstreamRefusal", "LLMProvider default/qwen", "the provider answered 503"} {
		if !strings.Contains(line, want) {
			t.Errorf("the log does not say %q: %s", want, line)
		}
	}
}

func TestTheLogCountsTheAttemptsThatWereMade(t *testing.T) {
	r := newRig(t, providers+at("foreign.example.com", 9, "mode: DISABLE"))
	r.do("POST", "http://foreign.example.com", prompt)
	if line := r.log.find("request failed"); !strings.Contains(line, `"attempts"=3`) {
		t.Errorf("two retries: %s", line)
	}
	r.do("GET", "http://"+qwen, "")
	if line := r.log.find("request refused"); line == "" || strings.Contains(line, "attempts") {
		t.Errorf("nothing was sent: %s", line)
	}
}

// selfSigned serves TLS with a certificate of its own, and gives its port and the certificate as a caBundle.
func selfSigned(t *testing.T, name string, until time.Time) (port int, caBundle string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return server.Listener.Addr().(*net.TCPAddr).Port, "caBundle: " + base64.StdEncoding.EncodeToString(bundle)
}

func TestACertificateThatIsNotAcceptedSaysWhy(t *testing.T) {
	const host = "foreign.example.com"
	tomorrow, yesterday := time.Now().Add(24*time.Hour), time.Now().Add(-24*time.Hour)
	otherPort, other := selfSigned(t, "elsewhere.example.com", tomorrow)
	oldPort, old := selfSigned(t, host, yesterday)
	r := newRig(t, providers+at(host, otherPort, other))
	r.do("POST", "http://"+host, prompt).wantError(t, 502, routing.UntrustedCertificate, "is for another name", "tls.sni")
	r.apply(providers + at(host, oldPort, old))
	r.do("POST", "http://"+host, prompt).wantError(t, 502, routing.UntrustedCertificate, "is not valid today")
	strangerPort, _ := selfSigned(t, host, tomorrow)
	r.apply(providers + at(host, strangerPort, "mode: SIMPLE"))
	r.do("POST", "http://"+host, prompt).wantError(t, 502, routing.UntrustedCertificate, "--trusted-ca")
}
