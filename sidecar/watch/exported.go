package watch

import (
	"encoding/json"
	"maps"
	"slices"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// secretsOf are the Secrets of one namespace as far as they are in the Secret of keys, by name and key.
type secretsOf map[string]map[string]routing.Key

func (s secretsOf) add(name, key string, value []byte) {
	if s[name] == nil {
		s[name] = map[string]routing.Key{}
	}
	s[name][key] = routing.NewKey(string(value))
}

func (s secretsOf) documents(namespace string, exported bool) (all []document) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		secret := &routing.Secret{Namespace: namespace, Name: name, Data: s[name]}
		if !s[name]["tls.crt"].IsZero() && !s[name]["tls.key"].IsZero() {
			secret.Type = v1beta1.SecretTypeTLS
		}
		all = append(all, document{ref: refOf(secretKind, namespace, name), secret: secret, key: true, exported: exported})
	}
	return all
}

// provider takes in the entry of an exported provider. Its name and namespace are not the entry's to say.
func (s secretsOf) provider(name string, value []byte) document {
	ref := refOf(v1beta1.KindLLMProvider, v1beta1.InstallationNamespace, name)
	var entry v1beta1.ExportedProvider
	var head wireHead
	if json.Unmarshal(value, &entry) != nil || json.Unmarshal(entry.Provider, &head) != nil { // their errors could quote a key
		return document{ref: ref, bad: unknown(ref), exported: true}
	}
	o := head.object(entry.Provider)
	o.Namespace, o.Name = ref.Namespace, ref.Name
	d := o.document(ref.Kind, o.essence(&providerFeed))
	d.exported = true
	if entry.Withheld {
		d.provider, d.bad = nil, &routing.Unreadable{Object: ref, Hosts: d.hosts(), Problems: []routing.Problem{{
			Object: ref, Severity: routing.Unresolved, Code: routing.KeysTooLarge,
			Message: "is more, with the keys that it names, than the namespace's Secret of keys has room for: ask those who run Remora, or remove providers or large values here",
		}}}
		return d
	}
	for secret, keys := range entry.Secrets {
		for key, value := range keys {
			s.add(secret, key, value)
		}
	}
	return d
}
