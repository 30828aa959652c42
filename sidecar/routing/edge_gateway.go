package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// gateway is an Istio Gateway.
type gateway struct {
	findings
	age     int64
	source  *istio.Gateway
	servers []*gatewayServer
	used    bool // it selects the workload that is compiled for
}

// gatewayServer is one of its servers, as far as it can be opened at all.
type gatewayServer struct {
	of          *gateway
	field       string // spec.servers[N]
	name        string
	port        uint16
	tls         bool // connections begin with it
	passthrough bool
	hosts       []gatewayHost
	settings    *istio.ServerTLSSettings // nil: none
	refusal     *Refusal                 // why it serves nobody; its certificates are not looked at
}

// gatewayHost is a host of a server, with the namespace whose VirtualServices may have it; empty: any.
type gatewayHost struct{ namespace, host string }

// ownPorts are those of Remora itself: of redirected connections, of metrics and probes, of the terminal.
var ownPorts = []int64{14001, 14020, 14021}

// judgeGateways looks at every Istio Gateway by itself, the oldest first.
func (c *compiler) judgeGateways() {
	seen := map[Ref]bool{}
	for i := range c.in.Gateways {
		g := &c.in.Gateways[i]
		o := &gateway{findings: findings{object: Ref{istio.KindGateway, g.Namespace, g.Name}}, age: g.CreationTimestamp.Unix(), source: g}
		if seen[o.object] {
			continue
		}
		seen[o.object] = true
		warnRemarks(&o.findings, g.Remarks)
		for j := range g.Spec.Servers {
			if s := o.server(j); s != nil {
				o.servers = append(o.servers, s)
			}
		}
		c.gateways = append(c.gateways, o)
	}
	slices.SortFunc(c.gateways, func(a, b *gateway) int {
		return cmp.Or(cmp.Compare(a.age, b.age), compareRefs(a.object, b.object))
	})
}

// server judges a server; nil where its port is not opened.
func (o *gateway) server(i int) *gatewayServer {
	from := &o.source.Spec.Servers[i]
	s := &gatewayServer{of: o, field: fmt.Sprintf("spec.servers[%d]", i), name: cmp.Or(from.Name, from.Port.Name, fmt.Sprint(i+1)), settings: from.TLS}
	if o.source.Remarks.In(s.field + ".port") {
		if from.Port.Number == 0 {
			return nil // it was remarked upon
		}
	}
	if n := from.Port.Number; n < 1 || n > 65535 {
		o.invalid(InvalidValue, s.field+".port.number", "%d is not a port: use 1 to 65535", n)
		return nil
	} else if slices.Contains(ownPorts, n) {
		o.invalid(PortConflict, s.field+".port.number", "%d is a port of the gateway itself: use another one", n)
		return nil
	}
	s.port = uint16(from.Port.Number)
	s.judgeHosts(from.Hosts)
	if len(s.hosts) == 0 {
		return nil
	}
	if !s.judgeProtocol(from) {
		return nil
	}
	switch from.Bind {
	case "", "0.0.0.0", "::":
	default:
		o.warn(FieldNotHonoured, s.field+".bind", "is not honoured, and so that no more clients reach the server than are meant to, nothing is opened for it: remove bind")
		return nil
	}
	return s
}

func (s *gatewayServer) judgeProtocol(from *istio.Server) bool {
	f, at := &s.of.findings, s.field+".port.protocol"
	switch protocol := strings.ToUpper(from.Port.Protocol); protocol {
	case "HTTP", "HTTP2", "GRPC", "GRPC-WEB":
		if protocol != "HTTP" {
			f.warn(FieldNotHonoured, at, "%s is served as HTTP/1.1: gRPC does not pass", presentable(from.Port.Protocol))
		}
		if t := s.settings; t != nil && (t.Mode != "" || t.CredentialName != "" || len(t.CredentialNames) > 0) {
			f.warn(FieldNotHonoured, s.field+".tls", "has no effect on protocol %s but for httpsRedirect: write HTTPS if TLS is meant", protocol)
		}
		return true
	case "HTTPS", "TLS":
		s.tls = true
		if s.settings == nil {
			f.invalid(InvalidValue, s.field+".tls", "is required with protocol %s: name a Secret in credentialName, or set mode PASSTHROUGH", protocol)
			s.refusal = &Refusal{InvalidConfiguration, fmt.Sprintf("%s says nothing about TLS in %s.tls: name a Secret in credentialName there", s.of.object, s.field)}
			return true
		}
		s.passthrough = s.settings.Mode == "PASSTHROUGH"
		s.judgeTLS(protocol)
		return true
	case "":
		f.invalid(InvalidValue, at, "is required: write HTTP, HTTPS or TLS")
	default:
		f.invalid(NotSupported, at, "%q is not served by Remora's gateway, so the port is not opened for it: write HTTP, HTTPS or TLS", presentable(from.Port.Protocol))
	}
	return false
}

