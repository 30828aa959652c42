package main

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"iter"
	"os"
	"strings"
	"sync"
	"time"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// showIdentity lets the metrics tell whose calls they count, and how long they have to.
func showIdentity(m *metrics.Set, store *snapshot.Store, whose launch.Identity) {
	m.Belong(whose)
	m.Keep(func() iter.Seq[routing.Ref] {
		return func(yield func(routing.Ref) bool) {
			for t := range store.Load().Table.Targets() {
				if !yield(t.Provider) {
					return
				}
			}
		}
	})
	if whose == (launch.Identity{}) {
		return
	}
	m.Info("remora_workload_info", func() []string {
		return []string{"workload", whose.Workload, "service_account", whose.ServiceAccount}
	})
}

// showConfiguration lets the metrics tell which configuration runs, and what keeps it from being the newest.
func showConfiguration(m *metrics.Set, store *snapshot.Store) {
	var mu sync.Mutex
	generation, since := store.Load().Table.Generation(), time.Now()
	store.OnChange(func(s *snapshot.Snapshot) {
		mu.Lock()
		defer mu.Unlock()
		if next := s.Table.Generation(); next != generation { // the same one is published again when an outage begins
			generation, since = next, time.Now()
		}
	})
	m.Info("remora_configuration_info", func() []string {
		return []string{"generation", store.Load().Table.Generation()}
	})
	m.Gauge("remora_configuration_age_seconds", func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return time.Since(since).Seconds()
	})
	m.Gauge("remora_configuration_ready", func() float64 {
		if store.Load().Ready {
			return 1
		}
		return 0
	})
	m.Gauge("remora_api_server_unreachable_seconds", func() float64 {
		if o := store.Load().Outage; o != nil {
			return time.Since(o.Since).Seconds()
		}
		return 0
	})
	m.Gauge("remora_configuration_unread", func() float64 {
		return float64(count(store, func(p *routing.Problem) bool { return p.Code == routing.ConfigurationUnread }))
	})
	m.Gauge("remora_configuration_problems", func() float64 {
		return float64(count(store, func(p *routing.Problem) bool {
			return p.Severity == routing.Invalid && p.Code != routing.ConfigurationUnread
		}))
	})
}

func count(store *snapshot.Store, is func(*routing.Problem) bool) (n int) {
	for _, p := range store.Load().Problems {
		if is(&p) {
			n++
		}
	}
	return n
}

// showToken lets the metrics tell since when and until when the token in a file is good, in seconds since 1970; 0 where there is none
// that says so.
func showToken(m *metrics.Set, file string) {
	m.Gauge("remora_token_issued_timestamp_seconds", func() float64 { return float64(readLife(file).Issued) })
	m.Gauge("remora_token_expiry_timestamp_seconds", func() float64 { return float64(readLife(file).Expires) })
}

// life is when a token is good.
type life struct {
	Issued  int64 `json:"iat"`
	Expires int64 `json:"exp"`
}

// maxToken is more than any token has.
const maxToken = 64 << 10

// readLife reads a token without verifying it, as nobody is let in by it.
func readLife(file string) life {
	f, err := os.Open(file)
	if err != nil {
		return life{}
	}
	defer f.Close()
	token, err := io.ReadAll(io.LimitReader(f, maxToken))
	parts := strings.Split(strings.TrimSpace(string(token)), ".")
	if err != nil || len(parts) != 3 {
		return life{}
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	var l life
	if err != nil || json.Unmarshal(claims, &l) != nil {
		return life{}
	}
	return l
}
