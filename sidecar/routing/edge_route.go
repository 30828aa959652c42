package routing

import (
	"slices"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

// forSidecars tells whether a route is for the sidecars of its namespace, and not for gateways only.
func (o *object) forSidecars() bool {
	names := o.route.Spec.Gateways
	return len(names) == 0 || slices.Contains(names, v1beta1.GatewayMesh)
}

// meet tells whether two routes are for the sidecars, or for one gateway, both of them. Providers are everywhere.
func meet(a, b *object) bool {
	if a.route == nil || a.forSidecars() && b.forSidecars() {
		return true
	}
	refs, _ := gatewayRefs(a.route.Spec.Gateways, a.object.Namespace)
	others, _ := gatewayRefs(b.route.Spec.Gateways, b.object.Namespace)
	return slices.ContainsFunc(refs, func(g Ref) bool { return slices.Contains(others, g) })
}

// settleEdgeRoutes has the oldest of the routes of several namespaces that claim a host at one gateway keep it. Those of one namespace
// are settled already.
func (c *compiler) settleEdgeRoutes() {
	type place struct {
		gateway Ref
		host    string
	}
	taken := map[place]*object{}
	routes := slices.DeleteFunc(slices.Clone(c.routes), func(o *object) bool { return !o.runs() })
	slices.SortStableFunc(routes, byAge)
	for _, o := range routes {
		refs, _ := gatewayRefs(o.route.Spec.Gateways, o.object.Namespace)
		for _, ref := range refs {
			at := place{ref, canonical(o.host, o.object.Namespace)}
			if first := taken[at]; first == nil {
				taken[at] = o
			} else if first != o {
				o.conflictOnce("spec.host", "%q at %s has a route already, %s, which is older or has the lesser name: this one is not used there", o.host, ref, first.object)
			}
		}
	}
}

// judgeRouteGateways looks for the Gateways that a route names.
func (c *compiler) judgeRouteGateways(o *object) {
	refs, _ := gatewayRefs(o.route.Spec.Gateways, o.object.Namespace)
	for _, ref := range refs {
		if c.in.Services == nil && len(c.gateways) == 0 {
			return // it is not known which there are
		}
		g := c.gatewayNamed(ref)
		if g == nil {
			o.add(Unresolved, GatewayNotFound, "spec.gateways", "%s does not exist: create it, or write NAMESPACE/NAME if it is in another namespace", ref)
			continue
		}
		if !slices.ContainsFunc(g.servers, func(s *gatewayServer) bool { return len(s.admits(o.object.Namespace, o.host, s.hosts)) > 0 }) {
			o.warn(HostNotServed, "spec.host", "%q is of no server of %s, so that nobody reaches it there: add it to the hosts of a server, or correct it", o.host, ref)
		}
	}
}

func (c *compiler) gatewayNamed(ref Ref) *gateway {
	if ref.Kind != istio.KindGateway {
		return nil
	}
	if c.gatewayByRef == nil {
		c.gatewayByRef = map[Ref]*gateway{}
		for _, g := range c.gateways {
			c.gatewayByRef[g.object] = g
		}
	}
	return c.gatewayByRef[ref]
}
