package routing

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	kjson "sigs.k8s.io/json"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// Objects is a configuration as users wrote it: all that Compile looks at.
type Objects struct {
	Providers []v1beta1.LLMProvider
	Routes    []v1beta1.LLMRoute
	// Exported are providers of the installation's namespace that others may use. The Secrets that they name are in Secrets, in
	// the providers' namespace.
	Exported []Exported
	// Secrets that keys may come from. nil means that they are not known here (admission may not read
	// them): then references to them are not judged, and lead to refusals.
	Secrets []Secret
	// KeysIn names the one Secret that all of Secrets were taken from (see v1beta1.KeysSecret). Empty: they
	// were there themselves.
	KeysIn string
	// TrustedCAs are the authorities, in PEM, that the installation trusts beside the system's. Providers without a
	// caBundle of their own may be signed by them. They come from the Secret that KeysIn names.
	TrustedCAs string
	// What is known of the cluster, by namespace. nil Services means that it is not known here: then references to them are not judged.
	// Where a kind does not exist in the cluster, there is just nothing of it.
	Services         []Service
	InferencePools   []InferencePool
	VirtualServices  []istio.VirtualService
	DestinationRules []istio.DestinationRule
	Gateways         []istio.Gateway
	// Compile does not look at these: who the servers are is in no table. See ServersOf.
	EndpointSlices []EndpointSlice
	// Objects that could not be decoded.
	Unreadable []Unreadable
	// Incomplete says that there may be objects that are not in here, so which hosts are owned is not
	// known. Nothing is passed on then.
	Incomplete bool
}

// empty tells whether there is nothing that could be used or own a host.
func (o *Objects) empty() bool {
	return len(o.Providers) == 0 && len(o.Exported) == 0 && len(o.Routes) == 0 && len(o.Unreadable) == 0
}

// Exported is a provider as a namespace has it that it is exported to.
type Exported struct {
	To       string // the namespace
	Provider v1beta1.LLMProvider
}

// Secret is what Compile needs of a Kubernetes Secret.
type Secret struct {
	Namespace, Name, Type string
	Data                  map[string]Key
}

// Unreadable is an object of our kinds that could not be decoded. Its hosts stay owned.
type Unreadable struct {
	Object Ref
	To     string // the namespace that it is exported to; empty: it is of its own
	// Every host that it names. None of them is passed on.
	Hosts []string
	// Those of Hosts that a route decides about itself: that a provider has them does not serve them,
	// because the route would have had another say. Not so those of its backends.
	Claims   []string
	Problems []Problem
}

func (u *Unreadable) namespace() string { return cmp.Or(u.To, u.Object.Namespace) }

// ErrNotAnObject is wrapped by the errors of Decode.
var ErrNotAnObject = errors.New("not a Kubernetes object")

// Decode adds the object written in doc (YAML or JSON) to o, or the objects of a List. Objects of other
// kinds are not added; the Ref is that of the object in any case, and empty for an empty document. An
// object of our kinds that cannot be read becomes an Unreadable, with all that is wrong with it. An object
// without a namespace gets the one given. The error says that doc is not an object at all; it wraps
// ErrNotAnObject and shows nothing of the text, which may be a key.
func (o *Objects) Decode(doc []byte, namespace string) (Ref, error) {
	tree, twins, err := parse(doc)
	if err != nil {
		return Ref{}, err
	}
	return o.decode(tree, twins, namespace)
}

// DecodeJSON is Decode for the JSON of an API server, which gives no field twice. It is several times as fast.
func (o *Objects) DecodeJSON(doc []byte, namespace string) (Ref, error) {
	var tree any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(doc, &tree); err != nil {
		return Ref{}, fmt.Errorf("%w: it cannot be read", ErrNotAnObject)
	}
	return o.decode(tree, nil, namespace)
}

