package routing_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

func pairOf(t *testing.T, name string) (chain, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}))
}

func TestAServerHasTheCertificatesOfTheGatewaysNamespace(t *testing.T) {
	chain, key := pairOf(t, "a.example.com")
	other, otherKey := pairOf(t, "b.example.com")
	secret := func(name string, entries ...string) routing.Secret {
		s := routing.Secret{Namespace: "remora-gateway", Name: name, Data: map[string]routing.Key{}}
		for i := 0; i < len(entries); i += 2 {
			s.Data[entries[i]] = routing.NewKey(entries[i+1])
		}
		return s
	}
	stranger := secret("elsewhere", "tls.crt", chain, "tls.key", key)
	stranger.Namespace = "default" // that of the Gateway object
	secrets := []routing.Secret{
		secret("good", "tls.crt", chain, "tls.key", key), secret("generic", "cert", other, "key", otherKey), secret("mixed", "tls.crt", chain, "tls.key", otherKey),
		secret("empty"), secret("mutual", "tls.crt", chain, "tls.key", key, "ca.crt", other), secret("good-cacert", "ca.crt", other), secret("badca", "tls.crt", chain, "tls.key", key, "ca.crt", "x"), stranger,
	}
	f := func(tls, want string) *routing.EdgeServer {
		t.Helper()
		in := routing.Objects{Secrets: secrets}
		if _, err := in.Decode([]byte(gatewayWith("edge", "{port: {number: 443, name: x, protocol: HTTPS}, hosts: [a.example.com], tls: {"+tls+"}}")), "default"); err != nil {
			t.Fatal(err)
		}
		table, problems := routing.Compile(in, ingress)
		s := table.Listener(443).Server([]byte("a.example.com"))
		got := ""
		if s.Refusal != nil {
			got = string(s.Refusal.Code) + ": " + s.Refusal.Message
		}
		if got == "" != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", tls, got, want)
		}
		if (s.Refusal == nil) == (len(s.Certificate) == 0) {
			t.Errorf("%s: there are %d certificates", tls, len(s.Certificate))
		}
		if shown := text(t, table, problems); strings.Contains(shown, "PRIVATE KEY") || strings.Contains(shown, "BEGIN") {
			t.Errorf("%s: the key is shown: %s", tls, shown)
		}
		return s
	}
	if s := f("mode: SIMPLE, credentialName: good", ""); s.Certificate[0].Chain != chain || s.Certificate[0].Key.Reveal() != key {
		t.Error("it is another certificate")
	}
	f("mode: SIMPLE, credentialName: generic", "")
	if s := f("mode: SIMPLE, credentialNames: [good, generic]", ""); len(s.Certificate) != 2 {
		t.Errorf("there are %d certificates of two", len(s.Certificate))
	}
	if s := f("mode: SIMPLE, credentialNames: [good, gone]", ""); len(s.Certificate) != 1 {
		t.Errorf("there are %d certificates where one of two is missing", len(s.Certificate))
	}
	f("mode: SIMPLE, credentialName: gone", "CertificateNotFound: Secret remora-gateway/gone is not there")
	f("mode: SIMPLE, credentialName: elsewhere", "CertificateNotFound: Secret remora-gateway/elsewhere is not there")
	f("mode: SIMPLE, credentialName: empty", "CertificateNotFound: Secret remora-gateway/empty has no tls.crt")
	f("mode: SIMPLE, credentialName: mixed", "SecretInvalid: Secret remora-gateway/mixed does not hold a certificate and its key")
	if s := f("mode: MUTUAL, credentialName: mutual, subjectAltNames: [client.example.com]", ""); s.ClientCAs != other || s.ClientOptional || len(s.ClientNames) != 1 {
		t.Errorf("clients are let in by %+v", s)
	}
	if s := f("mode: OPTIONAL_MUTUAL, credentialName: good", ""); s.ClientCAs != other || !s.ClientOptional {
		t.Errorf("clients are let in by %+v", s)
	}
	f("mode: MUTUAL, credentialName: generic", "CertificateNotFound: no ca.crt is in Secret remora-gateway/generic or generic-cacert")
	f("mode: MUTUAL, credentialName: generic, caCertCredentialName: gone", "CertificateNotFound: no ca.crt is in Secret remora-gateway/gone")
	f("mode: MUTUAL, credentialName: badca", "SecretInvalid: ca.crt of Secret remora-gateway/badca")
	if s := f("mode: SIMPLE, credentialName: mutual", ""); s.ClientCAs != "" {
		t.Error("SIMPLE asks clients for certificates")
	}
}

// Certificates are swapped by the generation of the table: it has to change with them.
func TestAGenerationChangesWithACertificate(t *testing.T) {
	generation := func() string {
		chain, key := pairOf(t, "a.example.com")
		in := routing.Objects{Secrets: []routing.Secret{{Namespace: "remora-gateway", Name: "good", Data: map[string]routing.Key{"tls.crt": routing.NewKey(chain), "tls.key": routing.NewKey(key)}}}}
		if _, err := in.Decode([]byte(gatewayWith("edge", "{port: {number: 443, name: x, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: SIMPLE, credentialName: good}}")), "default"); err != nil {
			t.Fatal(err)
		}
		table, _ := routing.Compile(in, ingress)
		return table.Generation()
	}
	if a, b := generation(), generation(); a == b {
		t.Error("another certificate gives the same generation")
	}
}

// The gateway's certificates are the gateway's: a team's rule does not have it show them to a server of the team's.
func TestOnlyRulesOfTheGatewaysNamespaceNameWhatItShowsToServers(t *testing.T) {
	chain, key := pairOf(t, "gateway.example.com")
	f := func(namespace, want string) {
		t.Helper()
		in := routing.Objects{Secrets: []routing.Secret{{Namespace: "remora-gateway", Name: "client", Data: map[string]routing.Key{"tls.crt": routing.NewKey(chain), "tls.key": routing.NewKey(key)}}}}
		docs := "apiVersion: v1\nkind: Service\nmetadata: {name: api}\nspec: {ports: [{name: http, port: 80}]}\n---\n" +
			ruleOf("r", "{host: api, trafficPolicy: {tls: {mode: MUTUAL, credentialName: client}}}") + "---\n" +
			gatewayWith("edge", `{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}`) + virtualWith("v", "a.example.com", "{route: [{destination: {host: api}}]}")
		for doc := range strings.SplitSeq(docs, "---\n") {
			if _, err := in.Decode([]byte(doc), namespace); err != nil {
				t.Fatal(err)
			}
		}
		table, _ := routing.Compile(in, ingress)
		b := &table.Listener(80).Server([]byte("a.example.com")).Host([]byte("a.example.com")).Rules[0].Levels[0].Backends[0]
		switch {
		case want == "" && (b.Target == nil || b.Target.Endpoint.Value().ClientCert != chain):
			t.Errorf("a rule of %s: %+v", namespace, b)
		case want != "" && (b.Refusal == nil || b.Refusal.Code != routing.CertificateNotFound || !strings.Contains(b.Refusal.Message, want)):
			t.Errorf("a rule of %s: %+v, want %s", namespace, b.Refusal, want)
		}
	}
	f("remora-gateway", "")
	f("team", "only rules of namespace remora-gateway can")
}
