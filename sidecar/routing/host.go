package routing

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	svcSuffix     = ".svc"
	clusterSuffix = ".svc.cluster.local"
)

// forms gives every name under which a host of a namespace can be called, its canonical one first. A
// short name, and a Service's longer names, stand for each other, as the pod's DNS search path has it.
func forms(host, namespace string) []string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	service, ns := host, namespace
	switch trimmed, long := trimAny(host, clusterSuffix, svcSuffix); {
	case long && strings.Count(trimmed, ".") == 1:
		service, ns, _ = strings.Cut(trimmed, ".")
	case strings.Count(host, ".") == 1 && strings.HasSuffix(host, "."+namespace):
		service = strings.TrimSuffix(host, "."+namespace)
	case strings.Contains(host, "."):
		return []string{host}
	}
	qualified := service + "." + ns
	all := []string{qualified, qualified + svcSuffix, qualified + clusterSuffix}
	if ns == namespace {
		all = append(all, service)
	}
	return all
}

func canonical(host, namespace string) string { return forms(host, namespace)[0] }

func trimAny(s string, suffixes ...string) (string, bool) {
	for _, suffix := range suffixes {
		if t, ok := strings.CutSuffix(s, suffix); ok {
			return t, true
		}
	}
	return s, false
}

// salvage takes from a host field that is wrong what the app may nevertheless call, so that those calls
// are refused and not passed on. It may hold wildcards.
func salvage(host string) string {
	host = strings.ToLower(strings.TrimSpace(host))
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	if i := strings.IndexAny(host, `/?#\`); i >= 0 {
		host = host[:i]
	}
	if i := strings.LastIndex(host, "@"); i >= 0 {
		host = host[i+1:]
	}
	switch ip, err := netip.ParseAddr(host); {
	case err == nil && ip.Is6():
		return "[" + host + "]" // as it is called
	case strings.HasPrefix(host, "["):
		inside, _, _ := strings.Cut(host, "]")
		return inside + "]"
	}
	host, _, _ = strings.Cut(host, ":")
	host = strings.TrimRight(host, ".")
	if ascii, err := idna.Lookup.ToASCII(host); err == nil && !isASCII(host) {
		return ascii // what a client makes of it
	}
	return host
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' }) }

// judgeHost adds to f what is wrong with a host field.
func judgeHost(f *findings, field, host string) {
	bad := func(format string, args ...any) { f.invalid(InvalidValue, field, format, args...) }
	name := salvage(host)
	only := "write only the name"
	if name != "" && name != host {
		only = "write only the name: " + name
	}
	switch {
	case host == "":
		bad("is required: the name of the host, such as dashscope.aliyuncs.com")
	case strings.Contains(host, "://"):
		bad("%q has a scheme: %s", host, only)
	case strings.ContainsAny(host, "/?#"):
		bad("%q has a path: %s; the path belongs into spec.path of the LLMProvider", host, only)
	case strings.Contains(host, "*"):
		bad("%q has a wildcard: name each host by itself", host)
	case strings.Contains(host, "_"):
		bad("%q has an underscore, which host names cannot have: use a hyphen", host)
	case strings.ContainsAny(host, "[]") || strings.Count(host, ":") > 1:
		bad("%q is an IPv6 address: use a name that resolves to it", host)
	case strings.Contains(host, ":"):
		bad("%q has a port: %s; the port belongs into spec.port of the LLMProvider", host, only)
	case strings.HasSuffix(host, "."):
		bad("%q ends in a dot: remove it", host)
	case !isASCII(host):
		if isASCII(name) {
			only = "write it as DNS has it: " + name
		}
		bad("%q has letters that DNS does not have: %s", host, only)
	default:
		if _, err := netip.ParseAddr(host); err == nil {
			return
		}
		if why := validation.IsDNS1123Subdomain(strings.ToLower(host)); len(why) > 0 {
			bad("%q is not a DNS name: %s", host, why[0])
			return
		}
		for label := range strings.SplitSeq(host, ".") {
			if len(label) > validation.DNS1123LabelMaxLength {
				bad("%q is not a DNS name: %q is longer than %d characters", host, label, validation.DNS1123LabelMaxLength)
			}
		}
		if last := host[strings.LastIndex(host, ".")+1:]; !strings.ContainsFunc(last, func(r rune) bool { return r < '0' || r > '9' }) {
			bad("%q ends in a number, but is not an IPv4 address: write four numbers from 0 to 255 without leading zeros, or a name", host)
		}
	}
}
