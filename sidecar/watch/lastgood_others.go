package watch

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// savedOther is an object that the cluster or Istio has.
type savedOther struct {
	Kind   string          `json:"kind"`
	UID    string          `json:"uid,omitempty"`
	Object json.RawMessage `json:"object"`
	// Remarks are not part of Istio's objects, and decide what they do.
	Remarks istio.Remarks `json:"remarks,omitempty"`
}

// savedServers is who the servers of something were.
type savedServers struct {
	ID      routing.ServersID `json:"id"`
	Servers routing.Servers   `json:"servers,omitempty"`
}

// othersOf gives what runs of these kinds.
func othersOf(all *set) (out []*document) {
	for _, c := range all.candidates {
		d := c.document
		if c.refused != nil {
			d = c.before.doc
		}
		if d.other != nil {
			out = append(out, d)
		}
	}
	return out
}

func savedOtherOf(d *document) savedOther {
	o := savedOther{Kind: d.ref.Kind, UID: string(d.uid)}
	o.Object, _ = json.Marshal(d.other) // it was JSON
	if remarks := remarksOf(d.other); remarks != nil {
		o.Remarks = *remarks
	}
	return o
}

// remarksOf gives where the remarks about an object of Istio's are; nil for others.
func remarksOf(other any) *istio.Remarks {
	switch o := other.(type) {
	case *istio.VirtualService:
		return &o.Remarks
	case *istio.DestinationRule:
		return &o.Remarks
	case *istio.Gateway:
		return &o.Remarks
	}
	return nil
}

// document gives what was saved as it was read; false where it does not fit.
func (s *savedOther) document() (document, bool) {
	var in routing.Objects
	var err error
	switch s.Kind {
	case routing.KindService:
		in.Services, err = one[routing.Service](s.Object)
	case routing.KindInferencePool:
		in.InferencePools, err = one[routing.InferencePool](s.Object)
	case istio.KindVirtualService:
		in.VirtualServices, err = one[istio.VirtualService](s.Object)
	case istio.KindDestinationRule:
		in.DestinationRules, err = one[istio.DestinationRule](s.Object)
	case istio.KindGateway:
		in.Gateways, err = one[istio.Gateway](s.Object)
	}
	docs := others(&in)
	if err != nil || len(docs) == 0 {
		return document{}, false
	}
	d := docs[0]
	d.uid = types.UID(s.UID)
	if remarks := remarksOf(d.other); remarks != nil {
		*remarks = s.Remarks
	}
	return d, true
}

func one[T any](text []byte) ([]T, error) {
	all := make([]T, 1)
	return all, json.Unmarshal(text, &all[0])
}

// addServers has it be saved who the servers are.
func (s *saved) addServers(members *snapshot.Members, ids map[routing.ServersID]struct{}) {
	for id := range ids {
		if servers, known := members.Of(id); known {
			s.Servers = append(s.Servers, savedServers{id, servers})
		}
	}
}

// enrol publishes who the servers were, as far as nobody has said since who they are.
func (s *saved) enrol(members *snapshot.Members) {
	if members == nil {
		return
	}
	for _, one := range s.Servers {
		if _, known := members.Of(one.ID); !known {
			members.Publish(one.ID, one.Servers)
		}
	}
}
