package balance

import (
	"slices"

	"remora.dev/remora/sidecar/routing"
)

// table is Maglev's: each server fills places in an order of its own, in turns, so that all have as many (Eisenbud et al., 2016).
type table struct {
	size   int // as it was asked for
	places []*Server
}

func (t *table) suits(b *routing.Balance) bool { return b.RingSize <= 0 && b.TableSize == t.size }

func (t *table) with(servers []*Server) hasher {
	size := uint64(prime(max(t.size, len(servers))))
	next := &table{size: t.size, places: make([]*Server, size)}
	type way struct{ at, step uint64 }
	ways := make([]way, len(servers))
	order := slices.Clone(servers)
	slices.SortFunc(order, func(a, b *Server) int { return a.place().compare(b.place()) })
	for i, s := range order {
		h := Hash(s.name())
		ways[i] = way{at: h % size, step: mix(h+1)%(size-1) + 1}
	}
	for filled := uint64(0); ; {
		for i := range ways {
			w := &ways[i]
			for next.places[w.at] != nil {
				w.at = (w.at + w.step) % size
			}
			next.places[w.at] = order[i]
			if filled++; filled == size {
				return next
			}
		}
	}
}

func (t *table) count() int { return len(t.places) }

func (t *table) begin(hash uint64) int { return int(hash % uint64(len(t.places))) }

func (t *table) at(place int) *Server { return t.places[place] }

// prime gives the next prime number, so that every step leads to every place.
func prime(n int) int {
	for n = max(n, 3) | 1; ; n += 2 {
		divisible := false
		for d := 3; d*d <= n && !divisible; d += 2 {
			divisible = n%d == 0
		}
		if !divisible {
			return n
		}
	}
}
