package routing

import (
	"fmt"

	"remora.dev/remora/apis/v1beta1"
)

// spread gives the servers that the calls to a provider are spread over, and how: those of the Service that its host is, where its
// trafficPolicy has a loadBalancer.
func (c *compiler) spread(o *object, port uint16) (ServersID, Balance) {
	if o.provider.Spec.TrafficPolicy == nil || o.provider.Spec.TrafficPolicy.LoadBalancer == nil {
		return ServersID{}, Balance{}
	}
	id, why := c.serversOf(o, port)
	if why != "" {
		return ServersID{}, Balance{}
	}
	lb := istioLoadBalancer(o.provider.Spec.TrafficPolicy.LoadBalancer)
	if unspoken := lb.ConsistentHash == nil && policies[lb.Simple] == LeastRequest && lb.Simple != string(v1beta1.LeastRequest) && lb.Simple != string(v1beta1.LeastConn); unspoken {
		rules := c.rulesFor(id.Namespace, id.Namespace, id.Name+"."+id.Namespace)
		if how, r := callingBy(rules, nil, nil, port); r == nil && how.lb != nil {
			over := *how.lb
			if lb.LocalityLbSetting != nil {
				over.LocalityLbSetting = lb.LocalityLbSetting
			}
			if lb.Warmup != nil || lb.WarmupDurationSecs != nil {
				over.Warmup, over.WarmupDurationSecs = lb.Warmup, lb.WarmupDurationSecs
			}
			lb = &over
		}
	}
	balance, passthrough := balanceOf(critic{}, "", lb)
	if passthrough {
		return ServersID{}, Balance{}
	}
	return id, balance
}

// serversOf names the servers of the Service that is a provider's host, or says why there are none.
func (c *compiler) serversOf(o *object, port uint16) (id ServersID, why string) {
	d, is := serviceNamed(o.host, o.namespace())
	if !is || d.namespace != o.namespace() {
		return id, fmt.Sprintf("%s is no Service of namespace %s", hostText(o.host), o.namespace())
	}
	s := c.service(d.namespace, d.name)
	switch {
	case s == nil:
		return id, d.ref().String() + " does not exist"
	case s.ExternalName != "":
		return id, d.ref().String() + " stands for another name"
	}
	d.port = port
	p, r := servicePort(s, &d)
	if r != nil {
		return id, fmt.Sprintf("%s has no port %d", d.ref(), port)
	}
	return ServersID{Kind: KindService, Namespace: d.namespace, Name: d.name, Port: p.Name}, ""
}

// judgeSpread says where a loadBalancer has nothing to choose from.
func (c *compiler) judgeSpread(o *object) {
	p := o.provider.Spec.TrafficPolicy
	if c.in.Services == nil || o.firstInvalid() != nil || p == nil || p.LoadBalancer == nil || p.LoadBalancer.Simple == v1beta1.Passthrough {
		return
	}
	id, why := c.serversOf(o, providerPort(&o.provider.Spec))
	if why != "" {
		o.warn(ServiceNotFound, "spec.trafficPolicy.loadBalancer", "%s, so there are no servers to choose from: name a Service of the namespace in spec.host and its port in spec.port, or leave loadBalancer out", why)
		return
	}
	if lb := p.LoadBalancer; lb.ConsistentHash == nil && (lb.Simple == "" || lb.Simple == "UNSPECIFIED") {
		c.judgeRules(c.rulesFor(id.Namespace, id.Namespace, id.Name+"."+id.Namespace))
	}
}

// providerPort is the port of a provider.
func providerPort(s *v1beta1.LLMProviderSpec) uint16 {
	switch {
	case s.Port != nil:
		return uint16(*s.Port)
	case s.TLS != nil && s.TLS.Mode == v1beta1.TLSDisable:
		return v1beta1.DefaultPlainPort
	}
	return v1beta1.DefaultTLSPort
}
