package routing_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

func TestAPlanOfNoEditIsEmpty(t *testing.T) {
	n := 0
	for _, root := range []string{"../../test/cases", "../../config/samples", "testdata"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".yaml" {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			var before, after routing.Objects
			for _, doc := range bytes.Split(text, []byte("\n---\n")) {
				_, _ = before.Decode(doc, "default") // what is no object is in neither
				_, _ = after.Decode(doc, "default")
			}
			n++
			if said := routing.Plan(before, after); len(said) > 0 {
				t.Errorf("%s:\n%s", path, strings.Join(said, "\n"))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n < 50 {
		t.Errorf("only %d files", n)
	}
}

// dice throws configurations of few names, so that objects have to do with each other.
type dice struct{ *rand.Rand }

func pick[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

var planHosts = []string{"a.example.com", "b.example.com", "c.example.com", "demo", "demo.default.svc", "chat", "reordered"}

func (d dice) provider(name string) v1beta1.LLMProvider {
	var p v1beta1.LLMProvider
	p.Name, p.Namespace = name, "default"
	p.CreationTimestamp = metav1.NewTime(time.Unix(int64(d.IntN(3)), 0))
	d.changeProvider(&p)
	for range d.IntN(4) {
		d.changeProvider(&p)
	}
	return p
}

func (d dice) config(c *v1beta1.OpenAIConfig) {
	switch d.IntN(4) {
	case 0:
		c.Model = pick(d, "", "small", "large")
	case 1:
		c.Stream = pick(d, nil, new(true), new(false))
	case 2:
		c.APIKeyRef, c.APIKey = nil, pick(d, "", "sk-hidden-1", "sk-hidden-2")
	default:
		c.APIKey, c.APIKeyRef = "", pick(d, nil, &v1beta1.SecretKeyReference{Name: "one"}, &v1beta1.SecretKeyReference{Name: "two"})
	}
	c.APIKeyRefs = nil
	if c.APIKey == "" && c.APIKeyRef == nil && d.IntN(2) == 0 {
		c.APIKeyRefs = d.keys()
	}
}

func (d dice) keys() (all []v1beta1.WeightedKeyReference) {
	weighted := d.IntN(3) > 0
	for _, i := range d.Perm(3)[:1+d.IntN(3)] {
		k := v1beta1.WeightedKeyReference{SecretKeyReference: v1beta1.SecretKeyReference{Name: []string{"one", "two", "three"}[i]}}
		if weighted {
			k.Weight = new(int32(pick(d, 0, 1, 1, 2, 3)))
		}
		all = append(all, k)
	}
	return all
}

func (d dice) changeProvider(p *v1beta1.LLMProvider) {
	if p.Spec.Host == "" || d.IntN(8) == 0 {
		p.Spec.Host = pick(d, planHosts...)
	}
	switch d.IntN(13) {
	case 11:
		p.Spec.AllowedUIDs = pick(d, nil, []int64{1000}, []int64{1000, 0}, []int64{0, 1000, 1000})
	case 12:
		p.Spec.RevocationGracePeriod = pick(d, nil, &metav1.Duration{}, &metav1.Duration{Duration: time.Minute})
	case 7:
		p.Spec.AuthScheme = pick(d, "", v1beta1.AuthBearer, v1beta1.AuthAPIKey)
	case 8:
		p.Spec.Query = pick(d, nil, map[string]v1beta1.QueryValue{"api-version": "1"}, map[string]v1beta1.QueryValue{"api-version": "2"},
			map[string]v1beta1.QueryValue{"token": "sk-hidden-3"}, map[string]v1beta1.QueryValue{"token": "sk-hidden-4"})
	case 9:
		p.Spec.TrafficPolicy = d.policy()
	case 0:
		p.Spec.Path = pick(d, "", "/v2/chat/completions", "/chat")
	case 1:
		p.Spec.Port = pick(d, nil, new(int32(443)), new(int32(8443)))
	case 2:
		p.Spec.TLS = pick(d, nil, &v1beta1.ProviderTLS{}, &v1beta1.ProviderTLS{SNI: "x.example.com"}, &v1beta1.ProviderTLS{Mode: v1beta1.TLSDisable, AllowInsecureKey: true},
			&v1beta1.ProviderTLS{Mode: v1beta1.TLSMutual, ClientCertificateRef: &v1beta1.LocalObjectReference{Name: "client"}})
	case 3:
		p.Spec.WorkloadSelector = pick(d, nil, nil, &v1beta1.WorkloadSelector{Labels: map[string]string{"app": pick(d, "blue", "green")}})
	case 4:
		specific := v1beta1.ProviderConfig{}
		d.config(&specific.OpenAIConfig)
		p.Spec.Configs.RouteSpecificConfigs = pick(d, nil, map[string]v1beta1.ProviderConfig{pick(d, "vip", "beta"): specific})
	default:
		d.config(&p.Spec.Configs.DefaultConfig.OpenAIConfig)
	}
}

func (d dice) policy() *v1beta1.TrafficPolicy {
	var pool v1beta1.ConnectionPool
	switch d.IntN(4) {
	case 0:
		pool.TCP = &v1beta1.TCPSettings{MaxConnections: new(int32(pick(d, 8, 1024)))}
	case 1:
		pool.TCP = &v1beta1.TCPSettings{ConnectTimeout: &metav1.Duration{Duration: time.Second}, MaxConnectionDuration: &metav1.Duration{}}
	case 2:
		pool.HTTP = &v1beta1.HTTPSettings{HTTP1MaxPendingRequests: new(int32(pick(d, 0, 1024)))}
	}
	ejection := &v1beta1.OutlierDetection{Consecutive5xxErrors: new(int32(pick(d, 1, 5)))}
	return pick(d, nil, &v1beta1.TrafficPolicy{ConnectionPool: &pool}, &v1beta1.TrafficPolicy{ConnectionPool: &pool, OutlierDetection: ejection})
}

func (d dice) route(name string) v1beta1.LLMRoute {
	var r v1beta1.LLMRoute
	r.Name, r.Namespace = name, "default"
	r.CreationTimestamp = metav1.NewTime(time.Unix(int64(d.IntN(3)), 0))
	for range 1 + d.IntN(4) {
		d.changeRoute(&r)
	}
	return r
}

func (d dice) rule() v1beta1.LLMRule {
	r := v1beta1.LLMRule{Name: pick(d, "", "vip", "beta")}
	weighted := d.IntN(2) == 0
	for range 1 + d.IntN(3) {
		b := v1beta1.LLMBackendRef{ProviderHost: pick(d, planHosts...), Priority: int32(pick(d, 0, 0, 0, 1))}
		if weighted {
			b.Weight = new(int32(pick(d, 1, 1, 2, 50)))
		}
		if d.IntN(8) == 0 {
			b.HostRewrite = "rewritten.example.com"
		}
		r.BackendRefs = append(r.BackendRefs, b)
	}
	if d.IntN(3) > 0 {
		for range 1 + d.IntN(2) {
			r.Matches = append(r.Matches, d.match())
		}
	}
	if d.IntN(6) == 0 {
		r.Timeouts = &v1beta1.Timeouts{Idle: &metav1.Duration{Duration: time.Minute}}
	}
	if d.IntN(6) == 0 {
		r.Limits = &v1beta1.Limits{RequestBody: pick(d, nil, resource.NewQuantity(1<<20, resource.BinarySI), resource.NewQuantity(64<<20, resource.BinarySI))}
	}
	if d.IntN(6) == 0 {
		r.Retries = &v1beta1.Retries{Attempts: new(int32(d.IntN(3)))}
	}
	return r
}

func (d dice) match() v1beta1.LLMRequestMatch {
	var m v1beta1.LLMRequestMatch
	compare := func() v1beta1.StringMatch {
		return pick(d, v1beta1.StringMatch{}, v1beta1.StringMatch{Exact: new("ab")}, v1beta1.StringMatch{Exact: new("c")},
			v1beta1.StringMatch{Prefix: new("a")}, v1beta1.StringMatch{Regex: new("[ab]+")})
	}
	switch d.IntN(4) {
	case 0:
		m.SourceLabels = map[string]string{"app": pick(d, "blue", "green")}
	case 1:
		c := compare()
		m.Model = &c
	default:
		m.Headers = map[string]v1beta1.StringMatch{pick(d, "x-one", "x-two"): compare()}
	}
	return m
}

func (d dice) changeRoute(r *v1beta1.LLMRoute) {
	if r.Spec.Host == "" || d.IntN(8) == 0 {
		r.Spec.Host = pick(d, planHosts...)
	}
	rules := slices.Clone(r.Spec.Rules)
	switch n := len(rules); {
	case n == 0 || n < 4 && d.IntN(3) == 0:
		rules = slices.Insert(rules, d.IntN(n+1), d.rule())
	case d.IntN(4) == 0:
		rules = slices.Delete(rules, 0, 1)
	case d.IntN(2) == 0:
		d.Shuffle(n, func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
	default:
		rules[d.IntN(n)] = d.rule()
	}
	r.Spec.Rules = rules
}

// edit gives a configuration, and the same one with one object edited, created or deleted.
func (d dice) edit() (before, after routing.Objects) {
	for i := range d.IntN(4) {
		before.Providers = append(before.Providers, d.provider(fmt.Sprint("p", i)))
	}
	for i := range d.IntN(4) {
		before.Routes = append(before.Routes, d.route(fmt.Sprint("r", i)))
	}
	for i := range d.IntN(3) {
		p := d.provider(fmt.Sprint("p", i))
		p.Namespace, p.Spec.ExportTo = v1beta1.InstallationNamespace, []v1beta1.ExportTarget{"default"}
		before.Exported = append(before.Exported, routing.Exported{To: "default", Provider: p})
	}
	after.Providers, after.Exported, after.Routes = slices.Clone(before.Providers), before.Exported, slices.Clone(before.Routes)
	switch n, m := len(after.Providers), len(after.Routes); d.IntN(7) {
	case 0:
		after.Providers = append(after.Providers, d.provider("new"))
	case 1:
		after.Routes = append(after.Routes, d.route("new"))
	case 2:
		if n > 0 {
			after.Providers = slices.Delete(after.Providers, 0, 1)
		}
	case 3:
		if m > 0 {
			after.Routes = slices.Delete(after.Routes, 0, 1)
		}
	case 4:
		if n > 0 {
			p := after.Providers[0].DeepCopy()
			d.changeProvider(p)
			after.Providers[0] = *p
		}
	case 5: // only the order of rules changes, which decides about calls that match two of them
		r := d.route("reordered")
		r.Spec.Host, r.Spec.Rules = "reordered", []v1beta1.LLMRule{d.rule(), d.rule(), d.rule()}
		before.Routes = append(before.Routes, r)
		i, j := d.IntN(3), d.IntN(3)
		r.Spec.Rules = slices.Clone(r.Spec.Rules)
		r.Spec.Rules[i], r.Spec.Rules[j] = r.Spec.Rules[j], r.Spec.Rules[i]
		after.Routes = append(after.Routes, r)
	default:
		if m > 0 {
			r := after.Routes[0].DeepCopy()
			d.changeRoute(r)
			after.Routes[0] = *r
		}
	}
	return before, after
}

func written(t *testing.T, all ...routing.Objects) string {
	t.Helper()
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func checkSentences(t *testing.T, said []string) {
	t.Helper()
	if len(said) > 12 {
		t.Errorf("%d sentences", len(said))
	}
	for _, s := range said {
		if s == "" || len(s) > 200 || !utf8.ValidString(s) || strings.HasSuffix(s, ".") || strings.Contains(s, "%!") || strings.ContainsFunc(s, unicode.IsControl) {
			t.Errorf("not a sentence: %q", s)
		}
		if strings.Contains(s, "sk-") {
			t.Errorf("it shows a key: %q", s)
		}
	}
}

// pods are all that the dice know to tell apart.
var planPods = []*routing.Workload{
	{Namespace: "default"},
	{Namespace: "default", Labels: map[string]string{"app": "blue"}},
	{Namespace: "default", Labels: map[string]string{"app": "green"}},
}

type planCall struct {
	bare
	one, two string // "-": the header is not there
}

func (c planCall) Header(name string) ([]byte, bool) {
	v := map[string]string{"X-One": c.one, "X-Two": c.two}[name]
	return []byte(v), v != "" && v != "-"
}

// fates says what becomes of calls of many kinds to every host from every pod.
func fates(in routing.Objects, client routing.Secret) map[string]string {
	all := map[string]string{}
	exported := client
	exported.Namespace = v1beta1.InstallationNamespace
	in.Secrets = []routing.Secret{client, exported}
	for _, namespace := range []string{"default", v1beta1.InstallationNamespace} {
		for _, name := range []string{"one", "two", "three"} {
			key := routing.NewKey("sk-hidden-" + name + namespace)
			in.Secrets = append(in.Secrets, routing.Secret{Namespace: namespace, Name: name, Data: map[string]routing.Key{"apiKey": key}})
		}
	}
	for i, pod := range planPods {
		table, _ := routing.Compile(in, pod)
		known := map[*routing.Rule]string{nil: "no rule"}
		for _, name := range planHosts {
			h := table.Host([]byte(name))
			switch {
			case h == nil:
				all[fmt.Sprint(i, " ", name)] = "foreign"
				continue
			case h.Refusal != nil:
				all[fmt.Sprint(i, " ", name)] = string(h.Refusal.Code)
				continue
			}
			for _, one := range []string{"-", "ab", "abc", "c", "b"} {
				for _, two := range []string{"-", "ab", "abc", "c", "b"} {
					for _, model := range []string{"", "ab", "abc", "c", "b"} {
						r := h.Match(planCall{one: one, two: two}, []byte(model))
						if known[r] == "" {
							known[r] = fate(r)
						}
						all[fmt.Sprint(i, " ", name, " ", one, " ", two, " ", model)] = known[r]
					}
				}
			}
		}
	}
	return all
}

// fate is where the calls of a rule go first, what is filled in, and what follows.
func fate(r *routing.Rule) string {
	describe := func(shares map[string]float64) string {
		var parts []string
		for to, share := range shares {
			parts = append(parts, fmt.Sprintf("%s %.6f", to, share))
		}
		slices.Sort(parts)
		return fmt.Sprint(parts)
	}
	first, out := map[string]float64{}, ""
	for i, l := range r.Levels {
		targets, total := map[string]float64{}, 0.0
		for _, b := range l.Backends {
			if b.Target != nil {
				total += float64(b.Weight)
			}
		}
		for _, b := range l.Backends {
			if b.Target != nil {
				targets[target(b.Target)] += float64(b.Weight) / total
			}
		}
		if i > 0 && len(targets) > 0 {
			out += describe(targets)
		}
	}
	// Each call draws a backend in each priority, until it draws one that there is.
	var draw func(level int, share float64, why string)
	draw = func(level int, share float64, why string) {
		if level == len(r.Levels) {
			first[why] += share
			return
		}
		total := 0.0
		for _, b := range r.Levels[level].Backends {
			total += float64(b.Weight)
		}
		for _, b := range r.Levels[level].Backends {
			switch part := share * float64(b.Weight) / total; {
			case b.Target != nil:
				first[target(b.Target)] += part
			case why == "":
				draw(level+1, part, string(b.Refusal.Code))
			default:
				draw(level+1, part, why)
			}
		}
	}
	draw(0, 1, "")
	return fmt.Sprint(describe(first), out, r.Timeouts, r.Retries, r.MaxBody)
}

func target(t *routing.Target) string {
	e := t.Endpoint.Value()
	auth := t.Auth
	if !t.Keyed() {
		auth = 0
	}
	total := 0.0
	for _, k := range t.Keys {
		total += float64(k.Weight)
	}
	var keys []string
	for _, k := range t.Keys {
		if k.Weight > 0 {
			keys = append(keys, fmt.Sprintf("%s %.6f", k.Key.Reveal(), float64(k.Weight)/total))
		}
	}
	slices.Sort(keys)
	return fmt.Sprint(e.Host, e.Port, e.TLS, e.ServerName, e.ClientCert != "", t.Authority, t.Path, t.Model, t.Stream, keys, auth, t.Query, t.UIDs, t.Policy)
}

// Calls of many kinds are routed through both tables: where one of them fares differently the plan says
// something, and where none does it says nothing.
func TestAPlanSpeaksWhereCallsFareDifferently(t *testing.T) {
	d, client := dice{rand.New(rand.NewPCG(3, 4))}, clientSecret(t)
	different, equal, silent, idle := 0, 0, 0, 0
	for range 1500 {
		before, after := d.edit()
		input := written(t, before, after)
		said := routing.Plan(before, after)
		checkSentences(t, said)
		if written(t, before, after) != input {
			t.Fatal("the input was changed")
		}
		if again := routing.Plan(before, after); !slices.Equal(said, again) {
			t.Fatalf("twice asked:\n%s\n\n%s", strings.Join(said, "\n"), strings.Join(again, "\n"))
		}
		a, b := fates(before, client), fates(after, client)
		var differs []string
		for call := range a {
			if b[call] != a[call] {
				differs = append(differs, call)
			}
		}
		for call := range b {
			if _, ok := a[call]; !ok {
				differs = append(differs, call)
			}
		}
		slices.Sort(differs)
		switch {
		case len(differs) > 0 && len(said) == 0:
			silent++
			t.Errorf("%d calls fare differently, and nothing is said: %s:\n%s\n%s\n%s", len(differs), differs[0], a[differs[0]], b[differs[0]], describe(before, after))
		case len(differs) == 0 && len(said) > 0 && !strings.Contains(strings.Join(said, "\n"), "can no longer match") && !strings.Contains(strings.Join(said, "\n"), "taken for chat completions"):
			idle++
			t.Errorf("no call fares differently:\n%s\n%s", strings.Join(said, "\n"), describe(before, after))
		case len(differs) > 0:
			different++
		default:
			equal++
		}
		if t.Failed() && silent+idle > 3 {
			t.FailNow()
		}
	}
	if different < 500 || equal < 100 {
		t.Errorf("%d edits made a difference, %d did not: the dice are loaded", different, equal)
	}
}

func describe(before, after routing.Objects) string {
	var b strings.Builder
	for i, in := range []routing.Objects{before, after} {
		fmt.Fprintln(&b, [...]string{"== before", "== after"}[i])
		in.Secrets = []routing.Secret{}
		table, problems := routing.Compile(in, planPods[0])
		for _, p := range problems {
			fmt.Fprintln(&b, p.Severity, p.Object, p)
		}
		_, _ = table.WriteTo(&b)
	}
	return b.String()
}

func clientSecret(t *testing.T) routing.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return routing.Secret{Namespace: "default", Name: "client", Type: v1beta1.SecretTypeTLS, Data: map[string]routing.Key{
		"tls.crt": routing.NewKey(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		"tls.key": routing.NewKey(string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))),
	}}
}
