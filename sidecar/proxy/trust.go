package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"sync"
	"unique"

	"remora.dev/remora/sidecar/routing"
)

// sessionsKept is how many sessions of TLS are remembered of an endpoint.
const sessionsKept = 32

// clientTLS says how TLS with an endpoint is made. Its sessions are kept, so that the next connection is cheaper.
func clientTLS(e routing.Endpoint, trusted *authorities) *tls.Config {
	config := &tls.Config{
		ServerName: e.ServerName, RootCAs: trusted.with(e.TrustedCAs), NextProtos: []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(sessionsKept), MinVersion: tls.VersionTLS12,
		DynamicRecordSizingDisabled: true, // nobody renders the beginning of a prompt
	}
	if e.CABundle != "" {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM([]byte(e.CABundle))
	}
	if e.ClientCert != "" {
		// Compile has seen that the two belong together.
		if cert, err := tls.X509KeyPair([]byte(e.ClientCert), []byte(e.ClientKey.Reveal())); err == nil {
			config.Certificates = []tls.Certificate{cert}
		}
	}
	return config
}

// refusedCertificate words what a provider finds wrong with the certificate that it was shown, or that it was shown none;
// nil is that it finds nothing. With TLS 1.3 it says so only after the handshake, in place of an answer. For these alerts
// (RFC 8446, section 6.2), crypto/tls has no type but texts, which follow remoteAlert.
func (p *pool) refusedCertificate(err error) *failure {
	if err == nil {
		return nil
	}
	shown := p.endpoint.ClientCert != ""
	switch _, alert, _ := strings.Cut(err.Error(), remoteAlert); alert {
	case "certificate required", "bad certificate":
		if !shown {
			return fail(routing.ConnectFailure, "%s demands a client certificate: set tls.mode MUTUAL and tls.clientCertificateRef of the LLMProvider", p.address).because(err)
		}
	case "expired certificate", "revoked certificate", "unknown certificate", "unknown certificate authority",
		"unsupported certificate", "access denied", "error decrypting message":
	default:
		return nil
	}
	if !shown {
		return nil
	}
	return fail(routing.ConnectFailure, "%s does not accept the client certificate: correct the Secret that tls.clientCertificateRef of the LLMProvider names", p.address).because(err)
}

const remoteAlert = "remote error: tls: "

// authorities verify providers that bring no caBundle of their own.
type authorities struct {
	base *x509.CertPool // nil: the system's

	mu    sync.Mutex
	added unique.Handle[string] // PEM, that all is made of
	all   *x509.CertPool
}

// with gives those at the start and the ones in PEM that have come since; the zero handle adds none. What was given last
// is kept: all endpoints of a configuration have the same, and it may be long.
func (a *authorities) with(added unique.Handle[string]) *x509.CertPool {
	if added == (unique.Handle[string]{}) {
		return a.base
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all != nil && a.added == added {
		return a.all
	}
	all := x509.NewCertPool() // a machine without authorities of its own
	if a.base != nil {
		all = a.base.Clone()
	} else if system, err := x509.SystemCertPool(); err == nil {
		all = system
	}
	all.AppendCertsFromPEM([]byte(added.Value())) // Compile has seen that they can be read
	a.added, a.all = added, all
	return all
}
