package routing

import (
	"cmp"
	"fmt"
	"strings"
	"unique"
)

// destination finds the servers that a destination of a VirtualService means.
func (c *compiler) destination(from Ref, namespace, host, subset string, port uint16) (*Target, *Refusal) {
	name, ns, _ := strings.Cut(strings.TrimSuffix(canonical(host, namespace), svcSuffix), ".")
	for i := range c.in.Services {
		s := &c.in.Services[i]
		if s.Name != name || s.Namespace != ns {
			continue
		}
		for _, p := range s.Ports {
			if p.Number == port || port == 0 && len(s.Ports) == 1 {
				return &Target{
					Provider: Ref{KindService, ns, name}, Servers: ServersID{Kind: KindService, Namespace: ns, Name: name, Subset: subset, Port: p.Name},
					Endpoint: unique.Make(Endpoint{Host: name + "." + ns + clusterSuffix, Port: p.Number}), Policy: defaultPolicy, RevokedFor: -1,
				}, nil
			}
		}
	}
	return nil, &Refusal{ServiceNotFound, fmt.Sprintf("no Service %s with port %d is in namespace %s: create it", name, port, cmp.Or(ns, namespace))}
}
