package balance

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"remora.dev/remora/sidecar/routing"
)

const (
	usualPoints = 1024    // of each server, as long as there are not more than
	mostPoints  = 1 << 17 // in all; then each has half as many, and so on
	leastPoints = 16      // but no fewer than that
)

// newHasher makes what a policy asks for, for nobody yet.
func newHasher(b *routing.Balance) hasher {
	if b.RingSize > 0 || b.TableSize <= 0 {
		return &ring{size: b.RingSize}
	}
	return &table{size: b.TableSize}
}

// ring is points on a circle. A hash belongs to the server of the next point.
type ring struct {
	size   int // that it has at least
	each   int // points of each server
	points []point
	of     map[*Server]struct{}
}

type point struct {
	at uint64
	s  *Server
}

func (r *ring) suits(b *routing.Balance) bool {
	return b.RingSize == r.size && (b.RingSize > 0 || b.TableSize <= 0)
}

// pointsOf gives how many points each of n servers has. Where one comes or goes, the number is mostly the same as before, so that only
// the calls of that one have another server.
func (r *ring) pointsOf(n int) int {
	each := usualPoints
	for each > leastPoints && each*n > mostPoints {
		each /= 2
	}
	if least := (r.size + n - 1) / n; least > each {
		each = 1 << bits.Len(uint(least-1))
	}
	return each
}

func (r *ring) with(servers []*Server) hasher {
	next := &ring{size: r.size, each: r.pointsOf(len(servers)), of: make(map[*Server]struct{}, len(servers))}
	var added []point
	for _, s := range servers {
		next.of[s] = struct{}{}
		if _, old := r.of[s]; !old || r.each != next.each {
			added = s.points(added, next.each)
		}
	}
	slices.SortFunc(added, compare)
	next.points = make([]point, 0, len(servers)*next.each)
	if r.each == next.each {
		for _, p := range r.points {
			if _, stays := next.of[p.s]; stays {
				for len(added) > 0 && compare(added[0], p) < 0 {
					next.points, added = append(next.points, added[0]), added[1:]
				}
				next.points = append(next.points, p)
			}
		}
	}
	next.points = append(next.points, added...)
	return next
}

// compare orders points; which server comes first of two at the same place does not depend on the process.
func compare(a, b point) int {
	return cmp.Or(cmp.Compare(a.at, b.at), a.s.place().compare(b.s.place()))
}

// name is what the hashes of a server are of.
func (s *Server) name() []byte {
	return binary.BigEndian.AppendUint16(append(make([]byte, 0, len(s.Address)+2), s.Address...), s.Port)
}

func (s *Server) points(all []point, n int) []point {
	h := Hash(s.name())
	for i := range n {
		all = append(all, point{mix(h + uint64(i)*0x9e3779b97f4a7c15), s})
	}
	return all
}

func (r *ring) count() int { return len(r.points) }

func (r *ring) begin(hash uint64) int {
	i, _ := slices.BinarySearchFunc(r.points, hash, func(p point, h uint64) int { return cmp.Compare(p.at, h) })
	return i
}

func (r *ring) at(place int) *Server { return r.points[place].s }

// bounded is how much more calls than the average a server may have before those that belong to it go elsewhere.
const bounded = 1.25

// byHash takes the first server in the order of the hash that has not too many calls.
func (p *picker) byHash(tier, among int, forced bool) *Server {
	one := &p.v.sets[tier]
	if one.hash == nil || among == 0 && !p.due {
		return nil
	}
	limit := int64(math.Ceil(bounded*float64(p.g.calls.Load()+1)/float64(max(among, 1)))) + 1
	var first, last *Server
	n := one.hash.count()
	begin, seen := one.hash.begin(p.q.Hash), 0
	for i := 0; i < n && (seen < walked || first == nil); i++ {
		s := one.hash.at((begin + i) % n)
		if s == last {
			continue
		}
		last = s
		seen++
		switch {
		case p.q.tried(s):
		case s.out.Load() && !forced:
			if !p.due {
				continue
			}
			if probed, t := p.g.probe(&p.q, tier, s); probed != nil {
				p.trial = t
				return probed
			}
		case s.calls.Load() < limit:
			return s
		case first == nil:
			first = s
		}
	}
	return first
}

// walked is how many servers are looked at for one that has not too many calls.
const walked = 1 << 12
