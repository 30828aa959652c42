package launch

import (
	"maps"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
)

// The commands of the sidecar.
const (
	Proxy   = "proxy"
	Gateway = "gateway"
	Check   = "check"
	Version = "version"
	Help    = "help"
)

// Where the sidecar listens if it is not told.
const (
	DefaultListen  = "127.0.0.1:14001"
	DefaultListen6 = "[::1]:14001"
	DefaultAdmin   = "127.0.0.1:14020"
	DefaultHealth  = ":14021"
)

// The modes of the proxy.
const (
	ModeNone     = "none"     // apps call the listener, or have their connections turned to it
	ModeRedirect = "redirect" // only connections that were turned to the listener are served
)

// How much the log says.
const (
	LogInfo  = "info"  // what goes wrong, and what changes
	LogDebug = "debug" // also each call: which provider answered, and whose key it took
)

// Args is a command line. Parse fills in the defaults of Admin, Health and Keys.
type Args struct {
	// Command is one of Proxy, Gateway, Check, Version, Help.
	Command string
	// Config is a file or folder of YAML. Empty: the configuration is in Kubernetes.
	Config string
	// Kubeconfig is a file that says how to reach Kubernetes. Empty, like Config: as pods do.
	Kubeconfig string
	// Namespace is the one in Kubernetes whose configuration is followed. Empty: that of the credentials.
	Namespace string
	// Keys is the name of the Secret in Namespace with the values that the configuration refers to. Parse fills in
	// v1beta1.KeysSecret where the configuration is in Kubernetes.
	Keys string
	// LastGood is a file for the configuration in use, for starts without Kubernetes; may be empty.
	LastGood string
	// Listen is where apps reach the proxy: IP and port, loopback only. Empty: see Listeners.
	Listen []string
	// Bind is the IP that a gateway listens on with the ports of its Istio Gateways. Empty: all that the machine has.
	Bind string
	// Region and Zone say where the process is. Empty: it is found out, as far as possible.
	Region, Zone string
	// Mode is one of ModeNone and ModeRedirect; empty is ModeNone.
	Mode string
	// Admin is where the running configuration is shown: IP and port, loopback only.
	Admin string
	// Health is where probes are answered: IP and port, or only ":port".
	Health string
	// TrustedCA is a PEM file of authorities that are trusted beside those of the system; may be empty.
	TrustedCA string
	// Labels are those of the workload that is served.
	Labels map[string]string
	// LogLevel is LogInfo or LogDebug. Empty: LogInfo.
	LogLevel string
	// LabelsFile has them instead, as the downward API writes them, and is followed while it changes. It excludes Labels.
	LabelsFile string
}

// Listener is an address to listen on.
type Listener struct {
	Address string
	// Optional: to be left out where the machine does not have the address.
	Optional bool
}

// GatewayLabels are those of a gateway that is not told of any: what Istio's own gateway has, and so most Gateways select it.
func GatewayLabels() map[string]string {
	return map[string]string{"istio": "ingressgateway", "app": v1beta1.GatewayName}
}

// Listeners gives what to listen on for apps: Listen, or the defaults, of which the IPv6 one is
// optional. A gateway has none: its ports are configuration.
func (a Args) Listeners() []Listener {
	if a.Command == Gateway {
		return nil
	}
	if len(a.Listen) == 0 {
		return []Listener{{Address: DefaultListen}, {Address: DefaultListen6, Optional: true}}
	}
	var all []Listener
	for _, address := range a.Listen {
		all = append(all, Listener{Address: address})
	}
	return all
}

// Strings is the inverse of Parse: the command line without the program's name.
func (a Args) Strings() []string {
	all := []string{a.Command}
	add := func(flag, value string) {
		if value != "" {
			all = append(all, "--"+flag+"="+value)
		}
	}
	add("config", a.Config)
	add("kubeconfig", a.Kubeconfig)
	add("namespace", a.Namespace)
	add("keys", a.Keys)
	add("last-good", a.LastGood)
	for _, address := range a.Listen {
		add("listen", address)
	}
	add("bind", a.Bind)
	add("mode", a.Mode)
	add("admin", a.Admin)
	add("health", a.Health)
	add("trusted-ca", a.TrustedCA)
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(a.Labels)) {
		labels = append(labels, k+"="+a.Labels[k])
	}
	add("labels", strings.Join(labels, ","))
	add("labels-file", a.LabelsFile)
	add("region", a.Region)
	add("zone", a.Zone)
	add("log-level", a.LogLevel)
	return all
}