func (o *Objects) decode(tree any, twins []twin, namespace string) (Ref, error) {
	top, ok := tree.(map[string]any)
	if tree == nil {
		return Ref{}, nil
	} else if !ok {
		return Ref{}, fmt.Errorf("%w: it is %s: write a map with apiVersion, kind, metadata and spec", ErrNotAnObject, valueWord(tree))
	}
	version, _ := top["apiVersion"].(string)
	metadata, _ := top["metadata"].(map[string]any)
	var ref Ref
	ref.Kind, _ = top["kind"].(string)
	ref.Name, _ = metadata["name"].(string)
	if ref.Namespace, _ = metadata["namespace"].(string); ref.Namespace == "" {
		ref.Namespace = namespace
	}
	ours := strings.HasPrefix(version, v1beta1.GroupVersion.Group+"/")
	if ref.Kind == "" {
		return ref, fmt.Errorf("%w: it has no kind: write LLMProvider, LLMRoute or Secret", ErrNotAnObject)
	}
	if strings.HasSuffix(ref.Kind, "List") && (ours || version == "v1" || strings.HasPrefix(version, istio.Group+"/")) {
		return ref, o.decodeList(top["items"], twins, namespace)
	}
	if ref.Kind == "Secret" && version == "v1" {
		return ref, o.decodeSecret(top, twins, ref)
	}

	if ref.Kind == "EndpointSlice" && version == "discovery.k8s.io/v1" {
		return ref, o.decodeSlice(top, ref)
	}
	if o.decodeCluster(top, twins, ref, version) {
		return ref, nil
	}
	f := findings{}
	for _, kind := range []string{v1beta1.KindLLMProvider, v1beta1.KindLLMRoute} {
		if kind != ref.Kind && (strings.EqualFold(kind, ref.Kind) || ours && oneEdit(kind, ref.Kind)) {
			f.invalid(InvalidValue, "kind", "%q is not a kind: did you mean %s?", ref.Kind, kind)
			ref.Kind, f.list[0].Object = kind, Ref{kind, ref.Namespace, ref.Name}
		}
	}
	f.object = ref
	if want := v1beta1.GroupVersion.String(); version == "" {
		f.invalid(InvalidValue, "apiVersion", "is required: write %s", want)
	} else if version != want {
		f.invalid(InvalidValue, "apiVersion", "is %q: write %s", version, want)
	}
	var hosts, claims []string
	for _, t := range twins {
		f.invalid(UnreadableObject, t.path, "is given twice: keep one")
		hosts = append(hosts, t.hosts...)
	}
	switch ref.Kind {
	case v1beta1.KindLLMProvider:
		if p := read(&f, top, judgeProvider); p != nil {
			p.Namespace = ref.Namespace
			o.Providers = append(o.Providers, *p)
			return ref, nil
		}
	case v1beta1.KindLLMRoute:
		if r := read(&f, top, judgeRoute); r != nil {
			r.Namespace = ref.Namespace
			o.Routes = append(o.Routes, *r)
			return ref, nil
		}
	default:
		return ref, nil
	}
	for _, name := range slices.Sorted(maps.Keys(top)) {
		if name != "metadata" && name != "status" {
			hosts = hostsIn(hosts, hostFields, name, top[name])
			claims = hostsIn(claims, claimFields, name, top[name])
		}
	}
	sortProblems(f.list)
	o.Unreadable = append(o.Unreadable, Unreadable{Object: ref, Hosts: hosts, Claims: claims, Problems: f.list})
	return ref, nil
}

// read gives the object in a tree, or nil where the tree is not entirely such an object, or f has
// something against it already. Then f also gets what judge finds in the parts that could be read.
func read[T any](f *findings, top map[string]any, judge func(*findings, *T)) *T {
	s := shape{findings: f}
	top = maps.Clone(top)
	delete(top, "status") // it is the controller's: a file may hold that of an earlier version
	fitting, _ := s.fit(top, reflect.TypeFor[T](), "")
	text, err := json.Marshal(fitting)
	object := new(T)
	if err == nil {
		err = json.Unmarshal(text, object)
	}
	if err != nil { // cannot be: it fits
		f.invalid(UnreadableObject, "", "cannot be read")
		return nil
	}
	if f.firstInvalid() == nil {
		return object
	}
	more := findings{object: f.object}
	judge(&more, object)
	for _, p := range more.list {
		if !s.silences(p) {
			f.list = append(f.list, p)
		}
	}
	return nil
}

func (o *Objects) decodeList(items any, twins []twin, namespace string) error {
	list, ok := items.([]any)
	if !ok && items != nil {
		return fmt.Errorf("%w: items is %s: write a list of objects", ErrNotAnObject, valueWord(items))
	}
	var all []error
	for i, item := range list {
		place := fmt.Sprintf("items[%d]", i)
		var own []twin
		for _, t := range twins {
			if rest, ok := strings.CutPrefix(t.path, place+"."); ok {
				own = append(own, twin{rest, t.hosts})
			}
		}
		if _, err := o.decode(item, own, namespace); err != nil {
			all = append(all, fmt.Errorf("%s: %w", place, err))
		}
	}
	return errors.Join(all...)
}

func (o *Objects) decodeSlice(top map[string]any, ref Ref) error {
	text, err := json.Marshal(top)
	if err != nil { // cannot be: it has been read
		return fmt.Errorf("%w: %s: it cannot be read", ErrNotAnObject, ref)
	}
	s, err := DecodeEndpointSlice(text, ref.Namespace)
	if err == nil {
		o.EndpointSlices = append(o.EndpointSlices, s)
	}
	return err
}

func (o *Objects) decodeSecret(top map[string]any, twins []twin, ref Ref) error {
	s := Secret{Namespace: ref.Namespace, Name: ref.Name, Data: map[string]Key{}}
	s.Type, _ = top["type"].(string)
	var faults []string
	for _, t := range twins {
		faults = append(faults, t.path+" is given twice: keep one")
	}
	for _, field := range []string{"data", "stringData"} { // the second wins, as in the API server
		entries, ok := top[field].(map[string]any)
		if !ok && top[field] != nil {
			faults = append(faults, field+" is "+valueWord(top[field])+", and must be a map")
		}
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			text, ok := entries[name].(string)
			if entries[name] != nil && !ok {
				faults = append(faults, field+"."+name+" is "+valueWord(entries[name])+", and must be a string: put it in quotes")
			}
			if field == "data" {
				decoded, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					faults = append(faults, field+"."+name+" is not base64: plain text belongs under stringData")
				}
				text = string(decoded)
			}
			s.Data[name] = NewKey(text)
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %s: %s", ErrNotAnObject, ref, strings.Join(faults, "; "))
	}
	o.Secrets = append(o.Secrets, s)
	return nil
}
