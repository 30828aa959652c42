package routing

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unique"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// destination is a backend inside the cluster, as an LLMRoute or a VirtualService names it.
type destination struct {
	kind            string // KindService or KindInferencePool
	namespace, name string
	subset          string // its name in a DestinationRule; empty: all servers
	port            uint16 // 0: the only one; of a pool: all
}

func (d *destination) ref() Ref { return Ref{d.kind, d.namespace, d.name} }

// host is the canonical one.
func (d *destination) host() string { return d.name + "." + d.namespace }

// serviceNamed gives the Service that a host means which is named in a namespace; false where it cannot be one.
func serviceNamed(host, namespace string) (destination, bool) {
	name, in, found := strings.Cut(canonical(host, namespace), ".")
	if !found || name == "" || in == "" || strings.ContainsAny(name+in, ".*:[") {
		return destination{}, false
	}
	return destination{kind: KindService, namespace: in, name: name}, true
}

// destinationOf gives what a backendRef of a namespace names.
func destinationOf(ref *v1beta1.BackendObjectReference, namespace string) destination {
	d := destination{kind: cmp.Or(ref.Kind, KindService), namespace: cmp.Or(ref.Namespace, namespace), name: ref.Name}
	if ref.Kind == "" && ref.Group == PoolGroup {
		d.kind = KindInferencePool
	}
	if ref.Port != nil {
		d.port = uint16(*ref.Port)
	}
	return d
}

// backend finds what calls for a destination go to which an object of namespace from names. path is that of chat completions; empty:
// every path goes out as it is. The Authority is the destination's own.
func (c *compiler) backend(from string, d destination, path string) (*Target, *Refusal) {
	if c.in.Services == nil && !c.presume {
		return nil, &Refusal{ServiceNotFound, fmt.Sprintf("%s is not known: which Services there are has not been read yet", d.ref())}
	}
	if r := c.mayReach(from, &d); r != nil {
		return nil, r
	}
	t := &Target{Provider: d.ref(), Policy: defaultPolicy, Balance: defaultBalance, RevokedFor: -1, Path: path}
	t.base, t.hasBase = strings.CutSuffix(path, chatSuffix)
	rules := c.rulesFor(from, d.namespace, d.host())
	c.judgeRules(rules)
	e, r := c.endpointOf(t, &d)
	if r != nil {
		return nil, r
	}
	var subset *istio.Subset
	var of *destinationRule
	if d.subset != "" {
		if subset, of, r = subsetOf(rules, d.subset); r != nil {
			if r.Code == SubsetNotFound {
				r.Message = noSubset(&d)
			}
			return nil, r
		}
	}
	how, r := callingBy(rules, subset, of, d.port)
	if r != nil {
		return nil, r
	}
	var passthrough bool
	t.Balance, passthrough = balanceOf(critic{}, "", how.lb)
	poolOf(critic{}, "", &how, &t.Policy, &t.Balance)
	if r = c.speak(&e, &how, strings.TrimSuffix(e.Host, poolSuffix)); r != nil {
		return nil, r
	}
	if subset != nil && t.Servers != (ServersID{}) {
		t.Servers.Subset = selectorText(subset.Labels)
	}
	if passthrough && d.kind == KindService && t.Servers.Subset == "" {
		t.Servers, t.Balance = ServersID{}, Balance{}
	}
	if t.Servers == (ServersID{}) {
		t.Balance = Balance{}
	}
	t.Authority = strings.TrimSuffix(e.Host, poolSuffix)
	if plain := !e.TLS && e.Port == v1beta1.DefaultPlainPort; !plain && (!e.TLS || e.Port != v1beta1.DefaultTLSPort) {
		t.Authority = fmt.Sprintf("%s:%d", t.Authority, e.Port)
	}
	t.Endpoint = unique.Make(e)
	return t, nil
}

func noSubset(d *destination) string {
	return fmt.Sprintf("no DestinationRule for %s has a subset %s: add it, or correct the name", d.ref(), quoted(d.subset))
}

// mayReach keeps sidecars in their namespace, and gateways out of what is not exported.
func (c *compiler) mayReach(from string, d *destination) *Refusal {
	gateway := c.workload != nil && c.workload.Gateway
	if d.namespace == from || gateway && d.namespace == c.workload.Namespace {
		return nil
	}
	if c.workload != nil && !gateway {
		return &Refusal{ServiceNotExported, fmt.Sprintf("%s is of another namespace, which sidecars do not reach: use one of namespace %s, or a gateway", d.ref(), from)}
	}
	if s := c.service(d.namespace, d.name); d.kind == KindService && s != nil && len(s.ExportTo) > 0 && exportsTo(s.ExportTo, d.namespace, []string{from}) {
		return nil
	}
	if d.kind == KindInferencePool {
		return &Refusal{ServiceNotExported, fmt.Sprintf("%s is of another namespace, and pools are not exported: use one of namespace %s", d.ref(), from)}
	}
	return &Refusal{ServiceNotExported, fmt.Sprintf("%s is of another namespace, and is not exported to %s: give it the annotation %s with the name of that namespace", d.ref(), from, istio.ExportToAnnotation)}
}

