package launch

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseReadsEveryCommand(t *testing.T) {
	f := func(line string, want Args) {
		t.Helper()
		got, err := Parse(strings.Fields(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", line, got, want)
		}
	}
	f("proxy --config a", Args{Command: Proxy, Config: "a", Admin: DefaultAdmin, Health: DefaultHealth})
	f("proxy --config=a=b", Args{Command: Proxy, Config: "a=b", Admin: DefaultAdmin, Health: DefaultHealth})
	f("proxy --config a --listen 127.0.0.1:0 --listen=[::1]:80 --admin 127.0.0.2:1 --health 10.0.0.1:2 --trusted-ca ca.pem --labels app=sleep,remora.dev/x=",
		Args{Command: Proxy, Config: "a", Listen: []string{"127.0.0.1:0", "[::1]:80"}, Admin: "127.0.0.2:1", Health: "10.0.0.1:2",
			TrustedCA: "ca.pem", Labels: map[string]string{"app": "sleep", "remora.dev/x": ""}})
	f("proxy --config a --mode redirect", Args{Command: Proxy, Config: "a", Mode: ModeRedirect, Admin: DefaultAdmin, Health: DefaultHealth})
	f("proxy --config a --mode=none", Args{Command: Proxy, Config: "a", Mode: ModeNone, Admin: DefaultAdmin, Health: DefaultHealth})
	f("proxy --config a --health [::]:1", Args{Command: Proxy, Config: "a", Admin: DefaultAdmin, Health: "[::]:1"})
	f("proxy", Args{Command: Proxy, Keys: "remora-sidecar-keys", Admin: DefaultAdmin, Health: DefaultHealth})
	f("proxy --kubeconfig k --namespace team --keys other --last-good /run/x/y",
		Args{Command: Proxy, Kubeconfig: "k", Namespace: "team", Keys: "other", LastGood: "/run/x/y", Admin: DefaultAdmin, Health: DefaultHealth})
	f("proxy --config a --log-level debug", Args{Command: Proxy, Config: "a", LogLevel: LogDebug, Admin: DefaultAdmin, Health: DefaultHealth})
	f("proxy --config a --labels-file /etc/pod/labels", Args{Command: Proxy, Config: "a", LabelsFile: "/etc/pod/labels", Admin: DefaultAdmin, Health: DefaultHealth})
	f("check --config a --labels tier=gold", Args{Command: Check, Config: "a", Labels: map[string]string{"tier": "gold"}})
	f("gateway --config a", Args{Command: Gateway, Config: "a", Labels: GatewayLabels(), Admin: DefaultAdmin, Health: DefaultHealth})
	f("gateway --labels istio=egress --bind 127.0.0.1 --region eu --zone eu-1", Args{Command: Gateway, Keys: "remora-sidecar-keys", Bind: "127.0.0.1",
		Region: "eu", Zone: "eu-1", Labels: map[string]string{"istio": "egress"}, Admin: DefaultAdmin, Health: DefaultHealth})
	f("gateway --labels-file /etc/pod/labels", Args{Command: Gateway, Keys: "remora-sidecar-keys", LabelsFile: "/etc/pod/labels", Admin: DefaultAdmin, Health: DefaultHealth})
	f("version", Args{Command: Version})
	f("--version", Args{Command: Version})
	f("help", Args{Command: Help})
	f("-h", Args{Command: Help})
	f("proxy --help", Args{Command: Help})
	f("check --config a -h", Args{Command: Help})
}

func TestParseRefusesWithTheFlagAndTheRemedy(t *testing.T) {
	f := func(line string, want ...string) {
		t.Helper()
		got, err := Parse(strings.Fields(line))
		if err == nil {
			t.Errorf("%s: accepted as %+v", line, got)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", line, err, w)
			}
		}
	}
	f("", "command", "sidecar proxy --config")
	f("serve", `"serve"`, "proxy, gateway, check")
	f("gateway --config a --listen 127.0.0.1:1", "--listen is not a flag of sidecar gateway", "--bind")
	f("gateway --bind localhost", "--bind", "is not an IP address")
	f("gateway --bind 127.0.0.1:80", "--bind", "the ports are those of the Istio Gateways")
	f("gateway --zone a/b", "--zone", "is not the name of a region or zone")
	f("gateway --config a --namespace b", "--config and --namespace exclude each other")
	f("--config a proxy", "--config comes before the command")
	f("check", "--config is missing", "sidecar check --config")
	f("proxy --config", "--config has no value")
	f("proxy --config --listen 127.0.0.1:1", "--config has no value")
	f("proxy --config=", "--config has no value")
	f("proxy --config a --config b", "--config is given twice")
	f("proxy --config a b", `"b" is not expected`)
	f("proxy -config a", "-config is not a flag: write --config")
	f("proxy --config a --", `"--" is not expected`)
	f("proxy --config a --port 1", "--port is not a flag of sidecar proxy", "--listen")
	f("check --config a --listen 127.0.0.1:1", "--listen is not a flag of sidecar check", "--labels")
	f("proxy --config a -v", "-v is not a flag", "long names")
	f("proxy --config a --kubeconfig b", "--config and --kubeconfig exclude each other")
	f("proxy --config a --namespace b", "--config and --namespace exclude each other")
	f("proxy --config a --keys b", "--config and --keys exclude each other")
	f("proxy --config a --last-good b", "--config and --last-good exclude each other")
	f("proxy --log-level loud", `"loud" is not a level of the log: write info or debug`)
	f("proxy --labels a=b --labels-file c", "--labels and --labels-file exclude each other")
	f("check --config a --labels-file c", "--labels-file is not a flag of sidecar check")
	f("proxy --namespace A", "--namespace", `"A" is not the name of a namespace`)
	f("proxy --keys a_b", "--keys", `"a_b" is not the name of a Secret`)
	f("check --config a --kubeconfig b", "--kubeconfig is not a flag of sidecar check")
	f("version --config a", "--config", "no flags")
	f("proxy --config a --listen 0.0.0.0:1", "--listen", "anyone on the network could spend the keys", DefaultListen)
	f("proxy --config a --listen [::]:1", "--listen", "anyone on the network could spend the keys")
	f("proxy --config a --listen 10.0.0.1:1", "--listen", "not a loopback address")
	f("proxy --config a --listen :14001", "--listen", "not an IP address and port", DefaultListen)
	f("proxy --config a --listen localhost:14001", "--listen", "not an IP address and port")
	f("proxy --config a --listen 127.0.0.1", "--listen", "not an IP address and port")
	f("proxy --config a --listen 127.0.0.1:99999", "--listen", "not an IP address and port")
	f("proxy --config a --listen 127.0.0.1:1 --listen 127.0.0.1:1", "--listen", "twice")
	f("proxy --config a --mode Redirect", "--mode", `"Redirect" is not a mode`, "none or redirect")
	f("check --config a --mode none", "--mode is not a flag of sidecar check")
	f("proxy --config a --admin :14020", "--admin", DefaultAdmin)
	f("proxy --config a --admin 0.0.0.0:14020", "--admin", "not a loopback address")
	f("proxy --config a --health 14021", "--health", DefaultHealth)
	f("proxy --config a --health localhost:14021", "--health", DefaultHealth)
	f("proxy --config a --labels app", "--labels", `"app" is not key=value`)
	f("proxy --config a --labels app=a,app=b", "--labels", "twice")
	f("proxy --config a --labels a_=b", "--labels", "key of a label")
	f("proxy --config a --labels a=-", "--labels", "value of a label")
}

