package launch

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"remora.dev/remora/apis/v1beta1"
)

// flags says which flags each command has.
var flags = map[string][]string{
	Proxy:   {"config", "kubeconfig", "namespace", "keys", "last-good", "listen", "mode", "admin", "health", "trusted-ca", "labels", "labels-file", "region", "zone", "log-level"},
	Gateway: {"config", "kubeconfig", "namespace", "keys", "last-good", "bind", "admin", "health", "trusted-ca", "labels", "labels-file", "region", "zone", "log-level"},
	Check:   {"config", "labels"},
	Version: nil,
	Help:    nil,
}

// Parse reads a command line, without the program's name. Its errors name the argument that is wrong
// and what to write instead.
func Parse(args []string) (Args, error) {
	if len(args) == 0 {
		return Args{}, fmt.Errorf("a command is missing: %s", commands)
	}
	a := Args{Command: args[0]}
	switch a.Command {
	case "-h", "--help":
		return Args{Command: Help}, nil
	case "--version":
		return Args{Command: Version}, nil
	}
	allowed, known := flags[a.Command]
	if !known {
		if strings.HasPrefix(a.Command, "-") {
			return Args{}, fmt.Errorf("%s comes before the command: %s", a.Command, commands)
		}
		return Args{}, fmt.Errorf("%q is not a command: %s", a.Command, commands)
	}
	seen := map[string]bool{}
	for rest := args[1:]; len(rest) > 0; {
		if rest[0] == "-h" || rest[0] == "--help" {
			return Args{Command: Help}, nil
		}
		name, value, left, err := next(rest)
		if err != nil {
			return Args{}, err
		}
		if !slices.Contains(allowed, name) {
			return Args{}, unknown(a.Command, name, allowed)
		}
		if seen[name] && name != "listen" {
			return Args{}, fmt.Errorf("--%s is given twice: keep one", name)
		}
		seen[name] = true
		if err := a.set(name, value); err != nil {
			return Args{}, fmt.Errorf("--%s: %w", name, err)
		}
		rest = left
	}
	switch a.Command {
	case Check:
		if a.Config == "" {
			return Args{}, errors.New("--config is missing: name a file or folder of YAML, such as: sidecar check --config config/samples/asm")
		}
	case Proxy, Gateway:
		for _, name := range ofKubernetes {
			if a.Config != "" && seen[name] {
				return Args{}, fmt.Errorf("--config and --%s exclude each other: the configuration comes from files or from Kubernetes", name)
			}
		}
		if seen["labels"] && seen["labels-file"] {
			return Args{}, errors.New("--labels and --labels-file exclude each other: the labels are given or read")
		}
		if a.Command == Gateway && !seen["labels"] && !seen["labels-file"] {
			a.Labels = GatewayLabels()
		}
		if a.Config == "" {
			a.Keys = cmp.Or(a.Keys, v1beta1.KeysSecret)
		}
		a.Admin, a.Health = cmp.Or(a.Admin, DefaultAdmin), cmp.Or(a.Health, DefaultHealth)
	}
	return a, nil
}

// ofKubernetes are the flags that mean nothing for files.
var ofKubernetes = []string{"kubeconfig", "namespace", "keys", "last-good"}

// ErrNoConfiguration says that a command line names no configuration and that there is none where it runs, which
// only the process can find out.
var ErrNoConfiguration = errors.New("--config is missing: name a file or folder of YAML, such as: sidecar proxy --config config/samples/asm; " +
	"or follow Kubernetes with --kubeconfig FILE; only in a pod (KUBERNETES_SERVICE_HOST is not set here) neither is needed")

// next takes a flag and its value from the front of args.
func next(args []string) (name, value string, rest []string, err error) {
	name, value, together := strings.Cut(args[0], "=")
	bare := strings.TrimLeft(name, "-")
	switch {
	case !strings.HasPrefix(name, "-") || bare == "":
		return "", "", nil, fmt.Errorf("%q is not expected here: flags are written --name value or --name=value", args[0])
	case !strings.HasPrefix(name, "--") && len(bare) > 1:
		return "", "", nil, fmt.Errorf("%s is not a flag: write --%s", name, bare)
	case !strings.HasPrefix(name, "--"):
		return "", "", nil, fmt.Errorf("%s is not a flag: flags have long names, such as --config", name)
	}
	rest = args[1:]
	if !together && len(rest) > 0 && !strings.HasPrefix(rest[0], "--") {
		value, rest = rest[0], rest[1:]
	}
	if value == "" {
		return "", "", nil, fmt.Errorf("%s has no value: write %s=VALUE", name, name)
	}
	return bare, value, rest, nil
}

