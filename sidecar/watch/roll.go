package watch

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

const (
	// serviceNameLabel is how Kubernetes says which Service a slice is of.
	serviceNameLabel = "kubernetes.io/service-name"
	// maxNames is how many Services are named to the API server; where there are more, it tells of all.
	maxNames = 64
	// perServer is how long to wait for more changes for each server that was published, since whoever hears of it looks at all of them.
	perServer = 4 * time.Microsecond
)

// roll knows the EndpointSlices of what is called, and publishes who the servers are. Changes of it compile nothing.
type roll struct {
	api     *API
	roster  roster
	wake    chan struct{}
	covered map[routing.ServersID]bool // whose slices are asked for; of Run's goroutine

	awaited atomic.Bool // by a table that is held back
	moved   atomic.Bool // something was published since it was saved

	publishing sync.Mutex // held by who publishes; it comes before mu

	mu     sync.Mutex
	wanted map[routing.ServersID]struct{}
	owners map[routing.ServersID]bool // of wanted, without ports; true: no more is awaited of those without a slice
	sides  [2]side
	of     map[routing.ServersID]map[types.NamespacedName]*routing.EndpointSlice
	dirty  map[routing.ServersID]bool
}

// Kubernetes and the controller say by different labels what a slice is of, so they are asked for apart.
const (
	sideOfServices = iota
	sideOfController
)

// side is those that one of the two has written.
type side struct {
	feed   *feed // nil: none are asked for
	synced bool
	slices map[types.NamespacedName]*routing.EndpointSlice
}

func newRoll(a *API) *roll {
	return &roll{
		api: a, roster: roster{a.Members}, wake: make(chan struct{}, 1), dirty: map[routing.ServersID]bool{},
		of: map[routing.ServersID]map[types.NamespacedName]*routing.EndpointSlice{},
	}
}

func sideOf(owner routing.ServersID) int {
	if owner.Kind == routing.KindService && owner.Subset == "" {
		return sideOfServices
	}
	return sideOfController
}

// want says which servers may be called from now on. What is new of them is asked for.
func (r *roll) want(ctx context.Context, wanted map[routing.ServersID]struct{}) {
	owners := map[routing.ServersID]bool{}
	r.mu.Lock()
	for id := range wanted {
		owners[owner(id)] = r.owners[owner(id)]
		r.dirty[owner(id)] = true
	}
	r.wanted, r.owners = wanted, owners
	r.mu.Unlock()
	r.signal()
	grown := [2]bool{}
	there := [2]bool{}
	for o := range owners {
		there[sideOf(o)] = true
		if _, covered := r.covered[o]; !covered {
			grown[sideOf(o)] = true
		}
	}
	for i := range r.sides {
		switch {
		case !there[i]:
			r.end(i)
		case grown[i] || r.sides[i].feed == nil:
			r.begin(ctx, i, owners)
		}
	}
	r.covered = maps.Clone(owners)
}

// settle has what has no slice count as without servers from now on: who writes them has had the time to.
func (r *roll) settle() {
	r.mu.Lock()
	for o := range r.owners {
		r.owners[o], r.dirty[o] = true, true
	}
	r.mu.Unlock()
	r.publish()
}

// begin asks for the slices of one side anew.
func (r *roll) begin(ctx context.Context, i int, owners map[routing.ServersID]bool) {
	f := r.api.feed(&sliceFeed)
	f.selector = v1beta1.ServersLabel
	if i == sideOfServices {
		f.selector = selectorOf(owners)
	}
	f.store, f.changed = shelf{r, i, f}, r.api.signal
	r.mu.Lock()
	before := r.sides[i].feed
	r.sides[i].feed, r.sides[i].synced = f, false
	r.mu.Unlock()
	if before != nil {
		before.stop()
	}
	r.api.start(ctx, f)
}

// end forgets the slices of one side.
func (r *roll) end(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.sides[i]
	if s.feed == nil {
		return
	}
	s.feed.stop()
	for name := range s.slices {
		r.put(i, name, nil)
	}
	*s = side{}
}

// selectorOf gives the label selector for the slices of Services.
func selectorOf(owners map[routing.ServersID]bool) string {
	names := map[string]bool{}
	for o := range owners {
		if sideOf(o) == sideOfServices {
			names[o.Name] = true
		}
	}
	if len(names) > maxNames {
		return serviceNameLabel
	}
	return serviceNameLabel + " in (" + strings.Join(slices.Sorted(maps.Keys(names)), ",") + ")"
}

// run publishes until ctx ends.
func (r *roll) run(ctx context.Context) {
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		began := time.Now()
		n := r.publish()
		// Changes that come meanwhile are taken in together. One that comes alone waits for nothing.
		rest.Reset(min(max(minRest, 4*time.Since(began), time.Duration(n)*perServer), maxRest))
		if !await(ctx, rest) {
			return
		}
	}
}

// publish tells what is new since the last time, and gives how many servers that were.
func (r *roll) publish() (servers int) {
	r.publishing.Lock()
	defer r.publishing.Unlock()
	wanted, now := r.news()
	for _, list := range now {
		servers += len(list)
	}
	if !r.roster.publish(wanted, now) {
		return servers
	}
	if !r.moved.Swap(true) && r.api.LastGood != "" || r.awaited.Load() {
		r.api.signal()
	}
	return servers
}

// news gives the servers of what has changed.
func (r *roll) news() (wanted map[routing.ServersID]struct{}, now map[routing.ServersID]routing.Servers) {
	now = map[routing.ServersID]routing.Servers{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for o := range r.dirty {
		settled, isWanted := r.owners[o]
		if isWanted && !r.sides[sideOf(o)].synced {
			continue // what is there may be a part; what was known before holds
		}
		delete(r.dirty, o)
		if !isWanted {
			continue
		}
		maps.Copy(now, routing.ServersOf(slicesOf(r.of[o])))
		// The controller writes slices after that which it writes them for.
		if len(r.of[o]) == 0 && sideOf(o) == sideOfController && !settled {
			continue
		}
		for id := range r.wanted {
			if _, there := now[id]; !there && owner(id) == o {
				now[id] = routing.Servers{}
			}
		}
	}
	return r.wanted, now
}

func slicesOf(all map[types.NamespacedName]*routing.EndpointSlice) []routing.EndpointSlice {
	list := make([]routing.EndpointSlice, 0, len(all))
	for _, s := range all {
		list = append(list, *s)
	}
	return list
}

func (r *roll) signal() {
	select {
	case r.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// put keeps a slice as it is now, in place of what it was before; nil: it is gone.
func (r *roll) put(i int, name types.NamespacedName, slice *routing.EndpointSlice) {
	s := &r.sides[i]
	if before := s.slices[name]; before != nil && (slice == nil || before.Of != slice.Of) {
		r.dirty[before.Of] = true
		delete(r.of[before.Of], name)
		if len(r.of[before.Of]) == 0 {
			delete(r.of, before.Of)
		}
	}
	if slice == nil {
		delete(s.slices, name)
		return
	}
	if s.slices == nil {
		s.slices = map[types.NamespacedName]*routing.EndpointSlice{}
	}
	if r.of[slice.Of] == nil {
		r.of[slice.Of] = map[types.NamespacedName]*routing.EndpointSlice{}
	}
	s.slices[name], r.of[slice.Of][name], r.dirty[slice.Of] = slice, slice, true
}

// states are those of what is followed.
func (r *roll) states() []state {
	if r == nil {
		return nil
	}
	var all []state
	for i := range r.sides {
		if f := r.sides[i].feed; f != nil { // only Run's goroutine changes it
			all = append(all, f.state())
		}
	}
	return all
}
