package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
)

// flags are those that both commands have.
type flags struct {
	health, metrics string // addresses
	namespace       string // of the installation
	kubeconfig      string
}

// parse reads a command line. own are the further flags of the command, each an address.
func (f *flags) parse(set *flag.FlagSet, args []string, own map[string]*string) error {
	set.SetOutput(io.Discard) // the caller says what is wrong
	set.StringVar(&f.health, "health", ":8081", "")
	set.StringVar(&f.metrics, "metrics", "127.0.0.1:8080", "")
	set.StringVar(&f.namespace, "namespace", ownNamespace(), "")
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "")
	if err := set.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if set.NArg() > 0 {
		return fmt.Errorf("%w: %q is not a flag", errUsage, set.Arg(0))
	}
	addresses := map[string]string{"health": f.health}
	for name, address := range own {
		addresses[name] = *address
	}
	for name, address := range addresses {
		if _, port, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("%w: --%s %q is not an address: write HOST:PORT or :PORT", errUsage, name, address)
		} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%w: --%s %q has no port from 1 to 65535", errUsage, name, address)
		}
	}
	return nil
}
