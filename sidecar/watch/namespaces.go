package watch

import (
	"cmp"
	"slices"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// defaultNamespace is where objects are if none of them names a namespace.
const defaultNamespace = "default"

// namespaces says what the namespaces in files are to be taken for.
type namespaces struct {
	own     string // that of the workload
	unnamed string // that of objects that name none
	many    bool   // objects of all namespaces count: the files are those of a gateway
}

// has tells whether an object counts.
func (n *namespaces) has(d *document) bool {
	return n.many || cmp.Or(d.ref.Namespace, n.unnamed) == n.own
}

// chooseNamespaces looks at what the objects name. A sidecar's folder stands for one namespace: the one from before if an object still
// names it, else the first that is named. The kinds that Remora does not have itself are not asked, since files have them for others,
// too. A gateway's folder may have many. Its own is the only one, else that of config/gateway.
func (s *source) chooseNamespaces() namespaces {
	var ours, all []string
	forGateways := false
	for _, f := range s.files {
		for i := range f.docs {
			d := &f.docs[i]
			if !d.ours() {
				continue
			}
			forGateways = forGateways || d.forGateways()
			if d.ref.Namespace == "" {
				continue
			}
			all = append(all, d.ref.Namespace)
			if d.other == nil {
				ours = append(ours, d.ref.Namespace)
			}
		}
	}
	if s.workload != nil && !s.workload.Gateway || s.workload == nil && !forGateways {
		s.namespace = chooseOne(s.namespace, ours)
		return namespaces{own: s.namespace, unnamed: s.namespace}
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) > 1 {
		return namespaces{own: v1beta1.GatewayName, unnamed: defaultNamespace, many: true}
	}
	only := chooseOne("", all)
	return namespaces{own: only, unnamed: only, many: true}
}

// chooseOne gives the namespace from before if it is still named, else the first.
func chooseOne(before string, named []string) string {
	for _, name := range named {
		if name == before {
			return before
		}
	}
	if len(named) == 0 {
		return defaultNamespace
	}
	return named[0]
}

// forGateways tells whether an object is one that only gateways use.
func (d *document) forGateways() bool {
	if d.route == nil {
		return d.ref.Kind == istio.KindGateway && d.other != nil
	}
	for _, g := range d.route.Spec.Gateways {
		if g != v1beta1.GatewayMesh {
			return true
		}
	}
	return false
}
