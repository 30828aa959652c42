package routing

import (
	"fmt"
	"slices"
	"strings"

	"remora.dev/remora/apis/istio"
)

// locality compiles which servers are near.
func (b *Balance) locality(say critic, field string, l *istio.LocalityLbSetting) {
	if l == nil || l.Enabled != nil && !*l.Enabled {
		return
	}
	if len(l.Distribute) > 0 {
		if len(l.Failover)+len(l.FailoverPriority) > 0 {
			say.wrong(field, "gives distribute and failover: keep one of them; distribute is used")
		}
		for i := range l.Distribute {
			if shares, ok := sharesFrom(say, fmt.Sprintf("%s.distribute[%d]", field, i), &l.Distribute[i]); ok {
				b.Locality.Distribute = append(b.Locality.Distribute, shares)
			}
		}
		return
	}
	b.Locality.Prefer = true
	for i, f := range l.Failover {
		at := fmt.Sprintf("%s.failover[%d]", field, i)
		switch {
		case f.From == "" || f.To == "" || strings.ContainsAny(f.From+f.To, "/*"):
			say.wrong(at, "names regions only, without zones and *: write from and to, such as us-east and us-west")
		case b.Locality.Failover[f.From] != "":
			say.wrong(at, "%s has a region already that helps out: keep one", quoted(f.From))
		default:
			if b.Locality.Failover == nil {
				b.Locality.Failover = map[string]string{}
			}
			b.Locality.Failover[f.From] = f.To
		}
	}
	for i, label := range l.FailoverPriority {
		if !slices.Contains([]string{"topology.kubernetes.io/region", "topology.kubernetes.io/zone"}, label) {
			say.note(FieldNotHonoured, fmt.Sprintf("%s.failoverPriority[%d]", field, i), "is not honoured: of the labels of nodes, topology.kubernetes.io/region and topology.kubernetes.io/zone are known")
		}
	}
}

func sharesFrom(say critic, field string, d *istio.LocalityShare) (LocalityShares, bool) {
	from, ok := localityName(d.From)
	if !ok {
		say.wrong(field+".from", "%s is not a locality: write REGION, REGION/ZONE or REGION/*; sub-zones are not known", quoted(d.From))
		return LocalityShares{}, false
	}
	out, total := LocalityShares{From: from, To: map[string]int32{}}, uint64(0)
	for name, percent := range d.To {
		to, ok := localityName(name)
		if !ok || percent > 100 {
			say.wrong(field+".to", "%s is not a locality with a share of 0 to 100: write REGION, REGION/ZONE or REGION/*; sub-zones are not known", quoted(name))
			return LocalityShares{}, false
		}
		out.To[to] += int32(percent)
		total += uint64(percent)
	}
	if total != 100 {
		say.wrong(field+".to", "has %d percent in all: give 100", total)
		return LocalityShares{}, false
	}
	return out, true
}

// localityName brings a locality into the form REGION/ZONE, where * is any, or REGION. There are no sub-zones.
func localityName(s string) (string, bool) {
	parts := strings.Split(s, "/")
	if len(parts) == 3 && parts[2] == "*" {
		parts = parts[:2]
	}
	if len(parts) > 2 || slices.Contains(parts, "") || len(s) > 256 {
		return "", false
	}
	return strings.Join(parts, "/"), true
}
