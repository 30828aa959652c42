package metrics

import (
	"sync"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"
)

// Key counts what became of the requests that one key was sent with. Its series appear as they are needed.
type Key struct {
	set    *metrics.Set
	labels string
	by     [len(outcomes)]atomic.Pointer[metrics.Counter]

	mu      sync.Mutex
	names   []string
	removed bool
}

// outcomes are the values of the label status: those that say something of the key by themselves, the others by class.
var outcomes = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx", "401", "403", "429", "other"}

func outcomeOf(status int) int {
	switch {
	case status == 0:
		return 0
	case status == 401:
		return 6
	case status == 403:
		return 7
	case status == 429:
		return 8
	case status >= 100 && status < 600:
		return status / 100
	}
	return len(outcomes) - 1
}

// Key gives the counters of a key; key is its name, never its value.
func (s *Set) Key(provider, key string) *Key {
	return &Key{set: s.set, labels: "provider=" + quote(provider) + ",key=" + quote(key)}
}

// Answered counts a request by the status of its answer; 0 is none.
func (k *Key) Answered(status int) {
	i := outcomeOf(status)
	n := k.by[i].Load()
	if n == nil {
		n = k.counter("remora_key_requests_total{" + k.labels + `,status="` + outcomes[i] + `"}`)
		k.by[i].Store(n)
	}
	n.Inc()
}

// Rested counts how often the key was left alone for a while.
func (k *Key) Rested() { k.counter("remora_key_rests_total{" + k.labels + "}").Inc() }

// counter gives one that nobody sees where the key has been removed.
func (k *Key) counter(name string) *metrics.Counter {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.removed {
		return new(metrics.Counter)
	}
	k.names = append(k.names, name)
	return k.set.GetOrCreateCounter(name)
}

// Remove takes the series away: keys come and go.
func (k *Key) Remove() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.removed = true
	for _, name := range k.names {
		k.set.UnregisterMetric(name)
	}
	k.names = nil
}
