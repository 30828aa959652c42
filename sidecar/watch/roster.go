package watch

import (
	"slices"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// roster publishes who the servers are: only those that may be called, and each only where it has changed.
type roster struct{ members *snapshot.Members }

// publish says who the servers are now, as far as they are wanted, and tells whether that was any news.
func (r roster) publish(wanted map[routing.ServersID]struct{}, now map[routing.ServersID]routing.Servers) (news bool) {
	for id, servers := range now {
		if _, ok := wanted[id]; !ok {
			continue
		}
		if before, known := r.members.Of(id); !known || !sameServers(before, servers) {
			r.members.Publish(id, servers)
			news = true
		}
	}
	return news
}

func sameServers(a, b routing.Servers) bool { return slices.EqualFunc(a, b, sameServer) }

func sameServer(a, b routing.Server) bool {
	return a.Address == b.Address && a.Port == b.Port && a.Draining == b.Draining && a.Region == b.Region && a.Zone == b.Zone &&
		a.Node == b.Node && slices.Equal(a.ForZones, b.ForZones)
}

// owner is what servers belong to: a ServersID of any port.
func owner(id routing.ServersID) routing.ServersID {
	id.Port = ""
	return id
}

// keep has the servers that nothing wants any more be forgotten.
func (r roster) keep(wanted map[routing.ServersID]struct{}) {
	r.members.Forget(func(id routing.ServersID) bool {
		_, ok := wanted[id]
		return !ok
	})
}
