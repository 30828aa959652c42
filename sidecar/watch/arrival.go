package watch

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

const secretKind = "Secret"

// arrival is what is kept of an object that the API server told.
type arrival struct {
	uid  types.UID
	sum  [sha256.Size]byte
	at   place
	docs []document // one, or those of the Secrets and exported providers whose entries are in the Secret of keys
	cas  string     // the authorities that are in the Secret of keys, as PEM
	// Of the Secret of keys, too: what it says of telemetry, and the digest of all but that.
	telemetry string
	rest      [sha256.Size]byte
}

// arrive takes in an object as it is now. before is what is kept of the same name, or nil; it is also what comes back
// where nothing has changed that anybody here looks at.
func arrive(k *kindOfFeed, o *wireObject, before *arrival) *arrival {
	text := o.raw
	if k.kind != secretKind {
		text = o.essence(k)
	}
	sum := sha256.Sum256(text)
	if before != nil && before.uid == o.UID && before.sum == sum {
		return before
	}
	a := &arrival{uid: o.UID, sum: sum, at: place{file: "generation " + strconv.FormatInt(o.Generation, 10)}}
	if k.kind == secretKind {
		a.takeKeys(o)
		return a
	}
	a.docs = []document{o.document(k.kind, text)}
	return a
}

// document reads the text that essence gives.
func (o *wireObject) document(kind string, text []byte) document {
	ref := refOf(kind, o.Namespace, o.Name)
	var in routing.Objects
	var d document
	if _, err := in.DecodeJSON(text, o.Namespace); err == nil {
		d = documentsOf(&in, ref, nil)[0]
	} else if !owns(kind) {
		d = document{}
	} else {
		d.bad = unknown(ref)
	}
	d.ref, d.uid, d.sum = ref, o.UID, sha256.Sum256(text)
	return d
}

// unknown stands for an object that cannot be read at all. Which hosts it names is not known, so every host may be its.
func unknown(ref routing.Ref) *routing.Unreadable {
	return &routing.Unreadable{Object: ref, Hosts: []string{"*"}, Claims: []string{"*"}, Problems: []routing.Problem{
		{Object: ref, Severity: routing.Invalid, Code: routing.UnreadableObject, Message: "cannot be read"},
	}}
}

// owns tells whether objects of a kind own hosts, whatever they say.
func owns(kind string) bool { return kind == v1beta1.KindLLMProvider || kind == v1beta1.KindLLMRoute }

// telling are the annotations that decide something, on other kinds than Remora's own.
var telling = []string{istio.ExportToAnnotation, istio.BalanceAnnotation}

// carried are those that are decoded of any object.
var carried = append([]string{metav1.InitialEventsAnnotationKey}, telling...)

// essence gives the text of an object without what costs memory and decides nothing: managed fields, most annotations,
// labels and status. A change of these alone is none.
func (o *wireObject) essence(k *kindOfFeed) []byte {
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(o.raw, &fields); err != nil {
		return o.raw
	}
	set := func(name string, value any) {
		if text, err := json.Marshal(value); err == nil { // as it does for plain values
			fields[name] = text
		}
	}
	annotations := map[string]string{}
	for _, name := range telling {
		if value, ok := o.Annotations[name]; ok && !owns(k.kind) {
			annotations[name] = value
		}
	}
	set("apiVersion", k.apiVersion(0)) // the versions do not differ in what is looked at
	set("kind", k.kind)
	set("metadata", struct {
		Name              string      `json:"name"`
		Namespace         string      `json:"namespace"`
		UID               types.UID   `json:"uid"`
		CreationTimestamp metav1.Time `json:"creationTimestamp"`

		Annotations map[string]string `json:"annotations,omitempty"`
	}{o.Name, o.Namespace, o.UID, o.CreationTimestamp, annotations})
	delete(fields, "status")
	text, err := json.Marshal(fields)
	if err != nil {
		return o.raw
	}
	return text
}

// takeKeys takes apart the Secret of keys: it holds the entries of others under the names SECRET_KEY, exported providers with what they
// name, authorities, and settings of telemetry.
func (a *arrival) takeKeys(o *wireObject) {
	var content struct {
		Data map[string][]byte `json:"data"`
	}
	if json.Unmarshal(o.raw, &content) != nil {
		return // the API server takes nothing but base64
	}
	a.cas, a.telemetry = string(content.Data[v1beta1.TrustedCAEntry]), string(content.Data[v1beta1.TelemetryEntry])
	delete(content.Data, v1beta1.TelemetryEntry)
	digest := sha256.New()
	own, exported := secretsOf{}, secretsOf{}
	for _, entry := range slices.Sorted(maps.Keys(content.Data)) {
		fmt.Fprintf(digest, "%d %s %d ", len(entry), entry, len(content.Data[entry]))
		digest.Write(content.Data[entry])
		if provider, ok := strings.CutPrefix(entry, v1beta1.ExportedPrefix); ok {
			a.docs = append(a.docs, exported.provider(provider, content.Data[entry]))
		} else if name, key, ok := strings.Cut(entry, "_"); ok && name != "" && key != "" { // the authorities are not
			own.add(name, key, content.Data[entry])
		}
	}
	a.docs = append(a.docs, own.documents(o.Namespace, false)...)
	a.docs = append(a.docs, exported.documents(v1beta1.InstallationNamespace, true)...)
	digest.Sum(a.rest[:0])
}
