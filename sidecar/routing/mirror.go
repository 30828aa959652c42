package routing

// Alone gives the rule of a call that is a copy: it goes to the mirror, once.
func (m *Mirror) Alone(of *Rule) *Rule {
	return &Rule{
		Name: of.Name, Owner: of.Owner, number: of.number, Matched: of.Matched, MaxBody: of.MaxBody, Timeouts: of.Timeouts,
		Levels: []Level{{Backends: []Backend{{Weight: 1, Target: m.Target}}, total: 1}},
		Action: of.Action, // of which a copy is rewritten likewise
	}
}