func TestACommandLineThatIsWrittenIsReadBackTheSame(t *testing.T) {
	for _, want := range []Args{
		{Command: Proxy, Config: "/etc/remora", Admin: DefaultAdmin, Health: DefaultHealth},
		{Command: Proxy, Config: "--odd name", Listen: []string{"127.0.0.1:1", "[::1]:1"}, Admin: "[::1]:2", Health: ":3", TrustedCA: "a=b", Labels: map[string]string{"b": "1", "a": "", "x.y/z": "q"}},
		{Command: Proxy, Kubeconfig: "a b", Namespace: "team-a", Keys: "keys", LastGood: "=", Mode: ModeRedirect, Admin: DefaultAdmin, Health: DefaultHealth},
		{Command: Proxy, Config: "a", LabelsFile: "/etc/pod/labels", Admin: DefaultAdmin, Health: DefaultHealth},
		{Command: Gateway, Namespace: "remora-gateway", Keys: "keys", Bind: "::1", Region: "r", Zone: "z", LabelsFile: "/etc/pod/labels", Admin: DefaultAdmin, Health: DefaultHealth},
		{Command: Check, Config: "a", Labels: map[string]string{"a": "b"}},
		{Command: Version},
		{Command: Help},
	} {
		got, err := Parse(want.Strings())
		if err != nil {
			t.Errorf("%v: %v", want.Strings(), err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%v:\ngot  %+v\nwant %+v", want.Strings(), got, want)
		}
	}
}

func TestOnlyTheDefaultOfIPv6IsOptional(t *testing.T) {
	got := Args{}.Listeners()
	want := []Listener{{Address: DefaultListen}, {Address: DefaultListen6, Optional: true}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("defaults: %+v", got)
	}
	got = Args{Listen: []string{DefaultListen6}}.Listeners()
	if want := []Listener{{Address: DefaultListen6}}; !reflect.DeepEqual(got, want) {
		t.Errorf("asked for: %+v", got)
	}
}

func TestTheUsageNamesEveryCommandAndFlag(t *testing.T) {
	for command, all := range flags {
		if !strings.Contains(Usage, "sidecar "+command) {
			t.Errorf("usage does not name %s", command)
		}
		for _, name := range all {
			if !strings.Contains(Usage, "--"+name+" ") {
				t.Errorf("usage does not name --%s", name)
			}
		}
	}
}
