package main

import (
	"encoding/json"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// object is one version of an LLMProvider or LLMRoute, as routing reads it. It is never changed.
//
// It is not decoded into the Go types straight away: an object that another version of the CRD let in may not fit
// them. Such a one must neither keep the others from being read nor be beyond correction and removal.
type object struct {
	metav1.ObjectMeta // namespace, name, resourceVersion and creationTimestamp
	ref               routing.Ref
	content           routing.Objects // it, and nothing else
	to                string          // of an exported provider: the namespace that has it
	mentions
}

// mentions is by what an object can touch others. Hosts are keys: see hostKey.
type mentions struct {
	host     string
	backends []string // the hosts of a route's backends, and as they are written
	written  []string
	rules    []string // the names of a route's rules, or of those that a provider has a config for
	anything bool     // it may touch any host
}

// newObject reads an LLMProvider or LLMRoute as the API server has it.
func newObject(u *unstructured.Unstructured) *object {
	o := &object{ObjectMeta: metav1.ObjectMeta{
		Namespace: u.GetNamespace(), Name: u.GetName(), ResourceVersion: u.GetResourceVersion(), CreationTimestamp: u.GetCreationTimestamp(),
	}}
	// Of the metadata no more than what Compile looks at: what a newer API server adds is none of its business.
	doc, err := json.Marshal(map[string]any{
		"apiVersion": u.GetAPIVersion(), "kind": u.GetKind(), "spec": u.Object["spec"],
		"metadata": map[string]any{"namespace": o.Namespace, "name": o.Name, "creationTimestamp": o.CreationTimestamp},
	})
	if err == nil {
		o.ref, err = o.content.Decode(doc, o.Namespace)
	}
	switch c := &o.content; {
	case err == nil && len(c.Providers) == 1:
		o.mentions = mentionsOfProvider(&c.Providers[0])
	case err == nil && len(c.Routes) == 1:
		o.mentions = mentionsOfRoute(&c.Routes[0])
	default:
		o.anything = true
		if len(c.Unreadable) == 0 { // what JSON can say and YAML cannot, such as some control characters
			o.ref = routing.Ref{Kind: u.GetKind(), Namespace: o.Namespace, Name: o.Name}
			o.content = routing.Objects{Unreadable: []routing.Unreadable{unreadable(o.ref, u)}}
		}
	}
	return o
}

func unreadable(ref routing.Ref, u *unstructured.Unstructured) routing.Unreadable {
	host, _, _ := unstructured.NestedString(u.Object, "spec", "host") // empty where there is none
	return routing.Unreadable{Object: ref, Hosts: []string{host}, Claims: []string{host}, Problems: []routing.Problem{{
		Object: ref, Severity: routing.Invalid, Code: routing.UnreadableObject,
		Message: "has characters that cannot be read: write it anew in plain text",
	}}}
}

func (o *object) kind() schema.GroupKind {
	return schema.GroupKind{Group: v1beta1.GroupVersion.Group, Kind: o.ref.Kind}
}

// isProvider and isRoute are both false for what cannot be read.
func (o *object) isProvider() bool { return len(o.content.Providers) == 1 }
func (o *object) isRoute() bool    { return len(o.content.Routes) == 1 }

func mentionsOfProvider(p *v1beta1.LLMProvider) mentions {
	m := mentions{host: hostKey(p.Spec.Host, p.Namespace)}
	for name := range p.Spec.Configs.RouteSpecificConfigs {
		m.rules = append(m.rules, name)
	}
	m.anything = m.host == ""
	return m
}

func mentionsOfRoute(r *v1beta1.LLMRoute) mentions {
	m := mentions{host: hostKey(r.Spec.Host, r.Namespace)}
	m.anything = m.host == ""
	for i := range r.Spec.Rules {
		if name := r.Spec.Rules[i].Name; name != "" {
			m.rules = append(m.rules, name)
		}
		for _, b := range r.Spec.Rules[i].BackendRefs {
			key := hostKey(b.ProviderHost, r.Namespace)
			m.anything = m.anything || key == "" && b.ProviderHost != ""
			m.backends, m.written = append(m.backends, key), append(m.written, strings.ToLower(b.ProviderHost))
		}
	}
	return m
}

// hostKey gives one key for all forms of a host that Compile takes for the same: CHAT, chat.ns, chat.ns.svc. Where there is
// no telling what a host stands for, the key is empty.
func hostKey(host, namespace string) string {
	host = strings.ToLower(host)
	odd := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' }
	if host == "" || host[len(host)-1] == '.' || strings.ContainsFunc(host, odd) {
		return ""
	}
	for _, suffix := range []string{".svc.cluster.local", ".svc"} {
		if service, ok := strings.CutSuffix(host, suffix); ok && strings.Count(service, ".") == 1 {
			host = service
			break
		}
	}
	if strings.Count(host, ".") == 1 {
		host = strings.TrimSuffix(host, "."+namespace)
	}
	return host
}
