package routing

// What is in this file stands in for backend.go: delete it there.

import (
	"cmp"
	"fmt"
	"strings"
	"unique"
)

type destination struct {
	kind            string // KindService or KindInferencePool
	namespace, name string
	subset          string // its name in a DestinationRule; empty: all servers
	port            uint16 // 0: the only one; of a pool: all
}

// serviceNamed gives the Service that a host means which is named in a namespace; false where it cannot be one.
func serviceNamed(host, namespace string) (destination, bool) {
	name, in, found := strings.Cut(canonical(host, namespace), ".")
	if !found || name == "" || in == "" || strings.ContainsAny(name+in, ".*:[") {
		return destination{}, false
	}
	return destination{kind: KindService, namespace: in, name: name}, true
}

func (c *compiler) backend(from string, d destination, path string) (*Target, *Refusal) {
	for i := range c.in.Services {
		s := &c.in.Services[i]
		if s.Name != d.name || s.Namespace != d.namespace {
			continue
		}
		for _, p := range s.Ports {
			if p.Number == d.port || d.port == 0 && len(s.Ports) == 1 {
				return &Target{
					Provider: Ref{KindService, d.namespace, d.name}, Servers: ServersID{Kind: KindService, Namespace: d.namespace, Name: d.name, Subset: d.subset, Port: p.Name},
					Endpoint: unique.Make(Endpoint{Host: d.name + "." + d.namespace + clusterSuffix, Port: p.Number}), Policy: defaultPolicy, RevokedFor: -1,
				}, nil
			}
		}
	}
	return nil, &Refusal{ServiceNotFound, fmt.Sprintf("no Service %s with port %d is in namespace %s: create it", d.name, d.port, cmp.Or(d.namespace, from))}
}
