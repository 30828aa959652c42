//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/test/stage"
)

// fourResources are applied as they are written, and looked at as a whole life: evenly, while pods come and go, and with each policy.
func fourResources(t *testing.T) {
	t.Helper()
	in := labelled(t, "e2e-gateway")
	servers(t, in, stage.API{Name: "api", Replicas: 3})
	for _, name := range stage.FourResources {
		apply(t, stage.FourResource(name), "-n", in)
	}
	c := through(t, stage.APIHost, 80)
	answers(t, c, "api.example.com is served", stage.Answer.OK)
	// Four clients call at once, so that their turns mix.
	const calls = 300
	wantEven(t, "ROUND_ROBIN", shared(t, c, calls, 4), calls, 3)
	unknown := c
	unknown.Host = "nobody.example.com"
	if a := unknown.Call(t.Context(), 0); a.Status != http.StatusNotFound || !strings.Contains(a.Body, unknown.Host) {
		t.Errorf("a host that nobody has: %v", a)
	}
	_ = t.Run("WhilePodsComeAndGo", func(t *testing.T) { comeAndGo(t, in, c) }) &&
		t.Run("ByEachPolicy", func(t *testing.T) { eachPolicy(t, in, c) })
}

func comeAndGo(t *testing.T, in string, c stage.Caller) {
	t.Helper()
	load := c.Begin(t.Context(), 4, 5*time.Millisecond)
	defer load.Stop()
	for _, pods := range []int{5, 2, 3} {
		began := time.Now()
		kubectl(t, "-n", in, "scale", "deployment/api", fmt.Sprintf("--replicas=%d", pods))
		eventually(t, fmt.Sprintf("%d pods share the calls", pods), func() (string, bool) {
			load.Mark()
			if err := load.Until(t.Context(), func(t stage.Tally) bool { return t.Answered() >= 30*pods }); err != nil {
				t.Fatal(err)
			}
			tally := load.Tally()
			return tally.String(), len(tally.Shares) == pods
		})
		t.Logf("%d pods share the calls %v after the command", pods, time.Since(began).Round(time.Millisecond))
	}
	if end := load.Stop(); len(end.Failed) > 0 {
		t.Errorf("while pods came and went: %v", end)
	} else {
		t.Logf("%d calls, 0 failed", end.Calls)
	}
	kubectl(t, "-n", in, "rollout", "status", "deployment/api", "--timeout="+patience.String())
}

// loadBalancer changes the DestinationRule, and returns when the gateway does so.
func loadBalancer(t *testing.T, in, says, follows string) {
	t.Helper()
	kubectl(t, "-n", in, "patch", "destinationrule", "api-destination-rule", "--type=json",
		"--patch", `[{"op":"replace","path":"/spec/trafficPolicy/loadBalancer","value":`+says+`}]`)
	gatewaysFollow(t, "api-service."+in+".svc", follows)
}

const users = 40

func eachPolicy(t *testing.T, in string, c stage.Caller) {
	t.Helper()
	const calls = 300
	chance := func(t *testing.T, policy string) {
		t.Helper()
		shares := shared(t, c, calls, 4)
		for pod, n := range shares {
			wantChance(t, policy+", "+pod, n, calls, 1.0/3)
		}
		if len(shares) != 3 {
			t.Errorf("%s: %v", policy, shares)
		}
		t.Logf("%s: %v", policy, shares)
	}
	loadBalancer(t, in, `{"simple":"RANDOM"}`, "balance=RANDOM")
	chance(t, "RANDOM")
	for _, word := range []string{"LEAST_CONN", "LEAST_REQUEST"} {
		loadBalancer(t, in, `{"simple":"`+word+`"}`, "balance=LEAST_REQUEST")
		chance(t, word)
	}
	loadBalancer(t, in, `{"simple":"PASSTHROUGH"}`, "!servers=")
	if shares := shared(t, c, calls, 4); len(shares) == 0 {
		t.Error("PASSTHROUGH: nobody has answered")
	}
	sticky := func(what, says, follows string, change func(user string, r *http.Request)) {
		t.Helper()
		loadBalancer(t, in, `{"consistentHash":`+says+`}`, follows)
		c := c
		c.Change = func(n int, r *http.Request) { change(fmt.Sprint("user-", n%users), r) }
		of, by := map[int]string{}, map[string]int{}
		for n, a := range c.Calls(t.Context(), 5*users, 1) { // one at a time: nobody has too many
			if !a.OK() {
				t.Fatalf("%s: %v", what, a)
			}
			if of[n%users] == "" {
				of[n%users] = a.Pod
				by[a.Pod]++
			}
			if of[n%users] != a.Pod {
				t.Errorf("%s: user %d was answered by %s and by %s", what, n%users, of[n%users], a.Pod)
			}
		}
		if len(by) != 3 { // a ring of 1024 points leaves each at least a sixth, all but surely
			t.Errorf("%s: the users' servers are %v", what, by)
		}
		t.Logf("%s: %v", what, by)
	}
	sticky("by header", `{"httpHeaderName":"x-user"}`, "header=X-User", func(user string, r *http.Request) { r.Header.Set("X-User", user) })
	sticky("by query", `{"httpQueryParameterName":"user"}`, `query="user"`, func(user string, r *http.Request) { r.URL.RawQuery = "user=" + user })
	sticky("by cookie", `{"httpCookie":{"name":"session","ttl":"0s"},"maglev":{"tableSize":1009}}`, "cookie=session", func(user string, r *http.Request) {
		r.AddCookie(&http.Cookie{Name: "session", Value: user})
	})
	cookie(t, c)
	loadBalancer(t, in, `{"consistentHash":{"useSourceIp":true}}`, "source-ip")
	if shares := shared(t, c, 60, 1); len(shares) != 1 { // all come from the node
		t.Errorf("by source: %v", shares)
	}
	loadBalancer(t, in, `{"simple":"RANDOM"}`, "balance=RANDOM")
	kubectl(t, "-n", in, "annotate", "destinationrule", "api-destination-rule", "remora.dev/load-balancer=LEAST_TOKENS")
	gatewaysFollow(t, "api-service."+in+".svc", "balance=LEAST_TOKENS")
	chance(t, "LEAST_TOKENS")
	kubectl(t, "-n", in, "annotate", "destinationrule", "api-destination-rule", "remora.dev/load-balancer-")
	loadBalancer(t, in, `{"simple":"ROUND_ROBIN"}`, "balance=ROUND_ROBIN")
	wantEven(t, "ROUND_ROBIN again", shared(t, c, calls, 4), calls, 3)
}

// cookie calls as a browser does: without one at first, and then with the one that it was given.
func cookie(t *testing.T, c stage.Caller) {
	t.Helper()
	first := c.Call(t.Context(), 0)
	given := (&http.Response{Header: first.Header}).Cookies()
	if !first.OK() || len(given) != 1 || given[0].Name != "session" || given[0].Value == "" {
		t.Errorf("without a cookie: %v, with the cookies %v", first, given)
		return
	}
	c.Change = func(_ int, r *http.Request) { r.AddCookie(given[0]) }
	for _, a := range c.Calls(t.Context(), 20, 1) {
		if !a.OK() || a.Pod != first.Pod || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("with the cookie that %s gave: %v, %q", first.Pod, a, a.Header.Get("Set-Cookie"))
		}
	}
}
