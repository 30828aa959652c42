package routing_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// everything reads all golden inputs and the whole corpus, by file.
func everything(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, pattern := range []string{"testdata/*.in.yaml", "../../test/cases/*/*.yaml", "../../config/samples/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("nothing matches %s: %v", pattern, err)
		}
		for _, file := range files {
			if all[file], err = os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

func clone(in routing.Objects) routing.Objects {
	out := in
	out.Providers, out.Exported, out.Routes, out.Secrets, out.Unreadable = nil, nil, nil, nil, nil
	for i := range in.Providers {
		out.Providers = append(out.Providers, *in.Providers[i].DeepCopy())
	}
	for _, e := range in.Exported {
		out.Exported = append(out.Exported, routing.Exported{To: e.To, Provider: *e.Provider.DeepCopy()})
	}
	for i := range in.Routes {
		out.Routes = append(out.Routes, *in.Routes[i].DeepCopy())
	}
	out.Secrets = append([]routing.Secret{}, in.Secrets...)
	for _, u := range in.Unreadable {
		u.Hosts, u.Claims, u.Problems = slices.Clone(u.Hosts), slices.Clone(u.Claims), slices.Clone(u.Problems)
		out.Unreadable = append(out.Unreadable, u)
	}
	return out
}

func text(t *testing.T, table *routing.Table, problems []routing.Problem) string {
	t.Helper()
	var out bytes.Buffer
	if _, err := table.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		fmt.Fprintf(&out, "%s %s %s\n", p.Severity, p.Object, p)
	}
	return out.String() + table.Generation()
}

func compiled(t *testing.T, in routing.Objects) string {
	t.Helper()
	table, problems := routing.Compile(in, nil)
	return text(t, table, problems)
}

func TestCompileLeavesItsInputAsItIs(t *testing.T) {
	for name, content := range everything(t) {
		in := decodeAll(t, content)
		before := clone(in)
		for _, w := range []*routing.Workload{nil, {Namespace: "default"}} {
			routing.Compile(in, w)
		}
		if !reflect.DeepEqual(in, before) {
			t.Errorf("%s: the input is not what it was", name)
		}
	}
}

func TestTheSameInputGivesTheSameTable(t *testing.T) {
	for name, content := range everything(t) {
		in := decodeAll(t, content)
		want := compiled(t, in)
		for range 100 {
			if got := compiled(t, in); got != want {
				t.Fatalf("%s:\n%s\nand then:\n%s", name, want, got)
			}
		}
	}
}

func TestTheOrderOfObjectsDecidesNothing(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for name, content := range everything(t) {
		in := decodeAll(t, content)
		if want := compiled(t, in); !strings.Contains(want, string(routing.DuplicateObject)) { // the one tie there is
			for range 20 {
				random.Shuffle(len(in.Providers), func(i, j int) { in.Providers[i], in.Providers[j] = in.Providers[j], in.Providers[i] })
				random.Shuffle(len(in.Exported), func(i, j int) { in.Exported[i], in.Exported[j] = in.Exported[j], in.Exported[i] })
				random.Shuffle(len(in.Routes), func(i, j int) { in.Routes[i], in.Routes[j] = in.Routes[j], in.Routes[i] })
				random.Shuffle(len(in.Secrets), func(i, j int) { in.Secrets[i], in.Secrets[j] = in.Secrets[j], in.Secrets[i] })
				random.Shuffle(len(in.VirtualServices), func(i, j int) {
					in.VirtualServices[i], in.VirtualServices[j] = in.VirtualServices[j], in.VirtualServices[i]
				})
				random.Shuffle(len(in.Gateways), func(i, j int) { in.Gateways[i], in.Gateways[j] = in.Gateways[j], in.Gateways[i] })
				random.Shuffle(len(in.Services), func(i, j int) { in.Services[i], in.Services[j] = in.Services[j], in.Services[i] })
				random.Shuffle(len(in.Unreadable), func(i, j int) { in.Unreadable[i], in.Unreadable[j] = in.Unreadable[j], in.Unreadable[i] })
				if got := compiled(t, in); got != want {
					t.Fatalf("%s:\n%s\nand in another order:\n%s", name, want, got)
				}
			}
		}
	}
}

func TestAGenerationChangesWithAKeyThatNobodySees(t *testing.T) {
	generation := func(key string) string {
		table, _ := routing.Compile(decodeAll(t, []byte(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: p}
spec: {host: llm.example.com, configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: s}}}}}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {apiKey: `+key+`}
`)), &routing.Workload{Namespace: "default"})
		return table.Generation()
	}
	before, same, rotated := generation("sk-fake-1"), generation("sk-fake-1"), generation("sk-fake-2")
	if before == rotated {
		t.Error("a rotated key gives the same generation")
	}
	if before != same {
		t.Error("the same key gives another generation")
	}
}

func TestAKeyThatIsNotKnownIsNotLeftOut(t *testing.T) {
	in := decodeAll(t, []byte(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: p}
spec: {host: llm.example.com, configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: s}}}}}
`))
	in.Secrets = nil // as in admission, which may not read them
	table, problems := routing.Compile(in, nil)
	if len(problems) != 0 {
		t.Errorf("judged without knowing: %v", problems)
	}
	backend := table.Host([]byte("llm.example.com")).Rules[0].Levels[0].Backends[0]
	if backend.Target != nil || backend.Refusal.Code != routing.SecretNotFound {
		t.Errorf("without the key, calls go to %+v", backend.Target)
	}
}

