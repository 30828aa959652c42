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
	case strings.ContainsAny(host, ".:"):
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
	host = strings.TrimLeft(host, `/\`)
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
	if !isASCII(host) {
		if ascii, err := clientNames.ToASCII(host); err == nil {
			return ascii
		}
	}
	return host
}

// clientNames turns a name into what clients make of it, asterisks and underscores included.
var clientNames = idna.New(idna.MapForLookup(), idna.StrictDomainName(false))

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' }) }

// judgeHost adds to f what is wrong with a host field.
func judgeHost(f *findings, field, host string) {
	bad := func(why string) { f.invalid(InvalidValue, field, "%q %s", presentable(host), why) }
	name := salvage(host)
	only := "write only the name"
	if name != "" && name != host {
		only = "write only the name: " + name
	}
	switch {
	case host == "":
		f.invalid(InvalidValue, field, "is required: the name of the host, such as dashscope.aliyuncs.com")
	case variable.MatchString(host):
		bad("looks like a variable that nothing has replaced: put the name in its place")
	case strings.Contains(host, "://"):
		bad("has a scheme: " + only)
	case strings.ContainsAny(host, "/?#"):
		bad("has a path: " + only + "; the path belongs into spec.path of the LLMProvider")
	case strings.Contains(host, "@"):
		bad("has a user: " + only)
	case strings.Contains(host, "*"):
		bad("has a wildcard: name each host by itself")
	case strings.Contains(host, "_"):
		bad("has an underscore, which host names cannot have: use a hyphen")
	case strings.HasPrefix(name, "["):
		bad("is an IPv6 address: use a name that resolves to it")
	case strings.Contains(host, ":"):
		bad("has a port: " + only + "; the port belongs into spec.port of the LLMProvider")
	case strings.HasSuffix(host, "."):
		bad("ends in a dot: remove it")
	case !isASCII(host):
		if isASCII(name) {
			only = "write it as DNS has it: " + name
		}
		bad("has letters that DNS does not have: " + only)
	default:
		judgeDNSName(bad, host)
	}
}

// presentable leaves out what may be a secret: a user's password, a query.
func presentable(host string) string {
	if i := strings.IndexAny(host, "?#"); i >= 0 {
		host = host[:i] + "…"
	}
	if i := strings.LastIndex(host, "@"); i >= 0 {
		scheme, _, found := strings.Cut(host[:i], "://")
		if host = "…" + host[i:]; found {
			host = scheme + "://" + host
		}
	}
	return host
}

func judgeDNSName(bad func(why string), host string) {
	if _, err := netip.ParseAddr(host); err == nil {
		return
	}
	if len(host) > validation.DNS1123SubdomainMaxLength {
		bad("is not a DNS name: it is longer than 253 characters")
		return
	}
	labels := strings.Split(strings.ToLower(host), ".")
	for _, label := range labels {
		if len(label) > validation.DNS1123LabelMaxLength {
			bad("is not a DNS name: a part between dots is longer than 63 characters")
			return
		}
		if len(validation.IsDNS1123Label(label)) > 0 {
			bad("is not a DNS name: use letters, digits, hyphens and dots, and begin and end each part with a letter or digit")
			return
		}
	}
	if !strings.ContainsFunc(labels[len(labels)-1], func(r rune) bool { return r < '0' || r > '9' }) {
		bad("ends in a number, but is not an IPv4 address: write four numbers from 0 to 255 without leading zeros, or a name")
	}
}