func unknown(command, name string, allowed []string) error {
	if len(allowed) == 0 {
		return fmt.Errorf("--%s: sidecar %s has no flags", name, command)
	}
	return fmt.Errorf("--%s is not a flag of sidecar %s: it has --%s", name, command, strings.Join(allowed, ", --"))
}

func (a *Args) set(name, value string) (err error) {
	switch name {
	case "config":
		a.Config = value
	case "kubeconfig":
		a.Kubeconfig = value
	case "last-good":
		a.LastGood = value
	case "namespace":
		a.Namespace = value
		if why := validation.IsDNS1123Label(value); len(why) > 0 {
			return fmt.Errorf("%q is not the name of a namespace: %s", value, why[0])
		}
	case "keys":
		a.Keys = value
		if why := validation.IsDNS1123Subdomain(value); len(why) > 0 {
			return fmt.Errorf("%q is not the name of a Secret: %s", value, why[0])
		}
	case "labels-file":
		a.LabelsFile = value
	case "trusted-ca":
		a.TrustedCA = value
	case "listen":
		if slices.Contains(a.Listen, value) {
			return fmt.Errorf("%s is given twice: keep one", value)
		}
		a.Listen = append(a.Listen, value)
		return loopback(value, DefaultListen, "anyone on the network could spend the keys")
	case "bind":
		a.Bind = value
		if _, err := netip.ParseAddr(value); err != nil {
			return fmt.Errorf("%q is not an IP address: write one such as 127.0.0.1; the ports are those of the Istio Gateways", value)
		}
	case "region":
		a.Region = value
		return place(value)
	case "zone":
		a.Zone = value
		return place(value)
	case "mode":
		a.Mode = value
		if value != ModeNone && value != ModeRedirect {
			return fmt.Errorf("%q is not a mode: write %s or %s", value, ModeNone, ModeRedirect)
		}
	case "log-level":
		a.LogLevel = value
		return CheckLogLevel(value)
	case "admin":
		a.Admin = value
		return loopback(value, DefaultAdmin, "anyone on the network could read the configuration")
	case "health":
		a.Health = value
		if port, short := strings.CutPrefix(value, ":"); short {
			value = "0.0.0.0:" + port
		}
		if _, err := netip.ParseAddrPort(value); err != nil {
			return fmt.Errorf("%q is not an IP address and port: write one such as %s or %s", a.Health, DefaultHealth, "127.0.0.1:14021")
		}
	case "labels":
		a.Labels, err = parseLabels(value)
	}
	return err
}

// loopback refuses addresses that others than this machine can reach.
func loopback(value, example, why string) error {
	at, err := netip.ParseAddrPort(value)
	if err != nil {
		return fmt.Errorf("%q is not an IP address and port: write one such as %s", value, example)
	}
	if !at.Addr().IsLoopback() {
		return fmt.Errorf("%s is not a loopback address, so %s: write one such as %s", value, why, example)
	}
	return nil
}

// place judges a region or zone, which is the value of a label of nodes.
func place(value string) error {
	if why := validation.IsValidLabelValue(value); len(why) > 0 {
		return fmt.Errorf("%q is not the name of a region or zone: %s", value, why[0])
	}
	return nil
}

func parseLabels(value string) (map[string]string, error) {
	labels := map[string]string{}
	for pair := range strings.SplitSeq(value, ",") {
		k, v, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not key=value: write labels such as app=sleep,tier=gold", pair)
		}
		if why := validation.IsQualifiedName(k); len(why) > 0 {
			return nil, fmt.Errorf("%q is not the key of a label: %s", k, why[0])
		}
		if why := validation.IsValidLabelValue(v); len(why) > 0 {
			return nil, fmt.Errorf("%q is not the value of a label: %s", v, why[0])
		}
		if _, twice := labels[k]; twice {
			return nil, fmt.Errorf("label %s is given twice: keep one", k)
		}
		labels[k] = v
	}
	return labels, nil
}

// CheckLogLevel says what is wrong with a level of the log.
func CheckLogLevel(level string) error {
	if level != LogInfo && level != LogDebug {
		return fmt.Errorf("%q is not a level of the log: write %s or %s", level, LogInfo, LogDebug)
	}
	return nil
}
