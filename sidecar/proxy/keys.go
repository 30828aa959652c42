package proxy

import (
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// keyring knows the keys of the table of the moment, which is a later one than that of calls that have waited: what they
// are, which of them rest, and whose answers are under way. A call finds its key without a lock.
type keyring struct {
	store   *snapshot.Store
	log     logr.Logger
	metrics *metrics.Set
	now     func() time.Time

	table atomic.Pointer[tableKeys]
	mu    sync.Mutex                         // of who makes another
	gone  map[routing.CredentialID]*namedKey // not in the table, with answers under way

	rests rests
}

// tableKeys is the keys of one table. It does not change once it is made.
type tableKeys struct {
	table *routing.Table
	all   map[routing.CredentialID]*namedKey
}

// namedKey is a key by its name. Its value changes, and it may be taken away and come back.
type namedKey struct {
	id      routing.CredentialID
	keys    *keyring
	counted *metrics.Key

	mu      sync.Mutex               // of who changes what follows
	current atomic.Pointer[keyValue] // nil: it was taken away
	since   time.Time                // when it was
	flights *upConn                  // those it was sent on whose answers are under way
	cutting *time.Timer
	// revokedFor is what the last table that had the key says: whoever wants answers cut can still say so before taking it away.
	revokedFor time.Duration
}

// keyValue is what a key is for a time.
type keyValue struct {
	key      routing.Key
	endpoint unique.Handle[routing.Endpoint] // of its provider
	mask     mask
	rest     *rest
}

func newKeyring(store *snapshot.Store, log logr.Logger, m *metrics.Set) *keyring {
	k := &keyring{store: store, log: log, metrics: m, now: time.Now, gone: map[routing.CredentialID]*namedKey{}}
	k.table.Store(&tableKeys{})
	m.Gauge("remora_resting_keys", func() float64 { return float64(k.countResting()) })
	return k
}

// current gives the keys of the table of the moment.
func (k *keyring) current() *tableKeys {
	r := k.table.Load()
	if r.table == k.store.Load().Table {
		return r
	}
	return k.adopt()
}

// adopt takes in the table of the moment.
func (k *keyring) adopt() *tableKeys {
	k.mu.Lock()
	defer k.mu.Unlock()
	table, before := k.store.Load().Table, k.table.Load()
	if before.table == table {
		return before
	}
	next := &tableKeys{table, make(map[routing.CredentialID]*namedKey, len(before.all))}
	targets := map[routing.Ref]*routing.Target{}
	for t := range table.Targets() {
		targets[t.Provider] = t
	}
	for id, key := range table.Credentials() {
		c := before.all[id]
		if c == nil {
			c = k.gone[id]
			delete(k.gone, id)
		}
		if c == nil {
			c = &namedKey{id: id, keys: k, counted: k.metrics.Key(id.Provider.Path(), id.Name), revokedFor: -1}
		}
		c.set(key, targets[id.Provider])
		next.all[id] = c
	}
	k.table.Store(next)
	for id, c := range before.all {
		if next.all[id] != nil {
			continue
		}
		if c.revoke() > 0 {
			k.gone[id] = c
		} else {
			c.counted.Remove()
		}
	}
	return next
}

// forget lets go of a key that was taken away once nothing is under way with it.
func (k *keyring) forget(c *namedKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.gone[c.id] == c && c.flights == nil {
		delete(k.gone, c.id)
		c.counted.Remove()
		c.spare()
	}
}

func credentialID(t *routing.Target, i int) routing.CredentialID {
	return routing.CredentialID{Provider: t.Provider, Name: t.Keys[i].Name}
}

// set gives the key the value that it has now, and a target of its provider: nil where none uses it. One that was taken away
// is back: nothing is cut any more.
func (c *namedKey) set(key routing.Key, t *routing.Target) {
	was := c.current.Load()
	var endpoint unique.Handle[routing.Endpoint]
	if t != nil {
		endpoint = t.Endpoint
		c.mu.Lock()
		c.revokedFor = t.RevokedFor
		c.mu.Unlock()
	}
	if was != nil && was.key == key && was.endpoint == endpoint {
		return
	}
	v := &keyValue{key, endpoint, newMask(key), &rest{}}
	if was != nil && was.key == key {
		v.rest = was.rest
	} else if was != nil {
		c.keys.rests.forget(was.rest)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current.Store(v)
	c.spare()
}

// usable gives the value of a key of a target. A value that the target did not have goes only where the table of the
// moment sends it: the provider may have moved.
func (c *namedKey) usable(t *routing.Target, i int) *keyValue {
	v := c.current.Load()
	if v == nil || v.key != t.Keys[i].Key && v.endpoint != t.Endpoint {
		return nil
	}
	return v
}