// endpointOf finds the Service or InferencePool of a destination and its port, which is filled in where it is the only one.
func (c *compiler) endpointOf(t *Target, d *destination) (Endpoint, *Refusal) {
	if c.in.Services == nil { // it is taken to exist
		t.Servers = ServersID{Kind: d.kind, Namespace: d.namespace, Name: d.name}
		return Endpoint{Host: d.host() + svcSuffix, Port: cmp.Or(d.port, v1beta1.DefaultPlainPort)}, nil
	}
	if d.kind == KindInferencePool {
		return c.poolEndpoint(t, d)
	}
	s := c.service(d.namespace, d.name)
	if s == nil {
		return Endpoint{}, &Refusal{ServiceNotFound, fmt.Sprintf("%s does not exist: create it, or correct the name", d.ref())}
	}
	if s.ExternalName != "" {
		return c.externalEndpoint(d, s)
	}
	port, r := servicePort(s, d)
	if r != nil {
		return Endpoint{}, r
	}
	d.port = port.Number
	t.Servers = ServersID{Kind: KindService, Namespace: d.namespace, Name: d.name, Port: port.Name}
	return Endpoint{Host: d.host() + svcSuffix, Port: port.Number, TLS: port.AppProtocol == "https"}, nil
}

func servicePort(s *Service, d *destination) (ServicePort, *Refusal) {
	if d.port == 0 && len(s.Ports) == 1 {
		return s.Ports[0], nil
	}
	var known []string
	for _, p := range s.Ports {
		if p.Number == d.port {
			return p, nil
		}
		known = append(known, fmt.Sprint(p.Number))
	}
	switch {
	case len(known) == 0:
		return ServicePort{}, &Refusal{ServiceNotFound, fmt.Sprintf("%s has no TCP port: add one", d.ref())}
	case d.port == 0:
		return ServicePort{}, &Refusal{ServiceNotFound, fmt.Sprintf("%s has several ports: name one of %s", d.ref(), strings.Join(known[:min(len(known), 16)], ", "))}
	}
	return ServicePort{}, &Refusal{ServiceNotFound, fmt.Sprintf("%s has no port %d: use %s", d.ref(), d.port, strings.Join(known[:min(len(known), 16)], ", "))}
}

// externalEndpoint is that of a Service which stands for a name outside. It has no servers to choose from.
func (c *compiler) externalEndpoint(d *destination, s *Service) (Endpoint, *Refusal) {
	f := findings{}
	judgeHost(&f, "spec.externalName", s.ExternalName)
	if len(f.list) > 0 {
		return Endpoint{}, &Refusal{InvalidConfiguration, fmt.Sprintf("%s: %s", d.ref(), f.list[0])}
	}
	if c.workload != nil && c.workload.Gateway {
		if r := c.mayLeadTo(s.ExternalName, d); r != nil {
			return Endpoint{}, r
		}
	}
	e := Endpoint{Host: s.ExternalName, Port: d.port}
	if e.Port == 0 && len(s.Ports) == 1 {
		e.Port = s.Ports[0].Number
	}
	if i := slices.IndexFunc(s.Ports, func(p ServicePort) bool { return p.Number == e.Port }); i >= 0 {
		e.TLS = s.Ports[i].AppProtocol == "https"
	}
	if e.Port == 0 {
		e.Port = v1beta1.DefaultPlainPort
	}
	d.port = e.Port
	return e, nil
}

// mayLeadTo keeps the ExternalName of one namespace from reaching through a gateway what only the gateway reaches.
func (c *compiler) mayLeadTo(name string, d *destination) *Refusal {
	if _, in := trimAny(name, clusterSuffix, svcSuffix); in {
		if other, is := serviceNamed(name, d.namespace); is {
			return c.mayReach(d.namespace, &other)
		}
	}
	ip, err := netip.ParseAddr(name)
	if inside := err == nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()); inside || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return &Refusal{InvalidConfiguration, fmt.Sprintf("%s stands for %s, which at a gateway is the gateway itself, or its node: name another host", d.ref(), name)}
	}
	return nil
}

func (c *compiler) poolEndpoint(t *Target, d *destination) (Endpoint, *Refusal) {
	p := c.pool(d.namespace, d.name)
	switch {
	case p == nil:
		return Endpoint{}, &Refusal{ServiceNotFound, fmt.Sprintf("%s does not exist: create it, or correct the name", d.ref())}
	case len(p.TargetPorts) == 0:
		return Endpoint{}, &Refusal{ServiceNotFound, fmt.Sprintf("%s has no target port: add one", d.ref())}
	case d.port != 0 && !slices.Contains(p.TargetPorts, d.port):
		return Endpoint{}, &Refusal{ServiceNotFound, fmt.Sprintf("%s has no target port %d: use one that it has", d.ref(), d.port)}
	}
	t.Servers = ServersID{Kind: KindInferencePool, Namespace: d.namespace, Name: d.name}
	port := p.TargetPorts[0]
	if d.port != 0 {
		port, t.Servers.Port = d.port, fmt.Sprint(d.port)
	}
	// A pool has no address of its own: nothing can be called by this name.
	return Endpoint{Host: d.host() + poolSuffix, Port: port}, nil
}

// poolSuffix is of a name that nobody has (RFC 2606), and with its dot nobody looks for it in a domain of the node's either.
const poolSuffix = ".inferencepool.invalid."

func (c *compiler) service(namespace, name string) *Service {
	if c.services == nil {
		c.services = map[hostID]*Service{}
		for i := range c.in.Services {
			if s := &c.in.Services[i]; c.services[hostID{s.Namespace, s.Name}] == nil {
				c.services[hostID{s.Namespace, s.Name}] = s
			}
		}
	}
	return c.services[hostID{namespace, name}]
}

func (c *compiler) pool(namespace, name string) *InferencePool {
	i := slices.IndexFunc(c.in.InferencePools, func(p InferencePool) bool { return p.Namespace == namespace && p.Name == name })
	if i < 0 {
		return nil
	}
	return &c.in.InferencePools[i]
}
