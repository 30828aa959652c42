//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"remora.dev/remora/sidecar/redirect/plan"
)

// errNoNetAdmin names what took the capability away, as far as that can be known from inside.
var errNoNetAdmin = errors.New("this container may not write iptables rules: it lacks the capability NET_ADMIN, which injection asks for. " +
	"A policy of the namespace or another admission webhook took it away (kubectl get pod POD -o yaml shows the securityContext of remora-redirect), " +
	"or the program was not started as root. Remedy: allow NET_ADMIN for this container, or label the pod remora.dev/inject=disabled")

// abilities are what the process may do of what the back ends need.
type abilities struct{ netAdmin, netRaw bool }

func capabilities() (abilities, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return abilities{}, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			const netAdmin, netRaw = 12, 13 // of linux/capability.h
			return abilities{set&(1<<netAdmin) != 0, set&(1<<netRaw) != 0}, err
		}
	}
	return abilities{}, errors.New("/proc/self/status has no line CapEff")
}

// A refusal is what a back end said.
type refusal struct {
	by  backEnd
	err error
}

// explain names for each back end that failed what it said and what it lacks.
func explain(ctx context.Context, f plan.Family, refused []refusal, able abilities) error {
	var b strings.Builder
	fmt.Fprintf(&b, "no back end of iptables could write the %s rules.", f)
	for _, r := range refused {
		fmt.Fprintf(&b, "\n  %s: %v", r.by, r.err)
		switch {
		case errors.Is(r.err, exec.ErrNotFound):
		case r.by == legacy && !able.netRaw:
			b.WriteString("\n    It needs the capability NET_RAW, which this container lacks. Remedy, if nft cannot be had: add NET_RAW to " +
				"capabilities.add of remora-redirect in the PodTemplate remora-sidecar")
		default:
			if lacking := r.by.lacks(ctx, f); lacking != "" {
				b.WriteString("\n    " + lacking)
			}
		}
	}
	return errors.New(b.String())
}

// lacks finds out which kind of rule a back end refuses, with a chain that nothing leads to, and names the kernel's module for
// it. It is empty if it refuses none, or if the fault is not the kernel's.
func (b backEnd) lacks(ctx context.Context, f plan.Family) string {
	const chain = "REMORA_PROBE"
	prefix := "ip"
	if f == plan.IPv6 {
		prefix = "ip6"
	}
	compat, filter, nat := []string{"nft_compat"}, []string{"nf_tables"}, []string{"nf_tables", "nft_chain_nat"}
	if b == legacy {
		compat, filter, nat = nil, []string{prefix + "table_filter"}, []string{prefix + "table_nat"}
	}
	defer func() {
		for _, table := range plan.Tables {
			_ = b.restore(ctx, f, "*"+table+"\n:"+chain+" - [0:0]\n-X "+chain+"\nCOMMIT\n")
		}
	}()
	for _, probe := range []struct {
		what, table, rule string
		modules           []string
	}{
		{"the table filter", "filter", "", filter},
		{"the table nat", "nat", "", nat},
		{"rules that know a connection by its user", "nat", "-A " + chain + " -m owner --uid-owner 0 -j RETURN\n", append([]string{"xt_owner"}, compat...)},
		{"rules that redirect", "nat", "-A " + chain + " -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 80\n", append([]string{"xt_REDIRECT"}, compat...)},
	} {
		if err := b.restore(ctx, f, "*"+probe.table+"\n:"+chain+" - [0:0]\n"+probe.rule+"COMMIT\n"); err != nil {
			return fmt.Sprintf("The kernel does not give it %s: a module is missing. Remedy, on the node: modprobe %s",
				probe.what, strings.Join(probe.modules, " "))
		}
	}
	return ""
}

// answers says what an app meets whose connection passes by the redirection, where that is not the usual.
func (w written) answers(f plan.Family) string {
	if w.answer == plan.Reject {
		return ""
	}
	module := "ipt_REJECT"
	if f == plan.IPv6 {
		module = "ip6t_REJECT"
	}
	return "; the kernel takes no rule that rejects, so what passes by is dropped, and an app waits until it gives up. Remedy, on the node: modprobe " + module
}
