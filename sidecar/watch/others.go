package watch

import (
	"cmp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/sidecar/routing"
)

// The kind of objects that only Members are made of.
const sliceKind = "EndpointSlice"

// others gives what has been decoded of the kinds that the cluster and Istio have.
func others(in *routing.Objects) (all []document) {
	for i := range in.Services {
		s := &in.Services[i]
		all = append(all, document{ref: refOf(routing.KindService, s.Namespace, s.Name), other: s})
	}
	for i := range in.InferencePools {
		p := &in.InferencePools[i]
		all = append(all, document{ref: refOf(routing.KindInferencePool, p.Namespace, p.Name), other: p})
	}
	for i := range in.VirtualServices {
		v := &in.VirtualServices[i]
		all = append(all, document{ref: refOf(istio.KindVirtualService, v.Namespace, v.Name), other: v})
	}
	for i := range in.DestinationRules {
		r := &in.DestinationRules[i]
		all = append(all, document{ref: refOf(istio.KindDestinationRule, r.Namespace, r.Name), other: r})
	}
	for i := range in.Gateways {
		g := &in.Gateways[i]
		all = append(all, document{ref: refOf(istio.KindGateway, g.Namespace, g.Name), other: g})
	}
	for i := range in.EndpointSlices {
		s := &in.EndpointSlices[i]
		all = append(all, document{ref: refOf(sliceKind, s.Namespace, s.Name), other: s})
	}
	return all
}

// created gives the creation time of an object of these kinds where it decides anything.
func created(other any) metav1.Time {
	switch o := other.(type) {
	case *istio.VirtualService:
		return o.CreationTimestamp
	case *istio.DestinationRule:
		return o.CreationTimestamp
	case *istio.Gateway:
		return o.CreationTimestamp
	}
	return metav1.Time{}
}

// addOther gives Compile an object of these kinds.
func addOther(in *routing.Objects, other any, namespace string, stamp metav1.Time) {
	switch o := other.(type) {
	case *routing.Service:
		s := *o
		s.Namespace = namespace
		in.Services = append(in.Services, s)
	case *routing.InferencePool:
		p := *o
		p.Namespace = namespace
		in.InferencePools = append(in.InferencePools, p)
	case *istio.VirtualService:
		v := *o
		v.Namespace, v.CreationTimestamp = namespace, stamp
		in.VirtualServices = append(in.VirtualServices, v)
	case *istio.DestinationRule:
		r := *o
		r.Namespace, r.CreationTimestamp = namespace, stamp
		in.DestinationRules = append(in.DestinationRules, r)
	case *istio.Gateway:
		g := *o
		g.Namespace, g.CreationTimestamp = namespace, stamp
		in.Gateways = append(in.Gateways, g)
	}
}

// slices gives the EndpointSlices that are written.
func (s *set) slices() []routing.EndpointSlice {
	var all []routing.EndpointSlice
	for _, c := range s.candidates {
		if slice, ok := c.other.(*routing.EndpointSlice); ok {
			own := *slice
			own.Namespace = c.ref.Namespace
			own.Of.Namespace = cmp.Or(own.Of.Namespace, c.ref.Namespace)
			all = append(all, own)
		}
	}
	return all
}

// knowsServices tells whether what is not there of Services is known not to be. Files that neither have nor need one say nothing of them.
func (s *set) knowsServices(in *routing.Objects) bool {
	n := in.Needs()
	return s.many || n.Services || n.InferencePools
}

// asWritten gives what is written, with each edit that is refused in place of its last good version.
func (s *set) asWritten() routing.Objects {
	plain := *s
	plain.candidates = nil
	for _, c := range s.candidates {
		own := *c
		own.refused = nil
		plain.candidates = append(plain.candidates, &own)
	}
	return plain.input()
}
