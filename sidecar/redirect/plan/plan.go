// Package plan says which iptables rules have a pod's outbound connections end at its sidecar, as the text that
// iptables-restore reads. It is pure: what the tables hold now is handed to it as text, and it writes nothing.
//
// The table nat redirects, but it is asked only about connections that conntrack takes for new ones. What conntrack remembers
// of a connection of the sidecar's that was reset or got no answer (for 10 and 120 seconds) lets an app's connection between
// the same ports pass by that table; so does a packet that conntrack does not follow, and somebody who empties the table.
// The table filter sees every packet, and has whatever still begins a connection to a redirected port refused.
//
// It is kept apart from the sidecar's own command line so that the program that applies the rules links nothing of Kubernetes.
package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Chain is the one chain that is ours, in each of Tables. Chains of other names are never touched.
const Chain = "REMORA_OUTPUT"

// Tables are those that rules are written to, in this order: where the kernel refuses those of filter, nat is not touched.
var Tables = []string{filter, nat}

const (
	filter = "filter"
	nat    = "nat"
)

// Port is where redirected connections arrive, on the loopback address of their family: a port of no other mesh.
const Port = 14001

// UID is the user and group of the sidecar, whose own connections are left alone.
const UID = 14001

// A Family of addresses has tables, and programs, of its own.
type Family int

// The families.
const (
	IPv4 Family = iota
	IPv6
)

