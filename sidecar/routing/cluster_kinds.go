package routing

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// PoolGroup is the API group of InferencePools, and PoolVersion the version that is read.
const (
	PoolGroup   = "inference.networking.k8s.io"
	PoolVersion = "v1"
)

// clusterObject is what is read of the cluster's own kinds. An API server has judged them; what is wrong in a file is left out.
type clusterObject struct {
	Metadata struct {
		Annotations map[string]string `json:"annotations"`
		Labels      map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		Type         string `json:"type"`
		ClusterIP    string `json:"clusterIP"`
		ExternalName string `json:"externalName"`
		Ports        []struct {
			Name        string `json:"name"`
			Port        int64  `json:"port"`
			Protocol    string `json:"protocol"`
			AppProtocol string `json:"appProtocol"`
		} `json:"ports"`
		Selector struct {
			MatchLabels map[string]string `json:"matchLabels"`
		} `json:"selector"`
		TargetPorts []struct {
			Number int64 `json:"number"`
		} `json:"targetPorts"`
	} `json:"spec"`
}

func readCluster(top map[string]any) *clusterObject {
	var l lenient
	spec, _ := top["spec"].(map[string]any)
	if spec == nil {
		spec = map[string]any{}
	}
	metadata, _ := top["metadata"].(map[string]any)
	fitting, _ := l.fit(map[string]any{"metadata": map[string]any{"annotations": orEmpty(metadata["annotations"])}, "spec": spec}, reflect.TypeFor[clusterObject](), "")
	text, err := json.Marshal(fitting)
	out := &clusterObject{}
	if err != nil || json.Unmarshal(text, out) != nil {
		return &clusterObject{} // cannot be: it fits
	}
	return out
}

func orEmpty(v any) any {
	if v == nil {
		return map[string]any{}
	}
	return v
}

func portNumber(n int64) (uint16, bool) { return uint16(n), 1 <= n && n <= 65535 }

func decodeService(top map[string]any, ref Ref) Service {
	o := readCluster(top)
	s := Service{Namespace: ref.Namespace, Name: ref.Name, Headless: o.Spec.ClusterIP == "None"}
	if o.Spec.Type == "ExternalName" {
		s.ExternalName = strings.ToLower(strings.TrimSuffix(o.Spec.ExternalName, "."))
	}
	for _, p := range o.Spec.Ports {
		if n, ok := portNumber(p.Port); ok && (p.Protocol == "" || p.Protocol == "TCP") {
			s.Ports = append(s.Ports, ServicePort{Name: p.Name, Number: n, AppProtocol: p.AppProtocol})
		}
	}
	if text, given := o.Metadata.Annotations[istio.ExportToAnnotation]; given {
		s.ExportTo = []string{}
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				s.ExportTo = append(s.ExportTo, part)
			}
		}
	}
	return s
}

func decodePool(top map[string]any, ref Ref) InferencePool {
	o := readCluster(top)
	p := InferencePool{Namespace: ref.Namespace, Name: ref.Name, Selector: o.Spec.Selector.MatchLabels}
	for _, port := range o.Spec.TargetPorts {
		if n, ok := portNumber(port.Number); ok && !slices.Contains(p.TargetPorts, n) {
			p.TargetPorts = append(p.TargetPorts, n)
		}
	}
	return p
}

