package llmserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"sync"
	"time"
)

const validity = 365 * 24 * time.Hour

// authority is a certificate authority that lives as long as the server.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte

	mu     sync.Mutex
	leaves map[string]*tls.Certificate // by host name
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificateTemplate("llmserver test authority")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{
		certificate: certificate,
		key:         key,
		pem:         pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		leaves:      map[string]*tls.Certificate{},
	}, nil
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// leaf returns the certificate of a host name or IP address, made on first use.
func (a *authority) leaf(host string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if leaf, ok := a.leaves[host]; ok {
		return leaf, nil
	}
	template := certificateTemplate(host)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	leaf, err := a.sign(template)
	if err != nil {
		return nil, err
	}
	a.leaves[host] = leaf
	return leaf, nil
}

func (a *authority) sign(template *x509.Certificate) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// IssueClient makes a client certificate that Options.MutualHosts accept, and its key, both in PEM as in a Secret of
// type kubernetes.io/tls. Request.Client shows the name.
func (s *Server) IssueClient(name string) (certificate, key []byte, err error) {
	template := certificateTemplate(name)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	leaf, err := s.authority.sign(template)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]})
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func (s *Server) tlsConfig() *tls.Config {
	anyone := &tls.Config{NextProtos: []string{"http/1.1"}, GetCertificate: s.certificate}
	known := anyone.Clone()
	known.ClientAuth, known.ClientCAs = tls.RequireAndVerifyClientCert, s.authority.pool()
	mutual := map[string]bool{}
	for _, h := range s.options.MutualHosts {
		mutual[hostname(h)] = true
	}
	anyone.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if mutual[called(hello)] {
			return known, nil
		}
		return nil, nil
	}
	return anyone
}

// called is the host that a client means: its SNI. Who calls an IP address sends none; then it is the address.
func called(hello *tls.ClientHelloInfo) string {
	if hello.ServerName != "" {
		return hostname(hello.ServerName)
	}
	return hostname(hello.Conn.LocalAddr().String())
}

func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	host := called(hello)
	if !s.is(host) {
		return nil, nil // without any certificate crypto/tls sends the alert unrecognized_name
	}
	if s.options.Certificate != nil {
		return s.options.Certificate, nil
	}
	return s.authority.leaf(host)
}

// is tells whether the server is a host.
func (s *Server) is(host string) bool { return s.hosts[host] || s.hosts["*"] }

// hostname is the name in a Host header or a list of hosts, in the form in which names are compared: without port, in
// lower case, without a dot at its end.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func certificateTemplate(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour), // clocks differ
		NotAfter:     now.Add(validity),
	}
}
