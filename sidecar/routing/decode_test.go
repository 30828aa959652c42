package routing_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"remora.dev/remora/sidecar/routing"
)

const provider = "apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: p}\nspec: {host: llm.example.com}\n"

func TestWhatIsNoObjectIsAnErrorThatShowsNothingOfTheText(t *testing.T) {
	for _, doc := range []string{
		"just sk-fake", "[sk-fake]", "- sk-fake", "sk-fake: 1", "kind: [sk-fake]", "{kind: sk-fake",
		"kind: LLMProvider\nspec:\n  apiKey: *sk-fake", "a: &sk-fake [*sk-fake]", "apiKey: {{ sk-fake }}", "null: sk-fake", "? [a]\n: sk-fake",
		"a: !!int sk-fake", "a: !!float sk-fake", "a: \"sk-fake\\q\"", "a: 'sk-fake", "a: sk-fake: b", "\tsk-fake", "a: `sk-fake", "a: @sk-fake",
		"<<: sk-fake", "a: .nan\nb: sk-fake", "sk-fake\xff", "a: sk-fake\x00",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {apiKey: sk-fake}",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: sk-fake",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: [sk-fake]",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {apiKey: [sk-fake]}",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  apiKey: sk-fake\n  apiKey: sk-fake",
		"apiVersion: v1\nkind: List\nitems: sk-fake",
		"apiVersion: v1\nkind: List\nitems: [sk-fake]",
	} {
		var in routing.Objects
		_, err := in.Decode([]byte(doc), "default")
		if !errors.Is(err, routing.ErrNotAnObject) {
			t.Errorf("%q: the error is %v", doc, err)
		} else if strings.Contains(err.Error(), "sk-fake") {
			t.Errorf("%q is shown: %s", doc, err)
		}
		if len(in.Providers)+len(in.Routes)+len(in.Secrets)+len(in.Unreadable) > 0 {
			t.Errorf("%q has become an object: %+v", doc, in)
		}
	}
}

func TestWhatConcernsUsNotIsLeftOut(t *testing.T) {
	for doc, want := range map[string]routing.Ref{
		"":                        {},
		"# nothing but a comment": {},
		"---\n":                   {},
		"null":                    {},
		"apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: other}": {Kind: "Service", Namespace: "other", Name: "s"},
		"apiVersion: example.com/v1\nkind: Secret\nmetadata: {name: s}":        {Kind: "Secret", Namespace: "default", Name: "s"},
		"apiVersion: istio.alibabacloud.com/v1beta1\nkind: ASMSwimLane":        {Kind: "ASMSwimLane", Namespace: "default"},
		"apiVersion: v1\nkind: List\nmetadata: {name: l}":                      {Kind: "List", Namespace: "default", Name: "l"},
	} {
		var in routing.Objects
		ref, err := in.Decode([]byte(doc), "default")
		if err != nil || ref != want || len(in.Providers)+len(in.Routes)+len(in.Secrets)+len(in.Unreadable) > 0 {
			t.Errorf("%q: ref %v, error %v, objects %+v", doc, ref, err, in)
		}
	}
}

func TestAListIsTheObjectsInIt(t *testing.T) {
	var in routing.Objects
	ref, err := in.Decode([]byte(`
apiVersion: v1
kind: List
items:
- apiVersion: istio.alibabacloud.com/v1beta1
  kind: LLMProvider
  metadata: {name: p, namespace: own}
  spec: {host: llm.example.com}
- apiVersion: istio.alibabacloud.com/v1beta1
  kind: LLMRouteList
  items:
  - apiVersion: istio.alibabacloud.com/v1beta1
    kind: LLMRoute
    metadata: {name: r}
    spec: {host: demo}
  - null
- apiVersion: istio.alibabacloud.com/v1beta1
  kind: LLMRoute
  metadata: {name: twice}
  spec:
    host: one
    host: two
- {apiVersion: v1, kind: Secret, metadata: {name: s}, data: {apiKey: c2stZmFrZQ==}, stringData: {other: sk-other}}
- kind: 5
`), "default")
	if ref.Kind != "List" || !errors.Is(err, routing.ErrNotAnObject) || !strings.Contains(err.Error(), "items[4]: ") {
		t.Errorf("ref %v, error %v", ref, err)
	}
	if len(in.Providers) != 1 || in.Providers[0].Namespace != "own" {
		t.Errorf("providers: %+v", in.Providers)
	}
	if len(in.Routes) != 1 || in.Routes[0].Namespace != "default" {
		t.Errorf("routes: %+v", in.Routes)
	}
	if len(in.Unreadable) != 1 || in.Unreadable[0].Problems[0].Field != "spec.host" || strings.Join(in.Unreadable[0].Hosts, " ") != "one two two" {
		t.Errorf("unreadable: %+v", in.Unreadable)
	}
	if len(in.Secrets) != 1 || in.Secrets[0].Data["apiKey"].Reveal() != "sk-fake" || in.Secrets[0].Data["other"].Reveal() != "sk-other" {
		t.Errorf("secrets: %+v", in.Secrets)
	}
}

