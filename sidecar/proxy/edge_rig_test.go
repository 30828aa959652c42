package proxy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

const publicIP = "127.0.0.9"

// gatewayRig is a gateway with Services behind it: api and other of namespace default. dead has nobody.
type gatewayRig struct {
	t          *testing.T
	store      *snapshot.Store
	proxy      *proxy.Proxy
	log        *lockedBuffer
	metrics    *metrics.Set
	secrets    []routing.Secret
	api, other *backend
}

// backend is a server that remembers what it got.
type backend struct {
	*httptest.Server
	name string

	mu     sync.Mutex
	got    []seen
	handle http.HandlerFunc // nil: it answers with its name and the path
	asked  chan struct{}
}

type seen struct {
	*http.Request
	body string
}

func newBackend(t *testing.T, name, address string) *backend {
	t.Helper()
	b := &backend{name: name, asked: make(chan struct{}, 1024)}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.got = append(b.got, seen{r, string(body)})
		handle := b.handle
		b.mu.Unlock()
		select {
		case b.asked <- struct{}{}:
		default:
		}
		if handle != nil {
			r.Body = io.NopCloser(bytes.NewReader(body))
			handle(w, r)
			return
		}
		w.Header().Set("X-Backend", name)
		fmt.Fprintf(w, "%s %s", name, r.URL.Path)
	}))
	_ = b.Listener.Close()
	b.Listener = l
	b.Start()
	t.Cleanup(b.Close)
	return b
}

func (b *backend) answer(f http.HandlerFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handle = f
}

func (b *backend) last() seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.got) == 0 {
		return seen{&http.Request{Header: http.Header{}}, ""}
	}
	return b.got[len(b.got)-1]
}

func (b *backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.got)
}

const edgeServices = `
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: dead}
spec: {ports: [{port: 80, name: http}, {port: 443, name: tls}]}
`

// gatewayOf is an Istio Gateway with these servers, in YAML.
func gatewayOf(servers string) string {
	return "\n---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers:\n" + servers + "\n"
}

const plainServer = `  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}`

// virtual is a VirtualService of the Gateway edge.
func virtual(host, http string) string {
	return fmt.Sprintf("\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec:\n  hosts: [\"%s\"]\n  gateways: [edge]\n  http:\n%s\n",
		strings.Trim(strings.NewReplacer(".", "-", "*", "any").Replace(host), "-"), host, http)
}

const toAPI = `  - route: [{destination: {host: api}}]`

func newGateway(t *testing.T, config string, set ...func(*proxy.Options)) *gatewayRig {
	t.Helper()
	g := &gatewayRig{
		t: t, store: snapshot.NewStore(), log: &lockedBuffer{}, metrics: metrics.New(),
		api: newBackend(t, "api", "127.0.0.3:80"), other: newBackend(t, "other", "127.0.0.4:80"),
	}
	log := funcr.New(func(_, args string) { g.log.add(args) }, funcr.Options{Verbosity: 1})
	o := proxy.Options{Store: g.store, Log: log, Metrics: g.metrics, Public: netip.MustParseAddr(publicIP)}
	for _, set := range set {
		set(&o)
	}
	var err error
	if g.proxy, err = proxy.New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.proxy.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if fault := g.log.find("fault of the sidecar"); fault != "" {
			t.Error(fault)
		}
		if key := g.log.find("PRIVATE KEY"); key != "" {
			t.Error(key)
		}
	})
	g.apply(config)
	return g
}

// apply publishes a configuration; every object must be valid.
func (g *gatewayRig) apply(config string) {
	g.t.Helper()
	o := routing.Objects{Secrets: g.secrets, Services: []routing.Service{}}
	for doc := range strings.SplitSeq(edgeServices+"\n---\n"+config, "\n---\n") {
		if _, err := o.Decode([]byte(doc), "default"); err != nil {
			g.t.Fatal(err)
		}
	}
	table, problems := routing.Compile(o, &routing.Workload{Namespace: "remora-gateway", Labels: map[string]string{"istio": "ingressgateway"}, Gateway: true})
	for _, p := range problems {
		if p.Severity == routing.Invalid {
			g.t.Fatalf("%s %s", p.Object, p)
		}
	}
	g.store.Publish(&snapshot.Snapshot{Table: table, Problems: problems, Ready: true})
}

// call makes a request by a connection of its own.
func (g *gatewayRig) call(method, url, body string, header ...string) reply {
	g.t.Helper()
	got, err := g.try(&http.Transport{DialContext: g.dialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}, method, url, body, header...)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, url, err)
	}
	return got
}

func (g *gatewayRig) try(by *http.Transport, method, url, body string, header ...string) (reply, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		} else {
			req.Header.Add(header[i], header[i+1])
		}
	}
	resp, err := by.RoundTrip(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b)}, err
}

// dialContext has every name be the gateway's.
func (g *gatewayRig) dialContext(ctx context.Context, network, address string) (net.Conn, error) {
	_, port, _ := net.SplitHostPort(address)
	return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(publicIP, port))
}

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	of := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue makes a certificate for names, which clients can show too.
func (a *authority) issue(t *testing.T, names ...string) (chain, key []byte) {
	t.Helper()
	own, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	of := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, of, a.cert, &own.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := x509.MarshalPKCS8PrivateKey(own)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// secret is one of the gateway's namespace, with a certificate for names.
func (a *authority) secret(t *testing.T, name string, names ...string) routing.Secret {
	t.Helper()
	chain, key := a.issue(t, names...)
	return routing.Secret{Namespace: "remora-gateway", Name: name, Type: "kubernetes.io/tls", Data: map[string]routing.Key{
		"tls.crt": routing.NewKey(string(chain)), "tls.key": routing.NewKey(string(key)), "ca.crt": routing.NewKey(string(a.pem))}}
}

func (a *authority) client(t *testing.T, name string) tls.Certificate {
	t.Helper()
	chain, key := a.issue(t, name)
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// secured is a server of port 443 with a Secret's certificate.
func secured(name, mode, secret, host string) string {
	return fmt.Sprintf(`  - {port: {number: 443, name: %s, protocol: HTTPS}, hosts: ["%s"], tls: {mode: %s, credentialName: %s}}`, name, host, mode, secret)
}
