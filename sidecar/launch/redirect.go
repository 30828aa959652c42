package launch

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Redirect is the command line of the program redirect, which sends a pod's outbound connections to the sidecar.
type Redirect struct {
	// Ports are the TCP ports whose connections are redirected. ParseRedirect fills in 80.
	Ports []uint16
	// Exclude are addresses to which nothing is redirected; may be empty.
	Exclude []netip.Prefix
}

// RedirectPort is where redirected connections arrive, on the loopback addresses of DefaultListen and DefaultListen6.
const RedirectPort = 14001

// DefaultRedirectPort is what is redirected if nothing is said: plain HTTP.
const DefaultRedirectPort = 80

// RedirectUsage teaches the command line of redirect.
const RedirectUsage = `redirect: has the outbound connections of this network namespace end at the sidecar, by iptables.

  redirect [flags]       write the rules, and check from an app's side that they work
  redirect help          print this

Flags:

  --ports P,P,...        TCP ports whose connections are redirected (default 80)
  --exclude CIDR,...     addresses to which nothing is redirected

It needs NET_ADMIN, and for iptables-legacy NET_RAW too. Running it again, also with other flags, replaces its own rules and no others.
Exit code: 0 the rules work, 1 they could not be written or do not work, 2 the command line is wrong.
`

// Strings is the inverse of ParseRedirect: the command line without the program's name.
func (r Redirect) Strings() []string {
	var ports, exclude []string
	for _, p := range r.Ports {
		ports = append(ports, strconv.Itoa(int(p)))
	}
	for _, p := range r.Exclude {
		exclude = append(exclude, p.String())
	}
	all := []string{"--ports=" + strings.Join(ports, ",")}
	if len(exclude) > 0 {
		all = append(all, "--exclude="+strings.Join(exclude, ","))
	}
	return all
}

// ParseRedirect reads a command line of redirect, without the program's name. Its errors name the argument that is wrong and
// what to write instead.
func ParseRedirect(args []string) (Redirect, error) {
	r := Redirect{}
	seen := map[string]bool{}
	for len(args) > 0 {
		name, value, rest, err := next(args)
		if err != nil {
			return Redirect{}, err
		}
		if seen[name] {
			return Redirect{}, fmt.Errorf("--%s is given twice: keep one", name)
		}
		seen[name] = true
		switch name {
		case "ports":
			r.Ports, err = ParsePorts(value)
		case "exclude":
			r.Exclude, err = parsePrefixes(value)
		default:
			err = fmt.Errorf("it is not a flag of redirect, which has --ports and --exclude")
		}
		if err != nil {
			return Redirect{}, fmt.Errorf("--%s: %w", name, err)
		}
		args = rest
	}
	if len(r.Ports) == 0 {
		r.Ports = []uint16{DefaultRedirectPort}
	}
	return r, nil
}

// maxPorts is what one rule of iptables can name.
const maxPorts = 15

// ParsePorts reads TCP ports that are separated by commas, such as 80,8080. Its errors name the port and say what to write.
func ParsePorts(value string) ([]uint16, error) {
	var all []uint16
	for word := range strings.SplitSeq(value, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(word), 10, 16)
		switch {
		case err != nil || n == 0:
			return nil, fmt.Errorf("%q is not a port: write numbers from 1 to 65535, such as 80,8080", word)
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
		p, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, fmt.Errorf("%q is not a range of addresses: write one such as 10.0.0.0/8", word)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}
