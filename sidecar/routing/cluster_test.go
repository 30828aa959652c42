package routing

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/istio"
)

type sampleSpec struct {
	Name  string            `json:"name"`
	Count *uint32           `json:"count"`
	Share float64           `json:"share"`
	Wait  *metav1.Duration  `json:"wait"`
	Parts []sampleSpec      `json:"parts"`
	By    map[string]string `json:"by"`
}

type sample struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              sampleSpec `json:"spec"`
}

func TestOfAnObjectOfIstiosAllIsTakenThatFitsAndTheRestIsNamed(t *testing.T) {
	f := func(doc, wantObject, wantRemarks string) {
		t.Helper()
		tree, twins, err := parse([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		o, remarks := decodeIstio[sample](tree.(map[string]any), twins)
		got := o.Name + " " + o.Spec.Name
		if o.Spec.Count != nil {
			got += fmt.Sprintf(" count=%d", *o.Spec.Count)
		}
		if o.Spec.Wait != nil {
			got += " wait=" + o.Spec.Wait.Duration.String()
		}
		for _, p := range o.Spec.Parts {
			got += fmt.Sprintf(" part=%q", p.Name)
		}
		if got != wantObject || fmt.Sprint(remarks) != wantRemarks {
			t.Errorf("%s:\ngot  %s, %v\nwant %s, %s", doc, got, remarks, wantObject, wantRemarks)
		}
	}
	f("metadata: {name: o, managedFields: 5}\nspec: {name: x, count: 5, wait: 1m30s, share: 1, by: {a: b}}", "o x count=5 wait=1m30s", "[]")
	f("metadata: {name: o}\nspec: {name: x, other: {deep: 1}, parts: [{name: a, else2: 1}]}", `o x part="a"`, "[{spec.other } {spec.parts[0].else2 }]")
	f("metadata: {name: o}\nspec: {count: 5.0, wait: null}", "o  count=5", "[]")
	f("metadata: {name: o}\nspec: {count: 5.5}", "o ", "[{spec.count is a number, is left out, and must be a whole number, without fraction and exponent}]")
	f("metadata: {name: o}\nspec: {count: -1}", "o ", "[{spec.count -1 is far out of range, and is left out: use another number}]")
	f("metadata: {name: o}\nspec: {count: 99999999999999999999}", "o ", "[{spec.count is a number, is left out, and must be a whole number, without fraction and exponent}]")
	f("metadata: {name: o}\nspec: {wait: 5}", "o ", "[{spec.wait is not a duration, and is left out: write one such as 30s, 5m or 1m30s}]")
	f("metadata: {name: o}\nspec: {parts: [5, {name: b}, null]}", `o  part="" part="b" part=""`, "[{spec.parts[0] is a number, is left out, and must be a map with the fields name, count, share, wait, parts, by} {spec.parts[2] is null, is left out, and must be a map with the fields name, count, share, wait, parts, by}]")
	f("metadata: {name: o}\nspec: [x]", "o ", "[{spec is a list, is left out, and must be a map with the fields name, count, share, wait, parts, by}]")
	f("metadata: [n]", " ", "[]")
	f("metadata: {name: 5}\nspec: {}", " ", "[{metadata.name is a number, is left out, and must be a string: put it in quotes}]")
	f("metadata: {name: o}\nspec: {sk-0123456789abcdef: 1, \"-\": 1}", "o ", "[{spec.… } {spec.… }]")
	f("metadata: {name: o}\nspec:\n  name: a\n  name: b", "o b", "[{spec.name is given twice, and the last one counts: keep one}]")
}

func TestWhatWasLeftOutIsFoundByThePathsAboveIt(t *testing.T) {
	r := istio.Remarks{{Field: "spec.http[10].match[0].uri"}, {Field: "spec.tlsOther"}, {Field: "spec.tls.mode"}, {Field: "spec.a"}}
	r.Sort()
	for path, want := range map[string]bool{
		"spec": true, "spec.http": true, "spec.http[10]": true, "spec.http[10].match[0].uri": true, "spec.http[1]": false, "spec.http[10].match[1]": false,
		"spec.tls": true, "spec.tls.mode": true, "spec.tls.sni": false, "spec.tl": false, "spec.a": true, "spec.a.b": false, "": false,
	} {
		if r.In(path) != want {
			t.Errorf("%q: %t, want %t", path, !want, want)
		}
	}
}

func TestTheVersionsOfIstiosAPIAreReadAlike(t *testing.T) {
	for version, want := range map[string]int{"v1alpha3": 1, "v1beta1": 1, "v1": 1, "v1alpha1": 0, "v2": 0, "": 0} {
		var in Objects
		for _, kind := range []string{istio.KindVirtualService, istio.KindDestinationRule, istio.KindGateway} {
			ref, err := in.Decode([]byte("apiVersion: networking.istio.io/"+version+"\nkind: "+kind+"\nmetadata: {name: o, creationTimestamp: '2026-01-31T08:00:00Z'}\nspec: {}"), "team")
			if err != nil || ref != (Ref{kind, "team", "o"}) {
				t.Errorf("%v, %v", ref, err)
			}
		}
		if len(in.VirtualServices) != want || len(in.DestinationRules) != want || len(in.Gateways) != want {
			t.Errorf("%s: %+v", version, in)
		}
		if want == 1 && (in.Gateways[0].Namespace != "team" || in.Gateways[0].CreationTimestamp.UTC().Format(time.DateOnly) != "2026-01-31") {
			t.Errorf("%s: %+v", version, in.Gateways[0])
		}
	}
}
