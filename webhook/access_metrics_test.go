package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// oneGauge gives the value of a metric without labels, and whether there is one.
func oneGauge(t *testing.T, c prometheus.Collector, name string) (float64, bool) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue(), true
		}
	}
	return 0, false
}

func TestTheNamespaceThatWasKeptLongestAgoIsTheOneThatIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newAccessGauge()
		f := func(want time.Duration) {
			t.Helper()
			if got, _ := oneGauge(t, g, "remora_pass_age_seconds"); got != want.Seconds() {
				t.Errorf("%v s, want %s", got, want)
			}
		}
		if got, there := oneGauge(t, g, "remora_pass_age_seconds"); there {
			t.Errorf("of no namespace: %v s", got)
		}
		g.fail("never")
		g.set("well", accessState{})
		g.succeed("well")
		f(0)
		<-time.After(time.Hour)
		g.set("well", accessState{})
		f(time.Hour) // what is set may have failed
		g.succeed("well")
		g.fail("never")
		f(time.Hour)
		g.set("never", accessState{})
		g.succeed("never")
		f(0)
		<-time.After(time.Minute)
		g.succeed("never")
		f(time.Minute)
		g.forget("well")
		f(0)
		g.succeed("gone") // a pass that has removed everything
		g.forget("never")
		if _, there := oneGauge(t, g, "remora_pass_age_seconds"); there {
			t.Error("a namespace that is gone counts")
		}
	})
}
