package routing

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"remora.dev/remora/apis/istio"
)

// tlsVersions are Istio's words for versions of TLS.
var tlsVersions = map[string]uint16{
	"": 0, "TLS_AUTO": 0, "TLSV1_0": tls.VersionTLS10, "TLSV1_1": tls.VersionTLS11, "TLSV1_2": tls.VersionTLS12, "TLSV1_3": tls.VersionTLS13,
}

// cipherSuites are Istio's names, which are OpenSSL's, of what crypto/tls has and calls secure. Those of TLS 1.3 cannot be chosen.
var cipherSuites = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
}

// judgeTLS looks at how a server ends TLS. What would let fewer clients in and is not honoured refuses them all.
func (s *gatewayServer) judgeTLS(protocol string) {
	f, t, at := &s.of.findings, s.settings, s.field+".tls"
	refuse := func(code Code, field, why string) {
		f.invalid(code, at+field, "%s", why)
		s.refusal = &Refusal{InvalidConfiguration, fmt.Sprintf("%s is refused: %s%s: %s", s.of.object, at, field, why)}
	}
	names := credentialNames(t)
	switch t.Mode {
	case "PASSTHROUGH":
		if len(names) > 0 {
			f.warn(FieldNotHonoured, at+".credentialName", "has no effect with mode PASSTHROUGH, where the backend has the certificate: remove it, or write mode SIMPLE")
		}
		return
	case "":
		s.passthrough = true
		if len(names) > 0 {
			f.warn(InvalidValue, at+".mode", "is absent, which Istio takes for PASSTHROUGH, so that credentialName has no effect: write mode SIMPLE")
		}
		return
	case "SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL":
	default:
		refuse(NotSupported, ".mode", "is none that Remora's gateway has, so the server serves nobody: use SIMPLE, MUTUAL, OPTIONAL_MUTUAL or PASSTHROUGH")
		return
	}
	if t.HTTPSRedirect {
		f.warn(FieldNotHonoured, at+".httpsRedirect", "has no effect on a server that has TLS itself: set it on the one with protocol HTTP")
	}
	switch {
	case protocol == "TLS":
		refuse(NotSupported, ".mode", fmt.Sprintf("is %s with protocol TLS, which ends TLS and passes on what is not HTTP: the gateway serves HTTP only; write protocol HTTPS, or mode PASSTHROUGH", t.Mode))
	case len(names) == 0:
		refuse(NotSupported, ".credentialName", "is required: name a Secret of the gateway's namespace; certificates in files are not read")
	case len(t.VerifyCertificateSPKI) > 0:
		refuse(NotSupported, ".verifyCertificateSpki", "is not honoured, so the server lets nobody in: use subjectAltNames, or remove it")
	case len(t.VerifyCertificateHash) > 0:
		refuse(NotSupported, ".verifyCertificateHash", "is not honoured, so the server lets nobody in: use subjectAltNames, or remove it")
	case t.CACRL != "":
		refuse(NotSupported, ".caCrl", "is not honoured, so the server lets nobody in: use certificates that expire soon, or remove it")
	}
	for _, v := range []struct{ name, version string }{{".minProtocolVersion", t.MinProtocolVersion}, {".maxProtocolVersion", t.MaxProtocolVersion}} {
		if _, ok := tlsVersions[v.version]; !ok {
			refuse(InvalidValue, v.name, "is not a version: use TLS_AUTO, TLSV1_0, TLSV1_1, TLSV1_2 or TLSV1_3")
		}
	}
	if lowest, highest := tlsVersions[t.MinProtocolVersion], tlsVersions[t.MaxProtocolVersion]; highest != 0 && lowest > highest {
		refuse(InvalidValue, ".maxProtocolVersion", "is lower than minProtocolVersion: raise it")
	}
	for i, name := range t.CipherSuites {
		if cipherSuites[strings.ToUpper(name)] == 0 {
			f.warn(FieldNotHonoured, fmt.Sprintf("%s.cipherSuites[%d]", at, i), "is not one that the gateway has, or no secure one: it is left out")
		}
	}
	if len(t.CipherSuites) > 0 && len(suitesOf(t)) == 0 {
		refuse(InvalidValue, ".cipherSuites", "has none that the gateway has: name one such as ECDHE-RSA-AES128-GCM-SHA256, or remove it")
	}
	if t.Mode == "SIMPLE" && len(t.SubjectAltNames) > 0 {
		f.warn(FieldNotHonoured, at+".subjectAltNames", "has no effect with mode SIMPLE, where clients have no certificate: write mode MUTUAL, or remove it")
	}
}

