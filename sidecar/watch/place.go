package watch

import (
	"cmp"

	"remora.dev/remora/sidecar/snapshot"
)

// Place is where the process is, as far as it is known from outside.
type Place struct {
	// Region and Zone are words of the cluster's. Empty: those that the labels of the pod say.
	Region, Zone string
}

// The labels by which Kubernetes says where a node is; since 1.35, it gives them to the pods on it.
const (
	regionLabel = "topology.kubernetes.io/region"
	zoneLabel   = "topology.kubernetes.io/zone"
)

// of gives the place of a pod with these labels.
func (p Place) of(labels map[string]string) Place {
	p.Region, p.Zone = cmp.Or(p.Region, labels[regionLabel]), cmp.Or(p.Zone, labels[zoneLabel])
	return p
}

// locate publishes where the process is.
func (a *API) locate() {
	if a.Members != nil {
		a.Place.of(a.workload().Labels).publish(a.Members)
	}
}

func (p Place) publish(members *snapshot.Members) {
	if region, zone := members.Here(); region != p.Region || zone != p.Zone {
		members.Locate(p.Region, p.Zone)
	}
}
