package routing

// Executes gives the VirtualServices, DestinationRules and Gateways that have a say in the table: all others are for other programs.
func (t *Table) Executes() map[Ref]struct{} { return t.executes }

func (c *compiler) executes() map[Ref]struct{} {
	all := map[Ref]struct{}{}
	for _, v := range c.virtuals {
		if v.used {
			all[v.object] = struct{}{}
		}
	}
	for _, g := range c.gateways {
		if g.used {
			all[g.object] = struct{}{}
		}
	}
	if c.destinations != nil {
		for _, d := range c.destinations.all {
			if d.used {
				all[d.object] = struct{}{}
			}
		}
	}
	return all
}
