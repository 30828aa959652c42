package plan_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/redirect/plan"
)

func TestACommandLineOfRedirectIsReadBackTheSame(t *testing.T) {
	for _, want := range []plan.Args{
		{Ports: []uint16{80}},
		{Ports: []uint16{80, 8080}, Exclude: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}},
	} {
		got, err := plan.Parse(want.Strings())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: got %+v, %v", want.Strings(), got, err)
		}
	}
	if got, err := plan.Parse(nil); err != nil || !reflect.DeepEqual(got, plan.Args{Ports: []uint16{80}}) {
		t.Errorf("without flags: %+v, %v", got, err)
	}
}

func TestParseRefusesWithTheFlagAndTheRemedy(t *testing.T) {
	f := func(line string, want ...string) {
		t.Helper()
		_, err := plan.Parse(strings.Fields(line))
		if err == nil {
			t.Errorf("%s: accepted", line)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", line, err, w)
			}
		}
	}
	f("--ports 80 --ports 81", "--ports is given twice")
	f("--ports http", "--ports", `"http" is not a port`, "80,8080")
	f("--ports 0", `"0" is not a port`)
	f("--ports 65536", `"65536" is not a port`)
	f("--ports 80,", `"" is not a port`)
	f("--ports 80,80", "twice")
	f("--ports 14001", "of the sidecar itself")
	f("--ports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", "at most 15")
	f("--exclude 10.0.0.1", "--exclude", "10.0.0.0/8")
	f("--ports 53", "is DNS")
	f("--ports", `"" is not a port`)
	f("--exclude ::ffff:10.0.0.0/104", "--exclude", "10.0.0.0/8")
	f("--to 1", "--to", "not a flag of redirect")
	f("apply", `"apply" is not expected`)
}

func TestTheRulesKnowTheSidecarAsInjectionMakesIt(t *testing.T) {
	if plan.UID != v1beta1.SidecarUID {
		t.Errorf("the rules leave user %d alone, and the sidecar is %d", plan.UID, v1beta1.SidecarUID)
	}
	if plan.IPv4.Listener().String() != launch.DefaultListen || plan.IPv6.Listener().String() != launch.DefaultListen6 {
		t.Errorf("connections are sent to %s and %s, and the sidecar listens on %s and %s",
			plan.IPv4.Listener(), plan.IPv6.Listener(), launch.DefaultListen, launch.DefaultListen6)
	}
}
