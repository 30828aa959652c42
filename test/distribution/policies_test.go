package distribution

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

func TestRoundRobinIsExactWhoeverCallsAtOnce(t *testing.T) {
	r := newRig(t, 5, rule("{simple: ROUND_ROBIN}"))
	plain := func(int) *http.Request { return r.request() }
	for _, atOnce := range []int{1, 16} {
		if got := r.calls(500, atOnce, plain); slices.Min(got) != 100 || slices.Max(got) != 100 {
			t.Errorf("500 calls, %d at once: %v", atOnce, got)
		}
	}
}

func TestRandomDrawsEachServerAsOften(t *testing.T) {
	r := newRig(t, 5, rule("{simple: RANDOM}"))
	got := r.calls(3000, 8, func(int) *http.Request { return r.request() })
	even(t, "RANDOM", got)
	if slices.Min(got) == 600 {
		t.Errorf("%v is no chance", got)
	}
}

func TestLeastRequestSpreadsEvenlyWhereNobodyIsBusy(t *testing.T) {
	for _, word := range []string{"LEAST_REQUEST", "LEAST_CONN"} {
		t.Run(word, func(t *testing.T) {
			r := newRig(t, 5, rule("{simple: "+word+"}"))
			even(t, word, r.calls(2000, 1, func(int) *http.Request { return r.request() }))
		})
	}
}

func TestWithoutAWordItIsLeastRequest(t *testing.T) {
	r := newRig(t, 2, config)
	busy := r.hold(r.request())
	if got := r.calls(200, 1, func(int) *http.Request { return r.request() }); got[busy] != 0 {
		t.Errorf("server %d is busy, and of two drawn out of two the other is idle: %v", busy, got)
	}
}

func TestLeastRequestSparesWhoIsBusy(t *testing.T) {
	r := newRig(t, 4, rule("{simple: LEAST_REQUEST}"))
	busy := r.hold(r.request())
	got := r.calls(2000, 1, func(int) *http.Request { return r.request() })
	// Two different ones are drawn; the busy one is beaten by whoever it is drawn with.
	if got[busy] != 0 {
		t.Errorf("server %d is busy: %v", busy, got)
	}
	even(t, "the others", slices.Delete(slices.Clone(got), busy, busy+1))
}

func TestLeastTokensSparesWhoReadsALongPrompt(t *testing.T) {
	r := newRig(t, 2, annotated("{remora.dev/load-balancer: LEAST_TOKENS}", "{simple: LEAST_REQUEST}"))
	long := r.hold(r.chat(20_000))
	// By calls, the second one would make them two to one.
	for i := range 10 {
		if short := r.hold(r.chat(5)); short == long {
			t.Errorf("short call %d went to server %d, which reads a prompt that is longer than all of the short ones", i, long)
		}
	}
}

func TestLeastTokensSpreadsEvenlyWhereNobodyIsBusy(t *testing.T) {
	r := newRig(t, 5, annotated("{remora.dev/load-balancer: LEAST_TOKENS}", "{simple: LEAST_REQUEST}"))
	even(t, "LEAST_TOKENS", r.calls(1500, 1, func(int) *http.Request { return r.chat(5) }))
}

func TestAHashKeepsCallsTogetherAndSpreadsTheRest(t *testing.T) {
	f := func(name, how string, with func(req *http.Request, key string), shares bool) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 5, rule(how))
			request := func(i int) *http.Request {
				req := r.request()
				with(req, fmt.Sprintf("user-%d", i))
				return req
			}
			const keys = 1000
			first := make([]int, keys)
			counts := make([]int, len(r.servers))
			for i := range keys {
				server, err := r.ask(request(i))
				if err != nil {
					t.Fatal(err)
				}
				first[i] = server
				counts[server]++
			}
			for i := range keys {
				if server, err := r.ask(request(i)); err != nil || server != first[i] {
					t.Fatalf("key %d went to server %d first and then to %d (%v)", i, first[i], server, err)
				}
			}
			if shares {
				even(t, name, counts)
			} else if slices.Min(counts) < keys/10 || slices.Max(counts) > keys*3/10 {
				// Of a ring, each of five has about 200 of 1,024 points, whose arcs differ: 6 deviations of its share are 8 %.
				t.Errorf("%v is not about a fifth each", counts)
			}
		})
	}
	header := func(req *http.Request, key string) { req.Header.Set("X-User", key) }
	f("ring, by header", "{consistentHash: {httpHeaderName: x-user}}", header, false)
	f("Maglev, by header", "{consistentHash: {httpHeaderName: x-user, maglev: {}}}", header, true)
	f("by parameter", "{consistentHash: {httpQueryParameterName: user, maglev: {}}}", func(req *http.Request, key string) { req.URL.RawQuery = "user=" + key }, true)
	f("by cookie", "{consistentHash: {httpCookie: {name: user}, maglev: {}}}", func(req *http.Request, key string) { req.AddCookie(&http.Cookie{Name: "user", Value: key}) }, true)
}

