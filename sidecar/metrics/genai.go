package metrics

import "remora.dev/remora/sidecar/record"

// Observe counts a request that is over. currency is that of its cost.
func (s *Set) Observe(r *record.Record, currency string) {}