func TestAnObjectIsReadHoweverItsFileIsWritten(t *testing.T) {
	for how, doc := range map[string]string{
		"with CRLF":               strings.ReplaceAll(provider, "\n", "\r\n"),
		"with a byte order mark":  "\xef\xbb\xbf" + provider,
		"with a document start":   "---\n" + provider,
		"with a document end":     provider + "...\n",
		"as JSON":                 `{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMProvider","metadata":{"name":"p"},"spec":{"host":"llm.example.com"}}`,
		"with a null status":      provider + "status: null\n",
		"with a status of others": provider + "status: {phase: Ready}\n",
		"with all of metadata":    strings.Replace(provider, "name: p", "name: p, creationTimestamp: null, labels: {a: b}, annotations: {c: d}, finalizers: [x], uid: u, generation: 3, resourceVersion: '1', managedFields: [{manager: m, operation: Apply, fieldsV1: {f:spec: {}}}]", 1),
		"with a merged map":       strings.Replace(provider, "name: p", "name: p, labels: &l {a: b, c: d}, annotations: {<<: *l, a: other}", 1),
	} {
		var in routing.Objects
		if _, err := in.Decode([]byte(doc), "default"); err != nil {
			t.Errorf("%s: %s", how, err)
		} else if len(in.Providers) != 1 || in.Providers[0].Name != "p" || in.Providers[0].Spec.Host != "llm.example.com" {
			t.Errorf("%s: %+v", how, in)
		}
	}
}

func TestAFieldOfAnyNullIsSaidOrAbsent(t *testing.T) {
	for doc, want := range map[string]string{
		"spec: null":                                         "spec.host is required",
		"spec: {host: null}":                                 "spec.host is required",
		"spec: {host: demo, rules: null}":                    "",
		"spec: {host: demo, rules: [null]}":                  "spec.rules[0] is null",
		"spec: {host: demo, gateways: [null]}":               "spec.gateways[0] is null",
		"spec: {host: demo, rules: [{backendRefs: null}]}":   "spec.rules[0].backendRefs is required",
		"spec: {host: demo, rules: [{backendRefs: [null]}]}": "spec.rules[0].backendRefs[0] is null",
		"spec: {host: demo, rules: [{backendRefs: [{providerHost: a.b}], matches: [{sourceLabels: {app: null}}]}]}": "spec.rules[0].matches[0].sourceLabels[app] is null",
		"metadata: null\nspec: {host: demo}":         "metadata.name is required",
		"metadata: []\nspec: {host: demo}":           "metadata is a list",
		"metadata: {name: null}\nspec: {host: demo}": "metadata.name is required",
	} {
		if !strings.HasPrefix(doc, "metadata") {
			doc = "metadata: {name: r}\n" + doc
		}
		in := decodeAll(t, []byte("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\n"+doc))
		_, problems := routing.Compile(in, nil)
		var said []string
		for _, p := range problems {
			if p.Severity == routing.Invalid {
				said = append(said, p.Field+" "+p.Message)
			}
		}
		if want == "" && len(said) > 0 || want != "" && (len(said) != 1 || !strings.HasPrefix(said[0], want)) {
			t.Errorf("%s: said %q, want %q", doc, said, want)
		}
	}
}

func TestTheJSONOfAnAPIServerIsReadAsItsYAMLIs(t *testing.T) {
	files, err := filepath.Glob("../../test/cases/*/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	compared := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range strings.Split(string(text), "---\n") {
			asJSON, err := yaml.YAMLToJSONStrict([]byte(doc))
			if err != nil {
				continue // an API server never has such a one
			}
			var slow, fast routing.Objects
			ref, err := slow.Decode([]byte(doc), "team")
			ref2, err2 := fast.DecodeJSON(asJSON, "team")
			if ref != ref2 || fmt.Sprint(err) != fmt.Sprint(err2) || !reflect.DeepEqual(slow, fast) {
				t.Errorf("%s:\n%v %v %+v\n%v %v %+v", file, ref, err, slow, ref2, err2, fast)
			}
			compared++
		}
	}
	if compared < 50 {
		t.Errorf("only %d were compared", compared)
	}
	if _, err := (&routing.Objects{}).DecodeJSON([]byte(`{"kind": sk-fake`), "team"); !errors.Is(err, routing.ErrNotAnObject) || strings.Contains(err.Error(), "fake") {
		t.Errorf("the error is %v", err)
	}
}

func BenchmarkDecodeJSON(b *testing.B) {
	doc := []byte(`{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMProvider","metadata":{"name":"p"},"spec":{"host":"llm.example.com",` +
		`"configs":{"defaultConfig":{"openAIConfig":{"model":"qwen-turbo","apiKeyRef":{"name":"s","key":"k"}}}}}}`)
	for name, decode := range map[string]func(*routing.Objects) (routing.Ref, error){
		"json": func(o *routing.Objects) (routing.Ref, error) { return o.DecodeJSON(doc, "team") },
		"yaml": func(o *routing.Objects) (routing.Ref, error) { return o.Decode(doc, "team") },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode(&routing.Objects{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
