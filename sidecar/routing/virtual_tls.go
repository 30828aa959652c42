package routing

import (
	"fmt"
	"unique"

	"remora.dev/remora/apis/v1beta1"
)

// tlsRoute is a route of a VirtualService for connections that are passed through.
type tlsRoute struct {
	matches  []sniMatch
	backends []virtualBackend
	refusal  *Refusal
}

type sniMatch struct {
	virtualMatch
	hosts []string
}

func (v *virtual) judgeTLSRoute(i int) *tlsRoute {
	from, field := &v.source.Spec.TLS[i], fmt.Sprintf("spec.tls[%d]", i)
	r, shown := &tlsRoute{}, &virtualRoute{field: field}
	if len(from.Match) == 0 {
		v.refuse(shown, field+".match", "is required: name hosts in sniHosts")
	}
	for j := range from.Match {
		m, at := &from.Match[j], fmt.Sprintf("%s.match[%d]", field, j)
		s := sniMatch{virtualMatch: virtualMatch{name: at, port: m.Port, labels: m.SourceLabels, namespace: m.SourceNamespace}}
		s.gateways, s.mesh = gatewayRefs(m.Gateways, v.object.Namespace)
		if len(m.SNIHosts) == 0 {
			v.refuse(shown, at+".sniHosts", "is required: name the hosts")
		}
		for k, written := range m.SNIHosts {
			if host := judgeEdgeHost(&v.findings, fmt.Sprintf("%s.sniHosts[%d]", at, k), written); host != "" {
				s.hosts = append(s.hosts, host)
			}
		}
		if v.source.Remarks.In(at) {
			s.refusal = v.partly(at)
		}
		r.matches = append(r.matches, s)
	}
	total := uint64(0)
	for j := range from.Route {
		d := &from.Route[j]
		b := virtualBackend{destination: d.Destination, field: fmt.Sprintf("%s.route[%d].destination", field, j), weight: uint32(max(d.Weight, 0))}
		v.judgeDestination(shown, b.field, &b.destination)
		if len(from.Route) == 1 {
			b.weight = 1
		}
		total += uint64(b.weight)
		r.backends = append(r.backends, b)
	}
	if total == 0 || len(from.Route) > v1beta1.MaxBackends {
		v.refuse(shown, field+".route", "has no destination with a weight, or more than %d: name one to %d", v1beta1.MaxBackends, v1beta1.MaxBackends)
	}
	r.refusal = shown.refusal
	return r
}

// passThrough adds to a server where a VirtualService has connections go. The first to name a host has it.
func (c *compiler) passThrough(v *virtual, s *gatewayServer, e *EdgeServer, w *where) {
	for i, r := range v.tls {
		var rule *Rule
		for j := range r.matches {
			m := &r.matches[j]
			if !m.possible(w) {
				continue
			}
			if rule == nil {
				rule = &Rule{Owner: v.object, number: i + 1, Timeouts: defaultTimeouts, MaxBody: DefaultMaxBody}
				rule.Levels = []Level{c.virtualLevel(v, r.backends, r.refusal)}
				plain(rule.Levels)
			}
			taken := rule
			if m.refusal != nil {
				taken = &Rule{Owner: v.object, number: i + 1, Levels: []Level{refusing(m.refusal)}}
			}
			for _, host := range m.hosts {
				for _, at := range s.admits(v.object.Namespace, host, s.hosts) {
					if older := e.sni.at(at); !e.sni.put(at, taken) && older.Owner != v.object {
						v.warn(HostConflict, "spec.tls", "%q is passed through by %s already, which is older: this one is not used for it", at, older.Owner)
					}
				}
			}
		}
	}
}

// plain takes TLS off the endpoints of connections that have their own.
func plain(levels []Level) {
	for i := range levels {
		for j := range levels[i].Backends {
			b := &levels[i].Backends[j]
			if b.Target == nil {
				continue
			}
			t, e := *b.Target, b.Target.Endpoint.Value()
			t.Endpoint = unique.Make(Endpoint{Host: e.Host, Port: e.Port})
			b.Target = &t
		}
	}
}
