package snapshot

import (
	"sync"

	"remora.dev/remora/sidecar/routing"
)

// Members is who the servers behind Services and InferencePools are, as the source of configuration knows it. It is apart from the
// Snapshot: servers come and go all the time, and no table need be compiled for that.
type Members struct {
	mu       sync.RWMutex
	all      map[routing.ServersID]routing.Servers
	region   string
	zone     string
	onChange []func(routing.ServersID)
}

// NewMembers makes one that knows nothing.
func NewMembers() *Members { return &Members{all: map[routing.ServersID]routing.Servers{}} }

// Of gives the servers that are ready; known is false where it has not been found out yet who they are. The slice must not be changed.
func (m *Members) Of(id routing.ServersID) (servers routing.Servers, known bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	servers, known = m.all[id]
	return servers, known
}

// Here gives the region and the zone of this process; empty: not known.
func (m *Members) Here() (region, zone string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.region, m.zone
}

// Locate says where this process is.
func (m *Members) Locate(region, zone string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.region, m.zone = region, zone
}

// Publish says who the servers are now.
func (m *Members) Publish(id routing.ServersID, servers routing.Servers) {
	m.mu.Lock()
	m.all[id] = servers
	told := m.onChange
	m.mu.Unlock()
	for _, f := range told {
		f(id)
	}
}

// Withdraw says that it is not known any more who the servers are.
func (m *Members) Withdraw(id routing.ServersID) {
	m.mu.Lock()
	_, known := m.all[id]
	delete(m.all, id)
	told := m.onChange
	m.mu.Unlock()
	if !known {
		return
	}
	for _, f := range told {
		f(id)
	}
}

// Forget drops what nobody asks for any more.
func (m *Members) Forget(unused func(routing.ServersID) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.all {
		if unused(id) {
			delete(m.all, id)
		}
	}
}

// OnChange has f called after each Publish and Withdraw, by its goroutine. It comes before the first Publish.
func (m *Members) OnChange(f func(routing.ServersID)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onChange = append(m.onChange, f)
}
