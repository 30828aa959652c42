package watch

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

func TestAChangeThatDecidesNothingIsNone(t *testing.T) {
	first := arrive(&providerFeed, wireProvider(t, "1", "", keyedSpec), nil)
	managed := `,"managedFields":[{"manager":"kubectl"}],"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}"},"labels":{"a":"b"}`
	spec := keyedSpec + `,"status":{"conditions":[]}`
	if arrive(&providerFeed, wireProvider(t, "2", managed, spec), first) != first {
		t.Error("managed fields, annotations, labels and status make another object")
	}
	if p := first.docs[0].provider; p == nil || p.Spec.Host != "a.example" || p.CreationTimestamp.IsZero() {
		t.Errorf("what arrived is %+v", p)
	}
	if arrive(&providerFeed, wireProvider(t, "3", "", `{"host":"b.example"}`), first) == first {
		t.Error("an edit is none")
	}
	again := wireProvider(t, "4", "", keyedSpec)
	again.UID = "other"
	if arrive(&providerFeed, again, first) == first {
		t.Error("an object that was created again is the one from before")
	}
}

func TestAnObjectThatCannotBeDecodedStopsNoListAndOwnsItsHosts(t *testing.T) {
	list := `{"kind":"LLMProviderList","apiVersion":"istio.alibabacloud.com/v1beta1","metadata":{"resourceVersion":"7"},"items":[
		{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMProvider","metadata":{"name":"a","namespace":"team"},"spec":{"host":"a.example","port":"many","x":{"host":"b.example"}}},
		{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMProvider","metadata":{"name":"b","namespace":"team"},"spec":"nothing"},
		{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMProvider","metadata":{"name":"c","namespace":"team"},"spec":{"host":"c.example"}}]}`
	got, _, err := wire{}.Decode([]byte(list), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &feed{kindOfFeed: &providerFeed, changed: func() {}}
	var all []any
	for _, o := range got.(*wireList).Items {
		all = append(all, o)
	}
	if err := f.Replace(all, "7"); err != nil {
		t.Fatal(err)
	}
	arrivals := f.arrivals()
	if bad := arrivals[0].docs[0].bad; bad == nil || !slices.Contains(bad.Hosts, "a.example") || !slices.Contains(bad.Hosts, "b.example") {
		t.Errorf("a is %+v", bad)
	}
	if arrivals[1].docs[0].bad == nil || arrivals[2].docs[0].provider == nil {
		t.Error("b is not bad, or c is not good")
	}
}

func TestTheWireIsReadAsTheAPIServerWritesIt(t *testing.T) {
	event := &metav1.WatchEvent{}
	if _, _, err := (wire{}).Decode([]byte(`{"type":"BOOKMARK","object":{"kind":"LLMRoute","metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}`), nil, event); err != nil || event.Type != "BOOKMARK" {
		t.Fatal(event, err)
	}
	o, _, err := wire{}.Decode(event.Object.Raw, nil, nil)
	if b, ok := o.(*wireObject); err != nil || !ok || b.ResourceVersion != "9" || b.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("%+v %v", o, err)
	}
	o, _, err = wire{}.Decode([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}`), nil, nil)
	if s, ok := o.(*metav1.Status); err != nil || !ok || s.Code != 410 {
		t.Errorf("%+v %v", o, err)
	}
	o, _, err = wire{}.Decode([]byte(`{"kind":"SecretList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`), nil, nil)
	if l, ok := o.(*wireList); err != nil || !ok || len(l.Items) != 0 || l.ResourceVersion != "1" {
		t.Errorf("%+v %v", o, err)
	}
	if _, _, err = (wire{}).Decode([]byte("<html>"), nil, nil); err == nil {
		t.Error("a page of a proxy is taken for an answer")
	}
}

func TestTheSecretOfKeysIsTakenApart(t *testing.T) {
	o := &wireObject{raw: []byte(`{"data":{"a_k":"b25l","a_l_m":"dHdv","tls.example_tls.crt":"Yw==","tls.example_tls.key":"aw==","half_tls.crt":"Yw==","plain":"eA==","_k":"eA==","a_":"eA==","_trusted-ca.crt":"Y2Fz"}}`)}
	o.Namespace = "team"
	docs, cas := secretsIn(o)
	if len(docs) != 3 || cas != "cas" {
		t.Fatalf("%d secrets, and authorities %q", len(docs), cas)
	}
	a, half, pair := docs[0].secret, docs[1].secret, docs[2].secret
	if a.Name != "a" || a.Namespace != "team" || len(a.Data) != 2 || a.Data["k"].Reveal() != "one" || a.Data["l_m"].Reveal() != "two" || a.Type != "" {
		t.Errorf("a: %+v", a)
	}
	if half.Name != "half" || half.Type != "" {
		t.Errorf("half: %+v", half)
	}
	if pair.Name != "tls.example" || pair.Type != v1beta1.SecretTypeTLS {
		t.Errorf("pair: %+v", pair)
	}
}

func TestTheFirstQuestionAfterACutComesAtOnceAndLaterOnesSpreadOut(t *testing.T) {
	if backOff(0) != 0 || backOff(1) != 0 {
		t.Error("the first waits")
	}
	for n, most := range map[int]time.Duration{2: 100 * time.Millisecond, 4: 400 * time.Millisecond, 20: maxAgain, 1 << 40: maxAgain} {
		least, highest := maxAgain, time.Duration(0)
		for range 1000 {
			d := backOff(n)
			least, highest = min(least, d), max(highest, d)
		}
		if highest > most || highest < most*9/10 || least > most/10 {
			t.Errorf("question %d waits between %s and %s", n, least, highest)
		}
	}
}

func secretsIn(o *wireObject) (all []document, cas string) {
	a := &arrival{}
	a.takeKeys(o)
	return a.docs, a.cas
}
