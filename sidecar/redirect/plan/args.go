package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Args is the command line of the program redirect.
type Args struct {
	// Ports are the TCP ports whose connections are redirected. Parse fills in DefaultPort.
	Ports []uint16
	// Exclude are addresses to which nothing is redirected; may be empty.
	Exclude []netip.Prefix
}

// DefaultPort is what is redirected if nothing is said: plain HTTP.
const DefaultPort = 80

// Usage teaches the command line.
const Usage = `redirect: has the outbound connections of this network namespace end at the sidecar, by iptables.

  redirect [flags]       write the rules, and check from an app's side that they work
  redirect help          print this

Flags:

  --ports P,P,...        TCP ports whose connections are redirected (default 80); one that passes by the redirection is refused
  --exclude CIDR,...     addresses to which nothing is redirected

It needs NET_ADMIN, and for iptables-legacy NET_RAW too. Running it again, also with other flags, replaces its own rules and no others.
Exit code: 0 the rules work, 1 they could not be written or do not work, 2 the command line is wrong.
`

// Strings is the inverse of Parse: the command line without the program's name.
func (a Args) Strings() []string {
	all := []string{"--ports=" + join(a.Ports, ",")}
	if len(a.Exclude) > 0 {
		all = append(all, "--exclude="+join(a.Exclude, ","))
	}
	return all
}

func join[T any](all []T, separator string) string {
	words := make([]string, 0, len(all))
	for _, one := range all {
		words = append(words, fmt.Sprint(one))
	}
	return strings.Join(words, separator)
}

// Parse reads a command line, without the program's name. Its errors name the argument that is wrong and what to write instead.
func Parse(args []string) (Args, error) {
	a := Args{}
	seen := map[string]bool{}
	for len(args) > 0 {
		flag := args[0]
		args = args[1:]
		if !strings.HasPrefix(flag, "--") {
			return Args{}, fmt.Errorf("%q is not expected: redirect takes flags, --ports and --exclude", flag)
		}
		name, value, whole := strings.Cut(flag[2:], "=")
		if seen[name] {
			return Args{}, fmt.Errorf("--%s is given twice: keep one", name)
		}
		seen[name] = true
		if !whole && len(args) > 0 {
			value, args = args[0], args[1:]
		}
		var err error
		switch name {
		case "ports":
			a.Ports, err = ParsePorts(value)
		case "exclude":
			a.Exclude, err = parsePrefixes(value)
		default:
			err = errors.New("it is not a flag of redirect, which has --ports and --exclude")
		}
		if err != nil {
			return Args{}, fmt.Errorf("--%s: %w", name, err)
		}
	}
	if len(a.Ports) == 0 {
		a.Ports = []uint16{DefaultPort}
	}
	return a, nil
}

// maxPorts keeps the rules readable: each port is one.
const maxPorts = 15

// ParsePorts reads TCP ports that are separated by commas, such as 80,8080. Its errors name the port and say what to write.
func ParsePorts(value string) ([]uint16, error) {
	var all []uint16
	for word := range strings.SplitSeq(value, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(word), 10, 16)
		switch {
		case err != nil || n == 0:
			return nil, fmt.Errorf("%q is not a port: write numbers from 1 to 65535, such as 80,8080", word)
		case n == 53:
			return nil, errors.New("53 is DNS, which is never redirected: leave it out")
		case n >= 14000 && n < 14100:
			return nil, fmt.Errorf("%d is a port of the sidecar itself (14000 to 14099): leave it out", n)
		case slices.Contains(all, uint16(n)):
			return nil, fmt.Errorf("%d is given twice: keep one", n)
		}
		all = append(all, uint16(n))
	}
	if len(all) > maxPorts {
		return nil, fmt.Errorf("these are %d ports: write at most %d", len(all), maxPorts)
	}
	return all, nil
}

func parsePrefixes(value string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for word := range strings.SplitSeq(value, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(word))
		switch {
		case err != nil:
			return nil, fmt.Errorf("%q is not a range of addresses: write one such as 10.0.0.0/8", word)
		case p.Addr().Is4In6():
			return nil, fmt.Errorf("%q is a range of IPv4 written as IPv6: write one such as 10.0.0.0/8", word)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}
