package routing

import "fmt"

// balanceFills says what is different about how the servers of a target are chosen.
func (t *Target) balanceFills(now *Target) (out []fill) {
	add := func(format string, args ...any) {
		out = append(out, fill{rankFill, fmt.Sprintf(format, args...)})
	}
	was, is := t.Servers != ServersID{}, now.Servers != ServersID{}
	if !was && !is {
		return nil
	}
	before, after := clip(t.Balance.String(), 120), clip(now.Balance.String(), 120)
	switch {
	case !was:
		add("calls go to its servers one by one from now on, chosen by %s", after)
		return out
	case !is:
		add("calls go to its address from now on, and the cluster chooses the server, instead of %s", before)
		return out
	case before != after:
		add("servers are chosen by %s instead of %s", after, before)
	case t.Balance.String() != now.Balance.String():
		add("servers are chosen by other words of %s", after)
	}
	if t.Servers.Port != now.Servers.Port && t.Endpoint.Value().Port == now.Endpoint.Value().Port {
		add("servers are called at their port %s instead of %s", quoted(now.Servers.Port), quoted(t.Servers.Port))
	}
	return out
}