func credentialNames(t *istio.ServerTLSSettings) []string {
	if t.CredentialName != "" {
		return []string{t.CredentialName}
	}
	return t.CredentialNames
}

func suitesOf(t *istio.ServerTLSSettings) (out []uint16) {
	for _, name := range t.CipherSuites {
		if suite := cipherSuites[strings.ToUpper(name)]; suite != 0 && !slices.Contains(out, suite) {
			out = append(out, suite)
		}
	}
	return out
}

// endTLS fills in how a server ends TLS, with the certificates that the gateway's namespace has.
func (c *compiler) endTLS(s *gatewayServer, e *EdgeServer) {
	t := s.settings
	e.MinVersion, e.MaxVersion, e.CipherSuites = tlsVersions[t.MinProtocolVersion], tlsVersions[t.MaxProtocolVersion], suitesOf(t)
	var missing *Refusal
	for _, name := range credentialNames(t) {
		certificate, refusal := c.certificate(name)
		if refusal != nil {
			s.of.add(Unresolved, refusal.Code, s.field+".tls.credentialName", "%s", refusal.Message)
			missing = refusal
			continue
		}
		e.Certificate = append(e.Certificate, certificate)
	}
	if len(e.Certificate) == 0 {
		e.Refusal = missing
		return
	}
	if t.Mode == "SIMPLE" {
		return
	}
	e.ClientOptional, e.ClientNames = t.Mode == "OPTIONAL_MUTUAL", t.SubjectAltNames
	var refusal *Refusal
	if e.ClientCAs, refusal = c.clientCAs(t); refusal != nil {
		s.of.add(Unresolved, refusal.Code, s.field+".tls", "%s", refusal.Message)
		e.Refusal, e.Certificate = refusal, nil
	}
}

// certificate finds the one in a Secret of the gateway's namespace: in tls.crt and tls.key, or, as Istio has it too, in cert and key.
func (c *compiler) certificate(name string) (Certificate, *Refusal) {
	if c.presume {
		return Certificate{Chain: name}, nil
	}
	where := fmt.Sprintf("Secret %s/%s", c.workload.Namespace, name)
	s := c.secrets[secretID{c.workload.Namespace, name}]
	if s == nil {
		return Certificate{}, &Refusal{CertificateNotFound, where + " is not there, from which the server has its certificate: create it with kubectl create secret tls"}
	}
	for _, entries := range [][2]string{{"tls.crt", "tls.key"}, {"cert", "key"}} {
		chain, key := s.Data[entries[0]], s.Data[entries[1]]
		if chain == (Key{}) && key == (Key{}) {
			continue
		}
		if _, err := tls.X509KeyPair([]byte(chain.Reveal()), []byte(key.Reveal())); err != nil {
			return Certificate{}, &Refusal{SecretInvalid, fmt.Sprintf("%s does not hold a certificate and its key in %s and %s: correct it", where, entries[0], entries[1])}
		}
		return Certificate{chain.Reveal(), key}, nil
	}
	return Certificate{}, &Refusal{CertificateNotFound, where + " has no tls.crt and tls.key: add a certificate and its key"}
}

// clientCAs finds the authorities that clients' certificates are verified with: those of caCertCredentialName, else those beside the
// server's own certificate, else those of the Secret of that name with -cacert after it.
func (c *compiler) clientCAs(t *istio.ServerTLSSettings) (string, *Refusal) {
	first := credentialNames(t)[0]
	names := []string{first, first + "-cacert"}
	if t.CACertCredentialName != "" {
		names = []string{t.CACertCredentialName}
	}
	if c.presume {
		return names[0], nil
	}
	for _, name := range names {
		s := c.secrets[secretID{c.workload.Namespace, name}]
		if s == nil {
			continue
		}
		for _, entry := range []string{"ca.crt", "cacert"} {
			bundle := s.Data[entry].Reveal()
			if bundle == "" {
				continue
			}
			if !x509.NewCertPool().AppendCertsFromPEM([]byte(bundle)) {
				return "", &Refusal{SecretInvalid, fmt.Sprintf("%s of Secret %s/%s does not hold certificates: correct it", entry, c.workload.Namespace, name)}
			}
			return bundle, nil
		}
	}
	return "", &Refusal{CertificateNotFound, fmt.Sprintf("no ca.crt is in Secret %s/%s, by which clients' certificates are verified: add it", c.workload.Namespace, strings.Join(names, " or "))}
}
