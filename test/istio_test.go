package test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/cluster/crds"
)

var updateDocs = flag.Bool("update-docs", false, "write the tables of docs/istio.md anew, with the notes that they have")

const istioDoc = "../docs/istio.md"

// istioKinds are the kinds of Istio that Remora executes. base is an object in which every field can be tried.
var istioKinds = []struct{ kind, crd, base string }{
	{"VirtualService", crds.VirtualServices, `{hosts: [a.example.com], gateways: [edge], http: [{route: [{destination: {host: a}}]}]}`},
	{"DestinationRule", crds.DestinationRules, `{host: a}`},
	{"Gateway", crds.Gateways, `{servers: [{port: {number: 443, name: x, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: MUTUAL, credentialName: x}}]}`},
}

// istioUser is somebody for whom a DestinationRule matters.
const istioUser = `{apiVersion: istio.alibabacloud.com/v1beta1, kind: LLMRoute, metadata: {name: a}, spec: {host: b, rules: [{backendRefs: [{backendRef: {name: a}}]}]}}`

// Values of fields that not every value of the right type shows to be honoured.
var istioSamples = map[string]any{
	"spec.servers[].tls.mode":                                              "SIMPLE",
	"spec.servers[].port.protocol":                                         "HTTPS",
	"spec.servers[].port.number":                                           int64(443),
	"spec.servers[].tls.minProtocolVersion":                                "TLSV1_2",
	"spec.servers[].tls.maxProtocolVersion":                                "TLSV1_3",
	"spec.servers[].tls.cipherSuites[]":                                    "ECDHE-RSA-AES128-GCM-SHA256",
	"spec.servers[].hosts[]":                                               "a.example.com",
	"spec.http[].retries.retryOn":                                          "5xx",
	"spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[]": "topology.kubernetes.io/zone",
	"spec.http[].retries.attempts":                                         int64(3),
	"spec.http[].redirect.derivePort":                                      "FROM_REQUEST_PORT",
}

// Objects in which fields can be tried that have no effect in the usual one.
var istioBases = map[string]string{
	"spec.servers[].tls.httpsRedirect": `{servers: [{port: {number: 80, name: x, protocol: HTTP}, hosts: [a.example.com]}]}`,
}

