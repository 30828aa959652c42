package routing

import (
	"maps"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

// exports says which other namespaces lose or get an edited provider.
func (e *edit) exports(before, after *Objects) (out []change) {
	was, is := e.exported(before), e.exported(after)
	hosts := maps.Clone(was)
	maps.Copy(hosts, is)
	for host := range hosts {
		if lost := beyond(was[host], is[host], "any"); lost != "" {
			out = append(out, change{rankDanger, hostText(host), "no longer exported to " + lost + ": new pods there pass its calls on untouched, in plain text; running pods refuse them"})
		}
		if got := beyond(is[host], was[host], "every"); got != "" {
			out = append(out, change{rankServed, hostText(host), "exported to " + got + " from now on"})
		}
	}
	return out
}

// exported gives the namespaces that the edited providers of each host are exported to.
func (e *edit) exported(in *Objects) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for i := range in.Providers {
		p := &in.Providers[i]
		if p.Namespace != v1beta1.InstallationNamespace || !e.changed[Ref{v1beta1.KindLLMProvider, p.Namespace, p.Name}] {
			continue
		}
		host := strings.ToLower(p.Spec.Host)
		for _, to := range p.Spec.ExportTo {
			if to == v1beta1.ExportToOwn || string(to) == p.Namespace {
				continue
			}
			if out[host] == nil {
				out[host] = map[string]bool{}
			}
			out[host][string(to)] = true
		}
	}
	return out
}

// beyond words which of some namespaces are not among others; it is empty if none are.
func beyond(some, others map[string]bool, all string) string {
	names := func(of map[string]bool) (out []string) {
		for _, name := range slices.Sorted(maps.Keys(of)) {
			out = append(out, clip(name, 40))
		}
		return out
	}
	switch {
	case others[v1beta1.ExportToAll]:
		return ""
	case some[v1beta1.ExportToAll] && len(others) > 0:
		return all + " namespace but " + listed(names(others))
	case some[v1beta1.ExportToAll]:
		return all + " namespace"
	}
	left := maps.Clone(some)
	maps.DeleteFunc(left, func(name string, _ bool) bool { return others[name] })
	switch len(left) {
	case 0:
		return ""
	case 1:
		return "namespace " + listed(names(left))
	}
	return "namespaces " + listed(names(left))
}
