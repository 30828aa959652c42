package balance

import (
	"testing"

	"remora.dev/remora/sidecar/routing"
)

// placed gives n servers in each of these localities, whose addresses begin with their names.
func placed(n int, in ...[2]string) (all routing.Servers) {
	for _, l := range in {
		for i := range n {
			all = append(all, routing.Server{Address: l[0] + l[1] + string(rune('a'+i)), Port: 80, Region: l[0], Zone: l[1]})
		}
	}
	return all
}

// byPlace adds up what the servers of localities got.
func byPlace(counts map[string]int) map[string]int {
	all := map[string]int{}
	for s, n := range counts {
		all[s[:len(s)-1]] += n
	}
	return all
}

// lose has servers of a locality refuse.
func (r *rig) lose(place string, n int) {
	all, _ := r.Servers()
	for _, s := range all {
		if n > 0 && s.Address[:len(s.Address)-1] == place {
			c := r.call(s, &Query{}, Trial{Turn: r.turns.Load()})
			c.Failed(Refused, r.now)
			c.End()
			n--
		}
	}
}

var everywhere = [][2]string{{"r1", "z1"}, {"r1", "z2"}, {"r2", "z1"}, {"r3", "z1"}}

func TestNearServersArePreferredAndFarOnesHelpOut(t *testing.T) {
	for _, policy := range []routing.BalancePolicy{routing.RoundRobin, routing.LeastRequest, routing.Random, routing.ConsistentHash} {
		r := newRig(t, routing.Balance{Policy: policy, RingSize: 1024, Locality: routing.Locality{Prefer: true, Failover: map[string]string{"r1": "r3"}}}, placed(4, everywhere...))
		r.Locate("r1", "z1")
		want := func(what string, place string) {
			t.Helper()
			if n := byPlace(r.counts(1000)); n[place] != 1000 {
				t.Errorf("policy %d, %s: the calls went to %v", policy, what, n)
			}
		}
		want("all is well", "r1z1")
		r.lose("r1z1", 2)
		if n := byPlace(r.counts(1000)); n["r1z1"] < 600 || n["r1z1"] > 800 || n["r1z1"]+n["r1z2"] != 1000 {
			t.Errorf("policy %d: with half of the own zone, the calls went to %v, and it can bear 700", policy, n)
		}
		r.lose("r1z1", 4)
		want("without the own zone", "r1z2")
		r.lose("r1z2", 4)
		want("without the own region", "r3z1")
		r.lose("r3z1", 4)
		want("without the one that helps out", "r2z1")
		r.idle()
	}
}

func TestAZoneIsOfTheRegionThatItsNameBeginsWithWhereNothingElseIsKnown(t *testing.T) {
	servers := placed(4, [2]string{"", "cn-hangzhou-h"}, [2]string{"", "cn-hangzhou-i"}, [2]string{"", "cn-beijing-a"}, [2]string{"", "cn-shanghai-b"})
	r := newRig(t, routing.Balance{Locality: routing.Locality{Prefer: true, Failover: map[string]string{"cn-hangzhou": "cn-shanghai"}}}, servers)
	r.Locate("cn-hangzhou", "cn-hangzhou-h")
	for _, place := range []string{"cn-hangzhou-h", "cn-hangzhou-i", "cn-shanghai-b", "cn-beijing-a"} {
		if n := byPlace(r.counts(1000)); n[place] != 1000 {
			t.Errorf("while %s is the nearest, the calls went to %v", place, n)
		}
		r.lose(place, 4)
	}
}

func TestCallsAreDistributedOverLocalitiesAsTheyAreTold(t *testing.T) {
	b := routing.Balance{Policy: routing.LeastRequest, Locality: routing.Locality{Distribute: []routing.LocalityShares{
		{From: "r9/*", To: map[string]int32{"r1": 100}},
		{From: "r1/*", To: map[string]int32{"r1/z1": 70, "r1/*": 20, "r2": 10}},
	}}}
	r := newRig(t, b, placed(3, everywhere...))
	r.Locate("r1", "z2")
	n := byPlace(r.counts(10000))
	for place, share := range map[string]int{"r1z1": 7000, "r1z2": 2000, "r2z1": 1000} {
		if n[place] < share-250 || n[place] > share+250 {
			t.Errorf("%s got %d, want %d: %v", place, n[place], share, n)
		}
	}
	r.lose("r1z1", 3)
	if n = byPlace(r.counts(3000)); n["r1z2"] < 1800 || n["r1z2"]+n["r2z1"] != 3000 {
		t.Errorf("without the first: %v", n)
	}
	r.Locate("elsewhere", "z1")
	if n = byPlace(r.counts(3000)); len(n) != 3 {
		t.Errorf("from where nothing is said of, the calls went to %v", n)
	}
}

func TestTheClustersOwnHintsAreFollowed(t *testing.T) {
	servers := placed(2, everywhere[:2]...)
	for i := range servers {
		servers[i].ForZones = []string{servers[i].Zone}
	}
	r := newRig(t, routing.Balance{}, servers)
	r.Locate("r1", "z2")
	if n := byPlace(r.counts(100)); n["r1z2"] != 100 {
		t.Errorf("the calls went to %v", n)
	}
	servers[0].ForZones = nil // then the hints are not to be followed
	r.Update(servers, r.now)
	if n := byPlace(r.counts(100)); n["r1z1"] == 0 {
		t.Errorf("the calls went to %v", n)
	}
}

func TestServersThatAreAboutToEndAreTheLast(t *testing.T) {
	for _, prefer := range []bool{false, true} {
		servers := placed(2, everywhere...)
		for i := range servers[:2] {
			servers[i].Draining = true
		}
		r := newRig(t, routing.Balance{Locality: routing.Locality{Prefer: prefer}}, servers)
		r.Locate("r1", "z1")
		if n := byPlace(r.counts(500)); n["r1z1"] != 0 {
			t.Errorf("the calls went to %v", n)
		}
		for i := range servers {
			servers[i].Draining = true
		}
		r.Update(servers, r.now)
		if n := byPlace(r.counts(500)); len(n) != 4 {
			t.Errorf("where all are about to end, the calls went to %v", n)
		}
	}
}
