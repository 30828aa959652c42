//go:build linux

// Redirect has a pod's outbound connections end at its sidecar. It runs once, before the pod's other containers, in the pod's
// network namespace; kubelets may run it again at any time, also beside a sidecar that is at work.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"remora.dev/remora/sidecar/redirect/plan"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// patience bounds all of it: a pod that cannot start should say why and not hang.
const patience = time.Minute

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && (args[0] == "help" || args[0] == "--help" || args[0] == "-h") {
		fmt.Fprint(stdout, plan.Usage)
		return exitOK
	}
	parsed, err := plan.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "redirect: %v\nredirect help explains the flags.\n", err)
		return exitUsage
	}
	if err := redirect(ctx, plan.Wish{Args: parsed, APIServer: apiServer()}, stderr); err != nil {
		fmt.Fprintf(stderr, "redirect: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// redirect writes the rules of each family of addresses that the pod has, and tries them.
func redirect(ctx context.Context, wish plan.Wish, log io.Writer) error {
	able, err := capabilities()
	if err != nil {
		return err
	}
	if !able.netAdmin {
		return errNoNetAdmin
	}
	families := []plan.Family{plan.IPv4}
	six, err := hasIPv6()
	if err != nil {
		return err
	}
	if six {
		families = append(families, plan.IPv6)
	}
	var done []string
	for _, f := range families {
		used, err := apply(ctx, wish, f, able, log)
		if err != nil {
			return err
		}
		how, err := try(ctx, wish, f)
		if err != nil {
			return fmt.Errorf("the %s rules are written (iptables-%s), but do not work: %w", f, used, err)
		}
		done = append(done, fmt.Sprintf("%s to %s (iptables-%s; %s)", f, f.Listener(), used, how))
	}
	if !six {
		done = append(done, "IPv6 not at all (this pod has no address of it)")
	}
	fmt.Fprintf(log, "redirect: %s goes: %s.\n", wish, strings.Join(done, ", "))
	return nil
}

// apiServer is where kubelet tells each container that the API server is.
func apiServer() netip.AddrPort {
	addr, err := netip.ParseAddr(os.Getenv("KUBERNETES_SERVICE_HOST"))
	port, portErr := strconv.ParseUint(os.Getenv("KUBERNETES_SERVICE_PORT"), 10, 16)
	if err != nil || portErr != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, uint16(port))
}

// hasIPv6 tells whether an interface has an IPv6 address that reaches further than its link. Where IPv6 is off, and on nodes
// whose kernel cannot redirect it, there is none.
func hasIPv6() (bool, error) {
	content, err := os.ReadFile("/proc/self/net/if_inet6")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	for line := range strings.Lines(string(content)) {
		// Address, index, length of the prefix, scope (0: global), flags, interface. Unique local addresses are global, too.
		if words := strings.Fields(line); len(words) == 6 && words[3] == "00" {
			return true, nil
		}
	}
	return false, err
}