// DecodeEndpointSlice reads an EndpointSlice (discovery.k8s.io/v1), in JSON or YAML. What belongs to no Service and to nothing of the
// controller's has the zero Of. The error wraps ErrNotAnObject.
func DecodeEndpointSlice(doc []byte, namespace string) (EndpointSlice, error) {
	if len(doc) == 0 || doc[0] != '{' {
		tree, _, err := parse(doc)
		if err != nil {
			return EndpointSlice{}, err
		}
		if doc, err = json.Marshal(tree); err != nil {
			return EndpointSlice{}, fmt.Errorf("%w: it cannot be read", ErrNotAnObject)
		}
	}
	var o struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Namespace, Name     string
			Labels, Annotations map[string]string
		} `json:"metadata"`
		Ports []struct {
			Name     *string `json:"name"`
			Port     *int64  `json:"port"`
			Protocol *string `json:"protocol"`
		} `json:"ports"`
		Endpoints []struct {
			Addresses  []string `json:"addresses"`
			Conditions struct {
				Ready       *bool `json:"ready"`
				Serving     *bool `json:"serving"`
				Terminating *bool `json:"terminating"`
			} `json:"conditions"`
			NodeName *string `json:"nodeName"`
			Zone     *string `json:"zone"`
			Hints    *struct {
				ForZones []struct {
					Name string `json:"name"`
				} `json:"forZones"`
			} `json:"hints"`
		} `json:"endpoints"`
	}
	if err := json.Unmarshal(doc, &o); err != nil || o.Metadata.Name == "" {
		return EndpointSlice{}, fmt.Errorf("%w: it is no EndpointSlice of discovery.k8s.io/v1: write metadata.name, and ports and endpoints as that kind has them", ErrNotAnObject)
	}
	s := EndpointSlice{Namespace: o.Metadata.Namespace, Name: o.Metadata.Name}
	if s.Namespace == "" {
		s.Namespace = namespace
	}
	s.Of = serversOf(s.Namespace, o.Metadata.Labels, o.Metadata.Annotations)
	for _, p := range o.Ports {
		if p.Protocol != nil && *p.Protocol != "TCP" && *p.Protocol != "" || p.Port == nil {
			continue
		}
		if n, ok := portNumber(*p.Port); ok {
			s.Ports = append(s.Ports, SlicePort{Name: valueOf(p.Name), Number: n})
		}
	}
	for i := range o.Endpoints {
		e := &o.Endpoints[i]
		out := SliceEndpoint{Addresses: e.Addresses, Ready: true, Zone: valueOf(e.Zone), Node: valueOf(e.NodeName)}
		if e.Conditions.Ready != nil {
			out.Ready = *e.Conditions.Ready
		}
		out.Serving, out.Terminating = out.Ready, valueOf(e.Conditions.Terminating)
		if e.Conditions.Serving != nil {
			out.Serving = *e.Conditions.Serving
		}
		if e.Hints != nil {
			for _, z := range e.Hints.ForZones {
				out.ForZones = append(out.ForZones, z.Name)
			}
			slices.Sort(out.ForZones)
		}
		s.Endpoints = append(s.Endpoints, out)
	}
	return s, nil
}

func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// serversOf says what the endpoints of a slice belong to.
func serversOf(namespace string, labels, annotations map[string]string) ServersID {
	name := annotations[v1beta1.ServersOf]
	switch labels[v1beta1.ServersLabel] {
	case v1beta1.ServersOfPool:
		return ServersID{Kind: KindInferencePool, Namespace: namespace, Name: name}
	case v1beta1.ServersOfSubset:
		return ServersID{Kind: KindService, Namespace: namespace, Name: name, Subset: annotations[v1beta1.ServersSubset]}
	}
	if name = labels["kubernetes.io/service-name"]; name == "" {
		return ServersID{}
	}
	return ServersID{Kind: KindService, Namespace: namespace, Name: name}
}

// ServersOf gives the servers of all that the slices belong to, by port. A pool's are there once for each of its ports, and once with
// an empty one for all. What has slices, but no server that takes calls, is there with none.
func ServersOf(all []EndpointSlice) map[ServersID]Servers {
	out := map[ServersID]Servers{}
	for i := range all {
		s := &all[i]
		if s.Of == (ServersID{}) {
			continue
		}
		for _, port := range s.Ports {
			if port.Number == 0 {
				continue
			}
			id := s.Of
			id.Port = port.Name
			out[id] = appendServers(out[id], s, port.Number)
			if id.Kind == KindInferencePool && id.Port != "" {
				id.Port = ""
				out[id] = appendServers(out[id], s, port.Number)
			}
		}
	}
	for id, servers := range out {
		out[id] = settled(servers)
	}
	return out
}

func appendServers(to Servers, s *EndpointSlice, port uint16) Servers {
	if to == nil {
		to = Servers{}
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		draining := e.Terminating && (e.Serving || e.Ready)
		if !e.Ready && !draining || len(e.Addresses) == 0 || !isAddress(e.Addresses[0]) {
			continue
		}
		// All addresses of an endpoint are the same server.
		to = append(to, Server{Address: e.Addresses[0], Port: port, Draining: draining, Zone: e.Zone, Node: e.Node, ForZones: e.ForZones})
	}
	return to
}

func isAddress(a string) bool {
	if ip, err := netip.ParseAddr(a); err == nil {
		return !ip.IsUnspecified() && !ip.IsMulticast() && ip.Zone() == ""
	}
	return len(validation.IsDNS1123Subdomain(a)) == 0
}

// settled brings servers into their order, each once, and in one family of addresses: with both, every pod is there twice.
func settled(servers Servers) Servers {
	if slices.ContainsFunc(servers, func(s Server) bool { return !isIPv6(s.Address) }) {
		servers = slices.DeleteFunc(servers, func(s Server) bool { return isIPv6(s.Address) })
	}
	slices.SortFunc(servers, compareServers)
	// While an endpoint moves from one slice to another it may be in both: then it is draining only if it is in both.
	return slices.CompactFunc(servers, func(a, b Server) bool { return a.Address == b.Address && a.Port == b.Port })
}

func isIPv6(address string) bool { return strings.Contains(address, ":") }

func compareServers(a, b Server) int {
	order := cmp.Or(strings.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
	switch {
	case order != 0 || a.Draining == b.Draining:
		return order
	case b.Draining:
		return -1
	}
	return 1
}
