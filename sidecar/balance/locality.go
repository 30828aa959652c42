package balance

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"remora.dev/remora/sidecar/routing"
)

// spill is how much more than its share the servers of a set can bear: a set passes calls on once less than 1/spill of it is able.
const spill = 1.4

// placing says which servers are near, as its group sees them.
type placing struct {
	prefer       bool
	region, zone string
	failover     string // the region that helps out first
	hinted       bool   // the cluster says for which zones a server is
	to           []share
}

// share is that of a locality.
type share struct {
	locality string
	part     float64
}

// The tiers where near servers are preferred.
const (
	ownZone = iota
	ownRegion
	helpingRegion
	anywhere
	ending // servers that are about to end, which are the last wherever they are
)

func (g *Group) placing() placing {
	p := placing{region: g.region, zone: g.zone}
	switch l := &g.balance.Locality; {
	case len(l.Distribute) > 0:
		for _, from := range l.Distribute {
			if within(&routing.Server{Region: g.region, Zone: g.zone}, from.From) {
				for _, to := range slices.SortedFunc(maps.Keys(from.To), narrower) {
					p.to = append(p.to, share{to, float64(from.To[to])})
				}
				break
			}
		}
	case l.Prefer:
		p.prefer, p.failover = true, l.Failover[g.region]
	default:
		p.hinted = g.zone != "" && !slices.ContainsFunc(g.servers, func(s *Server) bool { return len(s.about.ForZones) == 0 })
	}
	return p
}

// tiers gives how many sets there are.
func (p *placing) tiers() int {
	switch {
	case p.prefer:
		return ending + 1
	case p.to != nil:
		return len(p.to) + 2
	}
	return 3
}

// of gives the tier of a server.
func (p *placing) of(s *routing.Server) int {
	switch {
	case s.Draining:
		return p.tiers() - 1
	case p.to != nil:
		for i := range p.to {
			if within(s, p.to[i].locality) {
				return i
			}
		}
		return len(p.to)
	case p.prefer && p.zone != "" && s.Zone == p.zone && (s.Region == p.region || s.Region == "" || p.region == ""):
		return ownZone
	case p.prefer && isOf(s, p.region):
		return ownRegion
	case p.prefer && isOf(s, p.failover):
		return helpingRegion
	case p.prefer:
		return anywhere
	case p.hinted && !slices.Contains(s.ForZones, p.zone):
		return 1
	}
	return 0
}

// shares gives up to which share of the calls begin at each set: the far ones get what the near ones cannot bear.
func (p *placing) shares(sets []set) []float64 {
	upTo := make([]float64, len(sets))
	total, single := 0.0, 0
	for i := range sets[:len(sets)-1] {
		one := &sets[i]
		if len(one.able) == 0 {
			continue
		}
		bears := min(spill*float64(len(one.able))/float64(len(one.all)), 1)
		switch {
		case p.to == nil:
			upTo[i] = min(bears, 1-total)
		case i < len(p.to):
			upTo[i] = bears * p.to[i].part
		}
		if upTo[i] > 0 {
			total += upTo[i]
			single++
		}
	}
	if single == 0 || single == 1 && upTo[0] > 0 {
		return nil // all begin at the first that there is
	}
	sum := 0.0
	for i := range upTo {
		sum += upTo[i] / total
		upTo[i] = sum
	}
	return upTo
}

// isOf tells whether a server is of a region. EndpointSlices tell only zones; the name of a zone begins with that of its region (us-east-1
// and us-east-1a, cn-hangzhou and cn-hangzhou-h).
func isOf(s *routing.Server, region string) bool {
	return region != "" && (s.Region == region || s.Region == "" && strings.HasPrefix(s.Zone, region))
}

// within tells whether a place is in a locality: REGION/ZONE, with * for any, or REGION.
func within(s *routing.Server, locality string) bool {
	region, rest, _ := strings.Cut(locality, "/")
	zone, _, _ := strings.Cut(rest, "/")
	return (region == "*" || isOf(s, region)) && (zone == "" || zone == "*" || zone == s.Zone)
}

// narrower orders localities so that the narrower comes first.
func narrower(a, b string) int {
	width := func(l string) int {
		region, zone, _ := strings.Cut(l, "/")
		w := 0
		if region == "*" {
			w += 2
		}
		if zone == "" || strings.HasPrefix(zone, "*") {
			w++
		}
		return w
	}
	return cmp.Or(cmp.Compare(width(a), width(b)), cmp.Compare(a, b))
}
