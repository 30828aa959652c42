package routing

import (
	"errors"
	"fmt"
	"strings"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
)

// Objects is a configuration as users wrote it: all that Compile looks at.
type Objects struct {
	Providers []v1beta1.LLMProvider
	Routes    []v1beta1.LLMRoute
	// Secrets that keys may come from. nil means that they are not known here (admission may not read
	// them): then references to them are not judged.
	Secrets []Secret
	// Objects that could not be decoded.
	Unreadable []Unreadable
	// Incomplete says that there may be objects that are not in here, so which hosts are owned is not
	// known. Nothing is passed on then.
	Incomplete bool
}

// Secret is what Compile needs of a Kubernetes Secret.
type Secret struct {
	Namespace, Name, Type string
	Data                  map[string]Key
}

// Unreadable is an object of our kinds that could not be decoded. Its hosts stay owned.
type Unreadable struct {
	Object   Ref
	Hosts    []string
	Problems []Problem
}

// ErrNotAnObject is wrapped by the errors of Decode.
var ErrNotAnObject = errors.New("not a Kubernetes object")

// Decode adds the object written in doc (YAML or JSON) to o. Objects of other kinds are not added; the
// Ref is that of the object in any case. An object of our kinds that cannot be decoded becomes an
// Unreadable. An object without a namespace gets the one given. The error says that doc is not an
// object at all; it wraps ErrNotAnObject.
func (o *Objects) Decode(doc []byte, namespace string) (Ref, error) {
	text, strictErr := yaml.YAMLToJSONStrict(doc)
	if strictErr != nil {
		var err error
		if text, err = yaml.YAMLToJSON(doc); err != nil {
			return Ref{}, fmt.Errorf("%w: %s", ErrNotAnObject, sentence(err))
		}
	}
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &head); err != nil {
		return Ref{}, fmt.Errorf("%w: %s", ErrNotAnObject, sentence(err))
	}
	ref := Ref{head.Kind, head.Metadata.Namespace, head.Metadata.Name}
	if ref.Namespace == "" {
		ref.Namespace = namespace
	}
	switch ref.Kind {
	case v1beta1.KindLLMProvider, v1beta1.KindLLMRoute:
	case "Secret":
		return ref, o.decodeSecret(text, ref)
	case "":
		return ref, fmt.Errorf("%w: it has no kind; write kind: LLMProvider, LLMRoute or Secret", ErrNotAnObject)
	default:
		return ref, nil
	}

	f := findings{object: ref}
	if want := v1beta1.GroupVersion.String(); head.APIVersion != want {
		f.invalid(InvalidValue, "apiVersion", "is %q: write %s", head.APIVersion, want)
	}
	if strictErr != nil {
		f.invalid(UnreadableObject, "", "%s", sentence(strictErr))
	}
	if ref.Kind == v1beta1.KindLLMProvider {
		var p v1beta1.LLMProvider
		if decode(&f, text, &p); len(f.list) == 0 {
			p.Namespace = ref.Namespace
			o.Providers = append(o.Providers, p)
			return ref, nil
		}
	} else {
		var r v1beta1.LLMRoute
		if decode(&f, text, &r); len(f.list) == 0 {
			r.Namespace = ref.Namespace
			o.Routes = append(o.Routes, r)
			return ref, nil
		}
	}
	o.Unreadable = append(o.Unreadable, Unreadable{Object: ref, Hosts: hostsIn(text), Problems: f.list})
	return ref, nil
}

// hostsIn finds the hosts that an object names, whatever else is wrong with it.
func hostsIn(text []byte) []string {
	var object struct {
		Spec map[string]any `json:"spec"`
	}
	if kjson.UnmarshalCaseSensitivePreserveInts(text, &object) != nil {
		return nil
	}
	var hosts []string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for name, e := range v {
				if s, ok := e.(string); ok && (strings.EqualFold(name, "host") || strings.EqualFold(name, "providerHost")) {
					hosts = append(hosts, s)
				}
				walk(e)
			}
		}
	}
	walk(object.Spec)
	return hosts
}

func (o *Objects) decodeSecret(text []byte, ref Ref) error {
	var s struct {
		Type       string            `json:"type"`
		Data       map[string][]byte `json:"data"`
		StringData map[string]string `json:"stringData"`
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &s); err != nil {
		// The error may quote the value, which is a key.
		return fmt.Errorf("%w: data of %s must be base64, stringData plain text", ErrNotAnObject, ref)
	}
	secret := Secret{Namespace: ref.Namespace, Name: ref.Name, Type: s.Type, Data: map[string]Key{}}
	for name, value := range s.Data {
		secret.Data[name] = NewKey(string(value))
	}
	for name, value := range s.StringData {
		secret.Data[name] = NewKey(value)
	}
	o.Secrets = append(o.Secrets, secret)
	return nil
}

// sentence makes the error of a decoder fit into one of ours.
func sentence(err error) string {
	s := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "yaml: ", "json: "} {
		s = strings.TrimPrefix(s, prefix)
	}
	return strings.Join(strings.Fields(s), " ")
}
