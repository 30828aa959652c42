package balance

import (
	"fmt"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

var hashes = map[string]routing.Balance{
	"ring":   {Policy: routing.ConsistentHash, RingSize: routing.DefaultRingSize},
	"Maglev": {Policy: routing.ConsistentHash, TableSize: routing.DefaultTableSize},
}

func keyed(i int) func(*Query) {
	return func(q *Query) { q.Hashed, q.Hash = true, Hash(fmt.Sprintf("user-%d", i)) }
}

// owners gives whom each of n keys belongs to.
func (r *rig) owners(n int) []string {
	all := make([]string, n)
	for i := range all {
		c := r.pick(keyed(i))
		all[i] = c.Server().Address
		c.End()
	}
	return all
}

func TestKeysAreSpreadAndStayWhereTheyAre(t *testing.T) {
	const keys = 20000
	for name, b := range hashes {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1, 3, 4, 10, 100, 1000} {
				r := newRig(t, b, some(n))
				before := r.owners(keys)
				count := map[string]int{}
				for _, s := range before {
					count[s]++
				}
				for s, got := range count {
					if share := float64(got) * float64(n) / keys; n <= 10 && (share < 0.8 || share > 1.2) {
						t.Errorf("%s of %d has %.2f of its share", s, n, share)
					}
				}
				other := newRig(t, b, some(n)).owners(keys)
				r.Update(some(n+1), r.now)
				added := r.owners(keys)
				r.Update(some(n), r.now)
				again := r.owners(keys)
				moved, strayed := 0, 0
				for i := range before {
					if before[i] != other[i] || before[i] != again[i] {
						t.Fatalf("key %d is at %s, %s and %s", i, before[i], other[i], again[i])
					}
					if before[i] != added[i] {
						if moved++; added[i] != some(n + 1)[n].Address {
							strayed++
						}
					}
				}
				if most := keys * 14 / 10 / (n + 1); moved > most+keys/100 {
					t.Errorf("a server beside %d took %d of %d keys, %d would be its share", n, moved, keys, keys/(n+1))
				}
				if name == "ring" && strayed > 0 {
					t.Errorf("%d keys went from one old server of %d to another", strayed, n)
				}
			}
		})
	}
}

func TestNoServerHasFarMoreCallsThanTheOthersHoweverAlikeTheyAre(t *testing.T) {
	for name, b := range hashes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, b, some(10))
			for i := range 1000 {
				c := r.pick(keyed(0))
				if limit := int64(1.25*float64(i+1)/10) + 2; c.Server().Calls() > limit {
					t.Fatalf("%s has %d of %d calls", c.Server().Address, c.Server().Calls(), i+1)
				}
			}
		})
	}
}

func TestAServerThatIsLeftAloneGivesItsKeysAwayAndGetsThemBack(t *testing.T) {
	for name, b := range hashes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, b, some(5))
			before := r.owners(500)
			bad := r.pick(keyed(0))
			gone := bad.Server().Address
			if bad.Failed(Refused, r.now) == 0 {
				t.Fatal("it is not left alone")
			}
			bad.End()
			for i, s := range r.owners(500) {
				if s == gone || before[i] != gone && s != before[i] {
					t.Fatalf("key %d went from %s to %s", i, before[i], s)
				}
			}
			r.now = r.now.Add(firstRefused)
			probe := r.pick(keyed(0))
			if probe.Server().Address != gone || !probe.Probe() {
				t.Fatalf("its first key goes to %s", probe.Server().Address)
			}
			other := r.pick(keyed(0))
			if other.Server().Address == gone {
				t.Error("there are two probes")
			}
			other.End()
			probe.Completed()
			probe.End()
			for i, s := range r.owners(500) {
				if s != before[i] {
					t.Fatalf("key %d is at %s, and was at %s", i, s, before[i])
				}
			}
			r.idle()
		})
	}
}

func TestCallsThatHaveNothingInCommonAreSpreadByChance(t *testing.T) {
	for name, b := range hashes {
		t.Run(name, func(t *testing.T) {
			spread(t, newRig(t, b, some(5)).counts(5000), 5, 5000)
		})
	}
}

func TestARingHasAsManyPointsAsItMustAndNotMany(t *testing.T) {
	for _, c := range []struct{ size, servers, each int }{
		{1024, 1, 1024}, {1024, 3, 1024}, {1024, 128, 1024}, {1024, 129, 512}, {1024, 10000, 16}, {1 << 20, 4, 1 << 18}, {1 << 20, 3, 1 << 19}, {0, 5, 1024},
	} {
		if got := (&ring{size: c.size}).pointsOf(c.servers); got != c.each {
			t.Errorf("%d points for %d servers: each has %d, want %d", c.size, c.servers, got, c.each)
		}
	}
}

func TestTheSizeOfATableNeedNotBePrime(t *testing.T) {
	for _, size := range []int{1, 2, 4, 100, 65536} {
		r := newRig(t, routing.Balance{Policy: routing.ConsistentHash, TableSize: size}, some(7))
		used := map[string]bool{}
		for _, s := range r.owners(1000) {
			used[s] = true
		}
		if len(used) != 7 {
			t.Errorf("with a table of %d, %d of 7 servers have keys", size, len(used))
		}
	}
}
