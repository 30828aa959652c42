package proxy

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"remora.dev/remora/sidecar/routing"
)

// terminals are the ends of TLS that a table asks for.
type terminals struct {
	table *routing.Table
	of    map[*routing.EdgeServer]*terminal
}

// terminal is one of them. It is the same for every table that says the same about it, so that a certificate is read once.
type terminal struct {
	id     [sha256.Size]byte
	config *tls.Config // nil: the certificate cannot be used
	roots  *x509.CertPool
	names  []string
}

// terminalsOf makes what a table needs, out of what there is.
func (p *Proxy) terminalsOf(t *routing.Table, before *terminals) *terminals {
	had := map[[sha256.Size]byte]*terminal{}
	if before != nil {
		for _, one := range before.of {
			had[one.id] = one
		}
	}
	all := &terminals{table: t, of: map[*routing.EdgeServer]*terminal{}}
	for _, l := range t.Listeners() {
		for _, s := range l.Servers {
			if !l.TLS || s.Passthrough || s.Refusal != nil {
				continue
			}
			id := identify(s)
			one := had[id]
			if one == nil {
				one = p.newTerminal(s)
				one.id, had[id] = id, one
			}
			all.of[s] = one
		}
	}
	return all
}

// identify gives a digest of all that a terminal is made of.
func identify(s *routing.EdgeServer) (id [sha256.Size]byte) {
	h := sha256.New()
	part := func(text string) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(text)))
		h.Write(size[:])
		h.Write([]byte(text))
	}
	for _, c := range s.Certificate {
		part(c.Chain)
		part(c.Key.Reveal())
	}
	part(fmt.Sprint(len(s.Certificate), s.ClientOptional, s.MinVersion, s.MaxVersion, s.CipherSuites))
	part(s.ClientCAs)
	for _, name := range s.ClientNames {
		part(name)
	}
	h.Sum(id[:0])
	return id
}

func (p *Proxy) newTerminal(s *routing.EdgeServer) *terminal {
	t := &terminal{names: s.ClientNames}
	c := &tls.Config{MinVersion: max(s.MinVersion, tls.VersionTLS12), MaxVersion: s.MaxVersion, CipherSuites: s.CipherSuites, NextProtos: onlyHTTP1} //nolint:gosec // 1.2 is the least
	if s.MinVersion != 0 {
		c.MinVersion = s.MinVersion
	}
	for _, one := range s.Certificate {
		pair, err := tls.X509KeyPair([]byte(one.Chain), []byte(one.Key.Reveal()))
		if err != nil {
			// The error shows nothing of the key.
			p.log.Info("a certificate cannot be used", "code", routing.SecretInvalid, "gateway", s.Gateway.String(), "server", s.Name, "cause", err.Error())
			continue
		}
		c.Certificates = append(c.Certificates, pair)
	}
	if s.ClientCAs != "" {
		t.roots = x509.NewCertPool()
		if !t.roots.AppendCertsFromPEM([]byte(s.ClientCAs)) {
			p.log.Info("the authorities of client certificates cannot be used", "code", routing.SecretInvalid, "gateway", s.Gateway.String(), "server", s.Name)
			return t
		}
		c.ClientCAs, c.ClientAuth = t.roots, tls.RequireAndVerifyClientCert
		if s.ClientOptional {
			c.ClientAuth = tls.VerifyClientCertIfGiven
		}
		optional := s.ClientOptional // and not s, which would keep all of its table
		c.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 && optional {
				return nil
			}
			return t.named(state.PeerCertificates)
		}
		// What one server has accepted must not open another, whose tickets are made by the same keys.
		c.SessionTicketsDisabled = true
	}
	if len(c.Certificates) > 0 {
		t.config = c
	}
	return t
}

var (
	errNoCertificate = errors.New("the client has shown no certificate")
	errOtherName     = errors.New("the client's certificate has none of the names that the Gateway asks for")
)

// named tells whether a certificate has one of the names that are asked for.
func (t *terminal) named(shown []*x509.Certificate) error {
	if len(t.names) == 0 {
		return nil
	}
	if len(shown) == 0 {
		return errNoCertificate
	}
	leaf := shown[0]
	all := append(slices.Clone(leaf.DNSNames), leaf.EmailAddresses...)
	for _, u := range leaf.URIs {
		all = append(all, u.String())
	}
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	if slices.ContainsFunc(all, func(name string) bool { return slices.Contains(t.names, name) }) {
		return nil
	}
	return errOtherName
}

// lets tells whether the server lets in a client that has shown these certificates, on a connection that was begun when it, or the
// table, was another.
func (t *terminal) lets(s *routing.EdgeServer, shown []*x509.Certificate) error {
	if s.ClientCAs == "" {
		return nil
	}
	if len(shown) == 0 {
		if s.ClientOptional {
			return nil
		}
		return errNoCertificate
	}
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	options := x509.VerifyOptions{Roots: t.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := shown[0].Verify(options); err != nil {
		return err
	}
	return t.named(shown)
}