func (f Family) String() string {
	if f == IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// Listener is where the sidecar accepts what is redirected.
func (f Family) Listener() netip.AddrPort {
	if f == IPv6 {
		return netip.AddrPortFrom(netip.IPv6Loopback(), Port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port)
}

func (f Family) has(a netip.Addr) bool { return a.IsValid() && a.Is6() == (f == IPv6) }

// An Answer is how the kernel treats a connection to a redirected port that was not redirected.
type Answer string

// The answers. Neither lets a byte out.
const (
	// Reject tells the app at once that it is refused; it may try again, then from another port.
	Reject Answer = "REJECT --reject-with tcp-reset"
	// Drop has the app wait until it gives up. It serves where the kernel has no REJECT.
	Drop Answer = "DROP"
)

// Wish is what the rules are to do.
type Wish struct {
	Args
	// APIServer is the address of the Kubernetes API server, which is never redirected; the zero value if there is none.
	APIServer netip.AddrPort
	// Answer is for what passes by the redirection. The zero value is Reject.
	Answer Answer
}

// A rule is a line of iptables-restore and why it is there.
type rule struct{ why, line string }

// rules are those of our chain in a table, in order.
func (w Wish) rules(f Family, table string) []rule {
	all := w.exceptions(f)
	for _, port := range w.Ports {
		matches := fmt.Sprintf("-A %s -p tcp -m tcp --dport %d", Chain, port)
		if table == nat {
			all = append(all, rule{
				fmt.Sprintf("A connection to port %d of anybody else ends at the sidecar.", port),
				fmt.Sprintf("%s -j REDIRECT --to-ports %d", matches, Port),
			})
			continue
		}
		all = append(all, rule{
			fmt.Sprintf("A connection to port %d of anybody else, which the table nat has not redirected, is %s.", port, w.answered()),
			fmt.Sprintf("%s --syn -j %s", matches, w.answer()),
		})
	}
	return all
}

func (w Wish) answer() Answer { return cmp.Or(w.Answer, Reject) }

func (w Wish) answered() string {
	if w.answer() == Drop {
		return "dropped"
	}
	return "refused"
}

// exceptions are the rules that come first in either table.
func (w Wish) exceptions(f Family) []rule {
	add := "-A " + Chain + " "
	all := []rule{
		{"The sidecar's own connections leave the pod. It is known by its user ...", fmt.Sprint(add, "-m owner --uid-owner ", UID, " -j RETURN")},
		{"... and by its group.", fmt.Sprint(add, "-m owner --gid-owner ", UID, " -j RETURN")},
		{"What the containers of the pod say to each other stays as it is.", add + "-o lo -j RETURN"},
	}
	for _, p := range w.Exclude {
		if f.has(p.Addr()) {
			all = append(all, rule{"Excluded by --exclude.", add + "-d " + p.String() + " -j RETURN"})
		}
	}
	if a := w.APIServer; f.has(a.Addr()) && slices.Contains(w.Ports, a.Port()) {
		all = append(all, rule{
			"The Kubernetes API server is never redirected.",
			fmt.Sprintf("%s-d %s -p tcp -m tcp --dport %d -j RETURN", add, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), a.Port()),
		})
	}
	return all
}

// jump leads outbound TCP into our chain.
const jump = "OUTPUT -p tcp -j " + Chain

// Script is what iptables-restore --noflush is to read, given what iptables-save shows of Tables now: after it the rules are
// there once and first, those of an earlier run are gone, and those of others are as they were.
func (w Wish) Script(f Family, saved string) string {
	var b strings.Builder
	write := func(r rule) { fmt.Fprintf(&b, "# %s\n%s\n", r.why, r.line) }
	for _, table := range Tables {
		intent := fmt.Sprintf("%s: outbound TCP connections to %s end at %s.", f, ports(w.Ports), f.Listener())
		if table == filter {
			intent = fmt.Sprintf("%s: no TCP connection to %s leaves the pod but the sidecar's. (The table nat, below, has its turn before this one.)", f, ports(w.Ports))
		}
		fmt.Fprintf(&b, "# %s\n*%s\n", intent, table)
		write(rule{"Our own chain: made, or emptied of what an earlier run wrote.", ":" + Chain + " - [0:0]"})
		for _, r := range w.rules(f, table) {
			write(r)
		}
		for _, line := range jumps(saved, table) {
			write(rule{"An earlier run led outbound connections into it; this is done anew.", "-D " + strings.TrimPrefix(line, "-A ")})
		}
		write(rule{"All outbound TCP passes our chain first, before the rules of anybody else.", "-I " + strings.Replace(jump, "OUTPUT", "OUTPUT 1", 1)})
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// Withdrawal is what iptables-restore --noflush is to read to take the rules of a script away that was not read to its end,
// given what iptables-save showed before it and shows now. It is empty where nothing of it is there, or where an earlier run's
// rules had been: those are not taken away.
func Withdrawal(before, now string) string {
	var b strings.Builder
	if declared(before, filter) || declared(before, nat) {
		return ""
	}
	for _, table := range Tables {
		if !declared(now, table) {
			continue
		}
		fmt.Fprintf(&b, "*%s\n:%s - [0:0]\n", table, Chain)
		for _, line := range jumps(now, table) {
			fmt.Fprintf(&b, "-D %s\n", strings.TrimPrefix(line, "-A "))
		}
		fmt.Fprintf(&b, "-X %s\nCOMMIT\n", Chain)
	}
	return b.String()
}

func ports(all []uint16) string {
	if len(all) == 1 {
		return fmt.Sprint("port ", all[0])
	}
	return "ports " + join(all, ", ")
}

// String says the wish in a few words.
func (w Wish) String() string { return "outbound TCP to " + ports(w.Ports) }

// documentation are addresses that nobody has, by RFC 5737, 3849 and 9637.
var documentation = []netip.Addr{
	netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1"),
	netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("3fff::1"),
}

// Target is an address with which the rules can be tried: nobody has it, and it is not excluded. False: there is none.
func (w Wish) Target(f Family) (netip.Addr, bool) {
	for _, a := range documentation {
		excluded := slices.ContainsFunc(w.Exclude, func(p netip.Prefix) bool { return p.Contains(a) })
		if f.has(a) && !excluded {
			return a, true
		}
	}
	return netip.Addr{}, false
}