func TestCallsFromOneAddressStayTogether(t *testing.T) {
	r := newRig(t, 5, rule("{consistentHash: {useSourceIp: true}}"))
	if got := r.calls(50, 1, func(int) *http.Request { return r.request() }); slices.Max(got) != 50 {
		t.Errorf("50 calls from one address: %v", got)
	}
}

func TestAHashThatManyShareIsBounded(t *testing.T) {
	r := newRig(t, 5, rule("{consistentHash: {httpHeaderName: x-user}}"))
	at := make([]int, len(r.servers))
	const calls = 100
	for range calls {
		at[r.hold(r.request("X-User", "the same"))]++
	}
	// A server takes at most a quarter more than the average, and one.
	if most := slices.Max(at); most > calls/5*5/4+1 {
		t.Errorf("of %d calls under way that have one hash, a server has %d: %v", calls, most, at)
	}
}

func TestACallWithoutWhatIsHashedGoesAnywhere(t *testing.T) {
	r := newRig(t, 5, rule("{consistentHash: {httpHeaderName: x-user}}"))
	even(t, "without the header", r.calls(1500, 4, func(int) *http.Request { return r.request() }))
}

func TestLocalitiesGetTheirShares(t *testing.T) {
	r := newRig(t, 4, rule(`{simple: RANDOM, localityLbSetting: {distribute: [{from: "r/a", to: {"r/a": 70, "r/b": 30}}]}}`))
	r.members.Locate("r", "a")
	r.publish(func(string) routing.Servers { return r.at(threeHere) })
	const third = 0.7 / 3
	shared(t, "70 % of calls to three servers here, 30 % to one elsewhere", r.calls(2000, 4, func(int) *http.Request { return r.request() }), []float64{third, third, third, 0.3})
}

func TestServersOfTheOwnZoneArePreferred(t *testing.T) {
	r := newRig(t, 4, rule(`{simple: RANDOM, localityLbSetting: {enabled: true}}`))
	r.members.Locate("r", "a")
	r.publish(func(string) routing.Servers { return r.at(threeHere) })
	got := r.calls(600, 4, func(int) *http.Request { return r.request() })
	if got[3] != 0 {
		t.Errorf("the one elsewhere got calls: %v", got)
	}
	even(t, "those here", got[:3])
}

func TestWeightsOfDestinationsAreShares(t *testing.T) {
	weighted := `
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: edge}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: api}
spec:
  hosts: [` + host + `]
  gateways: [edge]
  http:
  - route:
    - {destination: {host: stable}, weight: 80}
    - {destination: {host: canary}, weight: 20}
---
apiVersion: v1
kind: Service
metadata: {name: stable}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: canary}
spec: {ports: [{name: http, port: 80}]}
`
	r := newRig(t, 3, weighted)
	r.publish(func(service string) routing.Servers {
		all := r.at(nowhere)
		if service == "canary" {
			return all[2:]
		}
		return all[:2]
	})
	shared(t, "80 : 20", r.calls(2000, 4, func(int) *http.Request { return r.request() }), []float64{0.4, 0.4, 0.2})
}

// nowhere and threeHere are the zones of servers.
func nowhere(int) string { return "" }

func threeHere(i int) string {
	if i < 3 {
		return "a"
	}
	return "b"
}