// Each field that Istio has is in the table of its kind, once, with what Remora makes of it; and that is what Compile says of it.
func TestTheTableOfIstiosFieldsIsTrue(t *testing.T) {
	text, err := os.ReadFile(istioDoc)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range istioKinds {
		want := map[string]bool{}
		for path, schema := range istioFields(t, k.crd) {
			row := istioRow(path)
			honoured := istioHonours(t, k.kind, k.base, path, schema)
			if known, ok := want[row]; ok && known != honoured {
				t.Errorf("%s: %s is honoured in one place, and not in another", k.kind, path)
			}
			want[row] = honoured
		}
		begin, end := fmt.Sprintf("<!-- fields of %s -->\n", k.kind), fmt.Sprintf("<!-- end of %s -->\n", k.kind)
		before, rest, found := strings.Cut(string(text), begin)
		table, after, ended := strings.Cut(rest, end)
		if !found || !ended {
			t.Fatalf("%s has no table between %q and %q", istioDoc, begin, end)
		}
		notes := map[string]string{}
		var twice []string
		for line := range strings.SplitSeq(table, "\n") {
			if cells := strings.Split(line, " | "); len(cells) >= 2 && strings.HasPrefix(cells[0], "| `") {
				path := "spec." + strings.Trim(cells[0], "| `")
				if _, ok := notes[path]; ok {
					twice = append(twice, path)
				}
				notes[path] = ""
				if len(cells) > 2 {
					notes[path] = strings.Trim(cells[2], " |")
				}
			}
		}
		var wanted bytes.Buffer
		wanted.WriteString("\n| field | honoured | |\n|---|---|---|\n")
		for _, path := range slices.Sorted(maps.Keys(want)) {
			note := strings.TrimSpace(notes[path])
			if note != "" {
				note += " "
			}
			fmt.Fprintf(&wanted, "| `%s` | %s | %s|\n", strings.TrimPrefix(path, "spec."), map[bool]string{true: "yes", false: "no"}[want[path]], note)
		}
		wanted.WriteString("\n")
		if len(twice) > 0 {
			t.Errorf("%s is given twice", twice)
		}
		if *updateDocs {
			text = []byte(before + begin + wanted.String() + end + after)
		} else if table != wanted.String() {
			t.Errorf("the table of %s in %s is not true. It should be this, which go test ./test -run Istio -update-docs writes:\n%s", k.kind, istioDoc, wanted.String())
		}
	}
	if *updateDocs {
		if err := os.WriteFile(istioDoc, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// istioRow gives the row of a field: a traffic policy says the same of a port, of a subset, and of a port of a subset.
func istioRow(path string) string {
	const policy, port = "spec.trafficPolicy.", "spec.trafficPolicy.portLevelSettings[]."
	path = strings.Replace(path, "spec.subsets[].trafficPolicy.", policy, 1)
	if of, ok := strings.CutPrefix(path, port); ok && !strings.HasPrefix(of, "port.") {
		return policy + of
	}
	return path
}

// istioFields gives the fields of a definition that have a value of their own, with their schemas. Its versions have the same ones.
func istioFields(t *testing.T, crd string) map[string]map[string]any {
	t.Helper()
	manifest, err := crds.Manifest(t.Context(), crd)
	if err != nil {
		t.Fatal(err)
	}
	var definition struct {
		Spec struct {
			Versions []struct {
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(strings.TrimPrefix(manifest, "---\n")), &definition); err != nil {
		t.Fatal(err)
	}
	var first map[string]map[string]any
	for _, v := range definition.Spec.Versions {
		all := map[string]map[string]any{}
		properties, _ := v.Schema.OpenAPIV3Schema["properties"].(map[string]any)
		spec, _ := properties["spec"].(map[string]any)
		addFields(all, "spec", spec)
		if first != nil && !slices.Equal(slices.Sorted(maps.Keys(first)), slices.Sorted(maps.Keys(all))) {
			t.Errorf("the versions of %s differ", crd)
		}
		first = all
	}
	if len(first) < 20 {
		t.Fatalf("%s has %d fields", crd, len(first))
	}
	return first
}

func addFields(all map[string]map[string]any, path string, schema map[string]any) {
	properties, _ := schema["properties"].(map[string]any)
	items, _ := schema["items"].(map[string]any)
	values, _ := schema["additionalProperties"].(map[string]any)
	switch {
	case len(properties) > 0:
		for name, p := range properties {
			addFields(all, path+"."+name, p.(map[string]any))
		}
	case items != nil:
		addFields(all, path+"[]", items)
	case values != nil:
		addFields(all, path+"{}", values)
	default:
		all[path] = schema
	}
}

var (
	index = regexp.MustCompile(`\[[0-9]+\]`)
	key   = regexp.MustCompile(`\[[^\]]+\]`)
)

// istioHonours tells whether an object with that field gets no word on its not being honoured.
func istioHonours(t *testing.T, kind, base, path string, schema map[string]any) bool {
	t.Helper()
	var spec map[string]any
	if err := yaml.Unmarshal([]byte(cmp.Or(istioBases[path], base)), &spec); err != nil {
		t.Fatal(err)
	}
	value, ok := istioSamples[istioRow(path)]
	if !ok {
		value = map[any]any{"integer": 50, "number": 0.5, "boolean": true}[schema["type"]]
		if value == nil {
			value = "x"
		}
	}
	doc, err := yaml.Marshal(map[string]any{
		"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": map[string]any{"name": "x"},
		"spec": with(spec, strings.Split(strings.TrimPrefix(path, "spec."), "."), value),
	})
	if err != nil {
		t.Fatal(err)
	}
	var in routing.Objects
	for _, doc := range [][]byte{doc, []byte(istioUser)} {
		if _, err := in.Decode(doc, "default"); err != nil {
			t.Fatal(err)
		}
	}
	in.Services = []routing.Service{{Namespace: "default", Name: "a", Ports: []routing.ServicePort{{Number: 80}}}}
	for _, p := range routing.Judge(in) {
		at := key.ReplaceAllString(index.ReplaceAllString(p.Field, "()"), "{}")
		at = strings.ReplaceAll(at, "()", "[]")
		below := at != "" && (at == path || strings.HasPrefix(path, at+".") || strings.HasPrefix(path, at+"[") || strings.HasPrefix(path, at+"{"))
		if below && (p.Code == routing.FieldNotHonoured || p.Code == routing.NotSupported) {
			return false
		}
	}
	return true
}

// with sets a value deep inside a tree: in the first entry of each list, and under the key x of each map of values.
func with(tree any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	fields, _ := tree.(map[string]any)
	if fields == nil {
		fields = map[string]any{}
	}
	name := strings.TrimRight(path[0], "[]{}")
	switch kind := strings.TrimPrefix(path[0], name); kind {
	case "":
		fields[name] = with(fields[name], path[1:], value)
	case "[]":
		list, _ := fields[name].([]any)
		if len(list) == 0 {
			list = []any{nil}
		}
		list[0] = with(list[0], path[1:], value)
		fields[name] = list
	case "{}":
		fields[name] = map[string]any{"x": with(nil, path[1:], value)}
	}
	return fields
}
