package routing

import (
	"bytes"
	"strings"
)

// Shown is a table for programs: what WriteTo says, as JSON has it. It has no key.
type Shown struct {
	Generation string      `json:"generation"`
	Incomplete bool        `json:"incomplete,omitempty"` // hosts that are not here may be owned
	Hosts      []ShownHost `json:"hosts"`                // of a gateway, those of its listeners in their order
}

// ShownHost is an owned host.
type ShownHost struct {
	Names   []string     `json:"names"`          // its own first; "*" stands for every other
	Port    uint16       `json:"port,omitempty"` // of the gateway's listener
	Plain   bool         `json:"plain,omitempty"`
	Refusal *Because     `json:"refusal,omitempty"`
	Rules   []ShownRule  `json:"rules"`
	Never   []PassedOver `json:"never,omitempty"` // rules that take no call of this workload
}

// ShownRule is a rule of a host.
type ShownRule struct {
	Owner    string             `json:"owner"`
	Name     string             `json:"name,omitempty"`
	Number   int                `json:"number,omitempty"`
	When     []string           `json:"when"` // one of which has to hold; none: it takes every call
	Does     []string           `json:"does,omitempty"`
	Backends []ExplainedBackend `json:"backends"`
	Timeouts ExplainedTimeouts  `json:"timeouts"`
	Retries  ExplainedRetries   `json:"retries"`
	MaxBody  int64              `json:"maxBody"`
}

// Show gives the table for programs.
func (t *Table) Show() Shown {
	out := Shown{Generation: t.generation, Incomplete: t.incomplete, Hosts: []ShownHost{}}
	for _, h := range t.named() {
		out.Hosts = append(out.Hosts, h.host.show(h.names, 0))
	}
	for _, l := range t.listeners {
		for i, s := range l.Servers {
			for _, name := range s.sni.names() {
				rule := s.sni.at(name)
				out.Hosts = append(out.Hosts, ShownHost{Names: []string{name}, Port: l.Port, Rules: []ShownRule{rule.show()}})
			}
			if !l.TLS && i < len(l.Servers)-1 {
				continue // they share their hosts
			}
			for _, name := range s.hosts.names() {
				out.Hosts = append(out.Hosts, s.hosts.at(name).show([]string{name}, l.Port))
			}
		}
	}
	return out
}

func (h *Host) show(names []string, port uint16) ShownHost {
	out := ShownHost{Names: names, Port: port, Plain: h.Plain, Refusal: because(h.Refusal), Rules: []ShownRule{}}
	for _, r := range h.Rules {
		out.Rules = append(out.Rules, r.show())
	}
	for _, n := range h.never {
		out.Never = append(out.Never, n.rule)
	}
	return out
}

func (r *Rule) show() ShownRule {
	out := ShownRule{
		Owner: r.Owner.String(), Name: r.Name, Number: r.number, When: []string{}, Does: r.does(), Backends: r.explainBackends(nil, nil, nil),
		Timeouts: r.Timeouts.explain(), Retries: r.Retries.explain(), MaxBody: r.MaxBody,
	}
	for i := range r.matches {
		out.When = append(out.When, r.matches[i].String())
	}
	return out
}

// does words the rule's Action, line by line.
func (r *Rule) does() (all []string) {
	var b bytes.Buffer
	r.writeAction(&b)
	for line := range strings.Lines(b.String()) {
		all = append(all, strings.TrimSpace(line))
	}
	return all
}

func (t Timeouts) explain() ExplainedTimeouts {
	return ExplainedTimeouts{limit(t.Request), limit(t.FirstToken), limit(t.Idle)}
}

func (r Retries) explain() ExplainedRetries { return ExplainedRetries{r.Attempts, r.reasons()} }
