package routing

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// String gives the form Service/NAMESPACE/NAME:PORT, with the labels of a subset in braces.
func (id ServersID) String() string {
	s := id.Kind + "/" + id.Namespace + "/" + id.Name
	if id.Port != "" {
		s += ":" + id.Port
	}
	if id.Subset != "" {
		s += "{" + id.Subset + "}"
	}
	return s
}

// String gives the policy, and what is other than by default, with commas between.
func (b Balance) String() string {
	parts := []string{b.Policy.String()}
	add := func(show bool, format string, args ...any) {
		if show {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	if b.Policy == ConsistentHash {
		parts = append(parts, b.Hash.String())
		add(b.RingSize != 0 && b.RingSize != DefaultRingSize, "ring=%d", b.RingSize)
		add(b.TableSize != 0, "maglev=%d", b.TableSize)
	}
	s := b.SlowStart
	add(s != SlowStart{}, "warmup=%gs", s.WindowSeconds)
	add(s != SlowStart{} && s.MinPercent != 10, "warmup-from=%g%%", s.MinPercent)
	add(s != SlowStart{} && s.Aggression != 1, "aggression=%g", s.Aggression)
	add(b.Locality.Prefer, "near-first")
	for _, region := range slices.Sorted(maps.Keys(b.Locality.Failover)) {
		parts = append(parts, "failover "+printable(region)+"→"+printable(b.Locality.Failover[region]))
	}
	for _, d := range b.Locality.Distribute {
		to := make([]string, 0, len(d.To))
		for _, name := range slices.Sorted(maps.Keys(d.To)) {
			to = append(to, fmt.Sprintf("%s %d%%", printable(name), d.To[name]))
		}
		parts = append(parts, "from "+printable(d.From)+" to "+strings.Join(to, " and "))
	}
	add(b.MaxEjected != DefaultMaxEjected, "max-ejected=%d%%", b.MaxEjected)
	add(b.MinHealthy != 0, "min-healthy=%d%%", b.MinHealthy)
	return strings.Join(parts, ",")
}

// String says what is hashed.
func (k HashKey) String() string {
	switch {
	case k.Header != "":
		return "header=" + k.Header
	case k.SourceAddr:
		return "source-ip"
	case k.Query != "":
		return fmt.Sprintf("query=%q", k.Query)
	}
	text := "cookie=" + k.Cookie.Name
	if k.Cookie.Path != "" {
		text += " of " + k.Cookie.Path
	}
	if k.Cookie.Set {
		text += fmt.Sprintf(" set for %ds", k.Cookie.MaxAge)
	}
	return text
}