// judgeHosts keeps the hosts that can be ones.
func (s *gatewayServer) judgeHosts(hosts []string) {
	f := &s.of.findings
	if len(hosts) == 0 && !s.of.source.Remarks.In(s.field+".hosts") {
		f.invalid(InvalidValue, s.field+".hosts", `is required: name a host, or "*" for all`)
	}
	for i, written := range hosts {
		field := fmt.Sprintf("%s.hosts[%d]", s.field, i)
		namespace, host, qualified := strings.Cut(written, "/")
		if !qualified {
			namespace, host = "*", written
		}
		switch namespace {
		case ".":
			namespace = s.of.object.Namespace
		case "*":
			namespace = ""
		case "~", "":
			f.warn(InvalidValue, field, "%q names no namespace, so no VirtualService has it: write NAMESPACE/HOST, ./HOST or HOST", presentable(written))
			continue
		}
		if host = judgeEdgeHost(f, field, host); host != "" {
			s.hosts = append(s.hosts, gatewayHost{namespace, host})
		}
	}
}

// judgeEdgeHost gives a host that may be *.SUFFIX or * in lower case; empty where it is none.
func judgeEdgeHost(f *findings, field, host string) string {
	host = strings.ToLower(host)
	if host == "*" {
		return host
	}
	name, wild := strings.CutPrefix(host, "*.")
	if strings.Contains(name, "*") {
		f.invalid(InvalidValue, field, "%q has a wildcard that is not all of its first part: write *.SUFFIX, or name each host by itself", presentable(host))
		return ""
	}
	if strings.HasPrefix(name, "[") || strings.Count(name, ":") > 1 {
		f.invalid(InvalidValue, field, "%q is an IPv6 address: use a name that resolves to it", presentable(host))
		return ""
	}
	before := len(f.list)
	judgeHost(f, field, name)
	if len(f.list) > before {
		return ""
	}
	if wild {
		return "*." + name
	}
	return name
}

// edgeConflict is a server, or one of its hosts, that gives way to another server.
type edgeConflict struct {
	loser, winner *gatewayServer
	host          int // its index; -1: all of the server
	merged        bool
}

// settleEdge decides who has a port and its hosts among gateways, which come in order of their age.
func settleEdge(gateways []*gateway) (conflicts []edgeConflict) {
	type place struct {
		port uint16
		host string
	}
	ports, hosts := map[uint16][]*gatewayServer{}, map[place][]*gatewayServer{}
	rivalOf := func(s *gatewayServer, of []*gatewayServer, differs func(r *gatewayServer) bool) *gatewayServer {
		for _, r := range of {
			if !disjointLabels(s.of.source.Spec.Selector, r.of.source.Spec.Selector) && differs(r) {
				return r
			}
		}
		return nil
	}
	for _, g := range gateways {
		for _, s := range g.servers {
			if r := rivalOf(s, ports[s.port], func(r *gatewayServer) bool { return r.tls != s.tls }); r != nil {
				conflicts = append(conflicts, edgeConflict{s, r, -1, false})
				continue
			}
			ports[s.port] = append(ports[s.port], s)
			for i, h := range s.hosts {
				at := place{s.port, h.host}
				if r := rivalOf(s, hosts[at], func(*gatewayServer) bool { return true }); r != nil && (s.tls || r.of != s.of) {
					conflicts = append(conflicts, edgeConflict{s, r, i, !s.tls})
				} else {
					hosts[at] = append(hosts[at], s)
				}
			}
		}
	}
	return conflicts
}

func (c *compiler) judgeEdgeConflicts() {
	for _, k := range settleEdge(c.gateways) {
		f, s := &k.loser.of.findings, k.loser
		winner := fmt.Sprintf("%s (server %s)", k.winner.of.object, k.winner.name)
		switch {
		case k.host < 0:
			f.invalid(PortConflict, s.field+".port", "port %d is that of %s with another protocol, which is older or comes first: use another port; nothing is served for this server", s.port, winner)
		case k.merged:
			f.warn(HostConflict, fmt.Sprintf("%s.hosts[%d]", s.field, k.host), "%q at port %d is also that of %s: the VirtualServices of both apply, those that are older first", s.hosts[k.host].host, s.port, winner)
		default:
			f.invalid(HostConflict, fmt.Sprintf("%s.hosts[%d]", s.field, k.host), "%q at port %d is that of %s, which is older or comes first: change the host, or use another port", s.hosts[k.host].host, s.port, winner)
		}
	}
}

func disjointLabels(a, b map[string]string) bool {
	return disjoint(&v1beta1.WorkloadSelector{Labels: a}, &v1beta1.WorkloadSelector{Labels: b})
}
