//go:build linux

// Redirect has a pod's outbound connections end at its sidecar, and refuses those that pass by it. It runs once, before the
// pod's other containers, in the pod's network namespace; kubelets may run it again at any time, also beside a sidecar that
// is at work.
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
	six, err := readIPv6()
	if err != nil {
		return err
	}
	var done []string
	for _, f := range []plan.Family{plan.IPv4, plan.IPv6} {
		if f == plan.IPv6 && six == off {
			done = append(done, "IPv6 not at all (it is off in this pod)")
			continue
		}
		how, err := redirectFamily(ctx, wish, f, able, log)
		switch {
		case err == nil:
			done = append(done, fmt.Sprintf("%s to %s (%s)", f, f.Listener(), how))
		case f == plan.IPv6 && six == unaddressed:
			fmt.Fprintf(log, "redirect: %v\n", err)
			done = append(done, "IPv6 not at all (see above; this pod has no address of it, and should not be given one)")
		default:
			return err
		}
	}
	fmt.Fprintf(log, "redirect: %s goes: %s.\n", wish, strings.Join(done, ", "))
	return nil
}

// redirectFamily tells how it went.
func redirectFamily(ctx context.Context, wish plan.Wish, f plan.Family, able abilities, log io.Writer) (string, error) {
	used, err := apply(ctx, wish, f, able, log)
	if err != nil {
		return "", err
	}
	tried, err := try(ctx, wish, f)
	if err != nil {
		return "", fmt.Errorf("the %s rules are written (iptables-%s), but do not work: %w", f, used.by, err)
	}
	return fmt.Sprintf("iptables-%s; %s%s", used.by, tried, used.answers(f)), nil
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

// ipv6 is what the pod has of IPv6.
type ipv6 int

const (
	off         ipv6 = iota
	unaddressed      // an address may still come, by router advertisement
	addressed
)

func readIPv6() (ipv6, error) {
	content, err := os.ReadFile("/proc/self/net/if_inet6")
	if errors.Is(err, os.ErrNotExist) {
		return off, nil
	}
	if err != nil {
		return off, err
	}
	for line := range strings.Lines(string(content)) {
		// Address, index, length of the prefix, scope (0: global), flags, interface. Unique local addresses are global, too.
		if words := strings.Fields(line); len(words) == 6 && words[3] == "00" {
			return addressed, nil
		}
	}
	disabled, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	if err != nil || strings.TrimSpace(string(disabled)) == "0" {
		return unaddressed, err
	}
	return off, nil
}