func TestAClientCertificateComesFromItsSecret(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyPEM := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))

	in := decodeAll(t, []byte(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: p}
spec: {host: llm.example.com, tls: {mode: MUTUAL, clientCertificateRef: {name: client}}}
`))
	in.Secrets = []routing.Secret{{Namespace: "default", Name: "client", Type: v1beta1.SecretTypeTLS,
		Data: map[string]routing.Key{"tls.crt": routing.NewKey(certPEM), "tls.key": routing.NewKey(keyPEM)}}}
	table, problems := routing.Compile(in, &routing.Workload{Namespace: "default"})
	if len(problems) != 0 {
		t.Errorf("problems: %v", problems)
	}
	e := table.Host([]byte("llm.example.com")).Rules[0].Levels[0].Backends[0].Target.Endpoint.Value()
	if e.ClientCert != certPEM || e.ClientKey.Reveal() != keyPEM {
		t.Error("the endpoint does not have the certificate and the key of the Secret")
	}
	if shown := text(t, table, problems) + fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(shown, "PRIVATE KEY") {
		t.Errorf("the private key is shown: %s", shown)
	}
}

func TestAKeyShowsItselfToNobody(t *testing.T) {
	key := routing.NewKey("sk-fake")
	held := struct {
		Key     routing.Key
		Pointer *routing.Key
		List    []routing.Key
		Map     map[string]routing.Key
	}{key, &key, []routing.Key{key}, map[string]routing.Key{"apiKey": key}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		if shown := fmt.Sprintf(verb+verb, key, held); strings.Contains(shown, "sk-fake") || strings.Contains(shown, "736b2d") {
			t.Errorf("%s shows %s", verb, shown)
		}
	}
	shown, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(shown, []byte("sk-fake")) {
		t.Errorf("JSON shows %s", shown)
	}
	if key.Reveal() != "sk-fake" {
		t.Error("Reveal does not give the value")
	}
}

// One object may not take the time or memory of everybody: admission judges the objects of strangers.
func TestTheLargestRouteIsJudgedInReasonableTime(t *testing.T) {
	var in routing.Objects
	r := v1beta1.LLMRoute{}
	r.Name, r.Namespace, r.Spec.Host = "r", "default", "llm"
	for i := range v1beta1.MaxRules {
		rule := v1beta1.LLMRule{BackendRefs: []v1beta1.LLMBackendRef{{ProviderHost: "llm.example.com"}}}
		for j := range v1beta1.MaxMatches {
			// The last match of a rule covers all but the last of a later one.
			exact, expression := fmt.Sprintf("x-%d-%d", i, j), fmt.Sprintf("x.*|%d", i)
			m := v1beta1.StringMatch{Exact: &exact}
			if j == v1beta1.MaxMatches-1 {
				m = v1beta1.StringMatch{Regex: &expression}
			}
			headers := map[string]v1beta1.StringMatch{"z": m}
			for k := range v1beta1.MaxHeaderMatches - 1 {
				headers[fmt.Sprintf("h-%d", k)] = v1beta1.StringMatch{}
			}
			rule.Matches = append(rule.Matches, v1beta1.LLMRequestMatch{Headers: headers})
		}
		r.Spec.Rules = append(r.Spec.Rules, rule)
	}
	in.Routes = append(in.Routes, r)
	start := time.Now()
	routing.Compile(in, nil)
	if took := time.Since(start); took > 30*time.Second { // without bounds it is minutes
		t.Errorf("one route takes %s", took)
	}
}
