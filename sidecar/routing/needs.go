package routing

import "remora.dev/remora/apis/v1beta1"

// Needs says what of the cluster a sidecar's configuration speaks of, so that nothing else is followed.
type Needs struct {
	// Services are needed: with them goes what Istio's objects say of their calls, and who their servers are.
	Services bool
	// InferencePools are needed.
	InferencePools bool
}

// Needs gives what Compile would look at, whether it is there or not.
func (o *Objects) Needs() Needs {
	var n Needs
	for i := range o.Providers {
		if p := o.Providers[i].Spec.TrafficPolicy; p != nil && p.LoadBalancer != nil {
			n.Services = true
		}
	}
	for i := range o.Routes {
		for j := range o.Routes[i].Spec.Rules {
			refs := o.Routes[i].Spec.Rules[j].BackendRefs
			for k := range refs {
				n.add(refs[k].BackendRef)
			}
		}
	}
	return n
}

func (n *Needs) add(ref *v1beta1.BackendObjectReference) {
	switch {
	case ref == nil:
	case destinationOf(ref, "").kind == KindInferencePool:
		n.InferencePools = true
		n.Services = true // with them come the DestinationRules, which say how pools are called, too
	default:
		n.Services = true
	}
}
