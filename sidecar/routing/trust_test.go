package routing_test

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"
	"unique"

	"remora.dev/remora/sidecar/routing"
)

const twoProviders = `
apiVersion: v1
kind: List
items:
- apiVersion: istio.alibabacloud.com/v1beta1
  kind: LLMProvider
  metadata: {name: a}
  spec: {host: a.example}
- apiVersion: istio.alibabacloud.com/v1beta1
  kind: LLMProvider
  metadata: {name: b}
  spec: {host: b.example, tls: {mode: DISABLE}}
`

// trusting compiles a provider with TLS and one without, where the installation trusts authorities.
func trusting(t *testing.T, cas string) (*routing.Table, []routing.Problem) {
	t.Helper()
	in := decodeAll(t, []byte(twoProviders))
	in.KeysIn, in.TrustedCAs = "remora-sidecar-keys", cas
	return routing.Compile(in, &routing.Workload{Namespace: "default"})
}

func endpointOf(t *testing.T, table *routing.Table, host string) routing.Endpoint {
	t.Helper()
	return table.Host([]byte(host)).Rules[0].Levels[0].Backends[0].Target.Endpoint.Value()
}

func TestAuthoritiesOfTheInstallationAreTrustedWhereThereIsNoOwn(t *testing.T) {
	cas := clientSecret(t).Data["tls.crt"].Reveal()
	table, problems := trusting(t, "# from the platform team\n"+cas)
	if len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	if e := endpointOf(t, table, "a.example"); e.CABundle != "" || e.TrustedCAs.Value() != cas {
		t.Errorf("trusted are %q", e.TrustedCAs.Value())
	}
	none := unique.Handle[string]{}
	if e := endpointOf(t, table, "b.example"); e.TrustedCAs != none {
		t.Error("something is trusted without TLS")
	}
	without, _ := trusting(t, "")
	if e := endpointOf(t, without, "a.example"); e.TrustedCAs != none {
		t.Error("something is trusted by itself")
	}
	other, _ := trusting(t, clientSecret(t).Data["tls.crt"].Reveal())
	if table.Generation() == without.Generation() || table.Generation() == other.Generation() {
		t.Error("the generation does not tell who is trusted")
	}
	if same, _ := trusting(t, cas+"\n# a comment\n"); same.Generation() != table.Generation() {
		t.Error("a comment is another generation")
	}
	var shown bytes.Buffer
	_, _ = table.WriteTo(&shown)
	if n := strings.Count(shown.String(), "trusted-ca"); n != 1 || !strings.HasPrefix(shown.String(), "trusted-ca: 1 ") {
		t.Errorf("shown is\n%s", &shown)
	}
	own := decodeAll(t, []byte(twoProviders))
	own.TrustedCAs = cas
	own.Providers[0].Spec.TLS = own.Providers[1].Spec.TLS.DeepCopy()
	own.Providers[0].Spec.TLS.Mode, own.Providers[0].Spec.TLS.CABundle = "", []byte(cas)
	table, _ = routing.Compile(own, &routing.Workload{Namespace: "default"})
	if e := endpointOf(t, table, "a.example"); e.CABundle != cas || e.TrustedCAs != none {
		t.Error("a provider with a caBundle of its own trusts others")
	}
}

func TestWhatIsNoAuthorityIsNamedAndTheOthersAreTrusted(t *testing.T) {
	one, two := clientSecret(t).Data["tls.crt"].Reveal(), clientSecret(t).Data["tls.crt"].Reveal()
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("hidden")}))
	empty := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"}))
	f := func(cas, trusted, says string) {
		t.Helper()
		table, problems := trusting(t, cas)
		if len(problems) != 1 {
			t.Errorf("%q: problems %v", says, problems)
			return
		}
		p := problems[0]
		if p.Object.String() != "Secret default/remora-sidecar-keys" || p.Field != "data[_trusted-ca.crt]" || p.Severity != routing.Warning || p.Code != routing.SecretInvalid {
			t.Errorf("%q: %s %s %s", says, p.Severity, p.Object, p)
		}
		if !strings.HasPrefix(p.Message, says) || !strings.HasSuffix(p.Message, ": correct ca.crt of ConfigMap remora-system/remora-trusted-ca, where it comes from") {
			t.Errorf("it says %q and not %q", p.Message, says)
		}
		got := ""
		if e := endpointOf(t, table, "a.example"); e.TrustedCAs != (unique.Handle[string]{}) {
			got = e.TrustedCAs.Value()
		}
		if got != trusted {
			t.Errorf("%q: trusted are\n%s", says, got)
		}
	}
	damaged := strings.Replace(one, "M", "*", 3)
	f(one+key+two, one+two, "number 2 is a PRIVATE KEY and no certificate; the others are trusted: ")
	f(one+empty, one, "certificate 2 cannot be read: x509: ")
	f(one+damaged+two, one+two, "certificate 2 is damaged; the others are trusted: ")
	f(damaged+one+damaged, one, "certificate 1 is damaged, and so with 1 more; the others are trusted: ")
	f(one[:len(one)/2], "", "certificate 1 is damaged; nothing is trusted beside the system's: ")
	f("MIIB", "", "there is no certificate in it; nothing is trusted beside the system's: ")
}
