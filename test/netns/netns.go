// Package netns lets a program use the real names of providers without ever reaching them: the program goes on in a
// network namespace of its own that holds nothing but loopback, and in a mount namespace whose hosts file says where
// each name is. Whatever it starts from there (a sidecar, curl, node) is inside as well. The machine is not changed.
//
// The namespaces have to exist before the first thread looks at them, and Go programs have many threads, so Enter does
// not move the running process: it starts the same program again, inside, and stays outside as a door-keeper that
// passes on signals and the exit code.
package netns

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// hostsFile is the content of the private /etc/hosts. Names with an address outside loopback are an error: there is no
// route to them, so a test that used one would only time out.
func hostsFile(hosts map[string]string) (string, error) {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	names := make([]string, 0, len(hosts))
	for name := range hosts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if name == "" || strings.ContainsAny(name, " \t\r\n#") {
			return "", fmt.Errorf("%q is not a host name", name)
		}
		addr, err := netip.ParseAddr(hosts[name])
		if err != nil {
			return "", fmt.Errorf("the address of %s: %w", name, err)
		}
		if !addr.IsLoopback() {
			return "", fmt.Errorf("the address of %s is %s; only loopback exists inside, use 127.0.0.1", name, addr)
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	return b.String(), nil
}

// fail ends the process. A test that cannot have its namespace must not pass, so nothing here is ever skipped.
func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "netns: %s: %v\n"+
		"netns: this program needs a network namespace of its own: run it as root (CAP_SYS_ADMIN) on Linux\n", what, err)
	os.Exit(1)
}
