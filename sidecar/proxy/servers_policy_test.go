package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/llmserver"
)

// policy changes the traffic policy of the Service.
func (f *fleet) policy(change func(*routing.TrafficPolicy)) {
	table := f.store.Load().Table
	for target := range table.Targets() {
		if target.Provider.Name == "api" {
			change(&target.Policy)
		}
	}
	f.store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
}

// only gives the one pod that got calls.
func (f *fleet) only(calls int64) int {
	f.t.Helper()
	found := -1
	n := f.counts()
	for i := range n {
		if n[i] == calls {
			found = i
		} else if n[i] != 0 {
			f.t.Fatalf("calls that are alike went to %v", n)
		}
	}
	return found
}

func TestCallsThatAreAlikeGoToTheSamePod(t *testing.T) {
	for name, c := range map[string]struct {
		key  routing.HashKey
		call func(f *fleet, who int)
	}{
		"header": {routing.HashKey{Header: "X-User"}, func(f *fleet, who int) { f.call("X-User", fmt.Sprint(who)) }},
		"cookie": {routing.HashKey{Cookie: routing.Cookie{Name: "user"}}, func(f *fleet, who int) { f.call("Cookie", fmt.Sprintf("a=b; user=%d", who)) }},
		"query":  {routing.HashKey{Query: "user"}, func(f *fleet, who int) { f.do("POST", fmt.Sprintf("http://%s/?x=1&user=%d", vllm, who), prompt) }},
	} {
		for algorithm, b := range map[string]routing.Balance{
			"ring": {Policy: routing.ConsistentHash, RingSize: 1024}, "Maglev": {Policy: routing.ConsistentHash, TableSize: 65537},
		} {
			t.Run(name+" "+algorithm, func(t *testing.T) {
				b.Hash = c.key
				f := newFleet(t, 4, b, "")
				used := map[int]bool{}
				for who := range 20 {
					for range 5 {
						c.call(f, who)
					}
					used[f.only(5)] = true
				}
				if len(used) < 3 {
					t.Errorf("20 users have %d pods", len(used))
				}
			})
		}
	}
}

func TestCallsFromOneAddressGoToTheSamePod(t *testing.T) {
	f := newFleet(t, 4, routing.Balance{Policy: routing.ConsistentHash, RingSize: 1024, Hash: routing.HashKey{SourceAddr: true}}, "")
	for range 10 {
		f.client.CloseIdleConnections() // another port
		f.call()
	}
	f.only(10)
}

func TestAClientWithoutTheCookieIsGivenOneThatLeadsToTheSamePod(t *testing.T) {
	f := newFleet(t, 4, routing.Balance{Policy: routing.ConsistentHash, RingSize: 1024, Hash: routing.HashKey{Cookie: routing.Cookie{Name: "pod", Path: "/v1", Set: true, MaxAge: 60}}}, "")
	used := map[int]bool{}
	for range 20 {
		got := f.call()
		set := got.header.Get("Set-Cookie")
		value, attributes, _ := strings.Cut(set, ";")
		if attributes != " Max-Age=60; Path=/v1; HttpOnly" || !strings.HasPrefix(value, "pod=") {
			t.Fatalf("Set-Cookie: %s", set)
		}
		for range 4 {
			if again := f.call("Cookie", value); again.header.Get("Set-Cookie") != "" {
				t.Fatal("who has the cookie is given another")
			}
		}
		used[f.only(5)] = true
	}
	if len(used) < 3 {
		t.Errorf("20 clients have %d pods", len(used))
	}
}

func TestNoMoreRequestsAreUnderWayThanThePolicySays(t *testing.T) {
	f := newFleet(t, 2, routing.Balance{}, "")
	f.policy(func(p *routing.TrafficPolicy) { p.MaxRequests = 3 })
	begun, goOn := make(chan struct{}), make(chan struct{})
	f.does(func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-goOn
		_, _ = io.WriteString(w, "{}")
	})
	ended := make(chan struct{})
	for range 3 {
		go func() {
			_, _ = f.try("POST", "http://"+vllm, prompt)
			ended <- struct{}{}
		}()
		<-begun
	}
	f.call().wantError(t, 503, routing.Overloaded, "3 requests")
	close(goOn)
	for range 3 {
		<-ended
	}
	go func() { <-begun }()
	if got := f.call(); got.status != 200 {
		t.Errorf("afterwards: %d", got.status)
	}
}

func TestTheLimitOfRequestsHoldsForTheServicesOwnAddressToo(t *testing.T) {
	f := newFleet(t, 0, routing.Balance{}, "")
	f.policy(func(p *routing.TrafficPolicy) { p.MaxRequests = 1 })
	f.provider.Script(vllm, llmserver.Fault{Delay: time.Hour, Times: 1})
	for range 3 {
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if resp, err := f.open(ctx, "POST", "http://"+vllm, prompt); err == nil {
				_ = resp.Body.Close()
			}
		}()
		if _, err := f.provider.Await(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		f.call().wantError(t, 503, routing.Overloaded, "1 requests")
		leave()
		<-ended
		f.provider.Reset()
		f.provider.Script(vllm, llmserver.Fault{}, llmserver.Fault{Delay: time.Hour, Times: 1})
		for f.call().status == 503 {
			continue // it has not been noticed yet that the app left
		}
		f.provider.Reset()
	}
}

func TestAConnectionServesNoMoreRequestsThanThePolicySays(t *testing.T) {
	f := newFleet(t, 1, routing.Balance{}, "")
	f.policy(func(p *routing.TrafficPolicy) { p.MaxRequestsPerConnection = 4 })
	for range 12 {
		f.call()
	}
	if n := f.pods[0].conns.Load(); n != 3 {
		t.Errorf("12 requests took %d connections", n)
	}
}

func TestAConnectionThatWasIdleForTooLongIsNotUsed(t *testing.T) {
	f := newFleet(t, 1, routing.Balance{}, "")
	f.policy(func(p *routing.TrafficPolicy) { p.IdleTimeout = time.Nanosecond })
	for range 3 {
		f.call()
	}
	if n := f.pods[0].conns.Load(); n != 3 {
		t.Errorf("3 requests took %d connections", n)
	}
}

func TestAnotherPolicyKeepsServersAndWhatIsUnderWay(t *testing.T) {
	f := newFleet(t, 2, routing.Balance{}, "")
	begun, goOn := make(chan struct{}), make(chan struct{})
	f.does(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Slow") != "" {
			begun <- struct{}{}
			<-goOn
		}
		_, _ = io.WriteString(w, "{}")
	})
	ended := make(chan reply)
	go func() { got, _ := f.try("POST", "http://"+vllm, prompt, "X-Slow", "1"); ended <- got }()
	<-begun
	f.counts()
	for _, p := range []routing.BalancePolicy{routing.RoundRobin, routing.Random, routing.LeastTokens, routing.RoundRobin} {
		f.balance(routing.Balance{Policy: p})
		if n := f.gauge(`remora_server_calls{servers="Service default/api-service port http"}`); n != 1 {
			t.Errorf("%d calls are under way", n)
		}
		for range 40 {
			f.call()
		}
		if n := f.counts(); n[0]+n[1] != 40 || p == routing.RoundRobin && n[0] != 20 {
			t.Errorf("with policy %d, the pods got %v", p, n)
		}
	}
	close(goOn)
	if got := <-ended; got.status != 200 {
		t.Errorf("the slow call: %d", got.status)
	}
	f.idle()
}

func TestTheNextPriorityIsUsedWhereThereIsNoServer(t *testing.T) {
	f := newFleet(t, 0, routing.Balance{}, "", "  - backendRefs:\n    - {providerHost: "+vllm+"}\n    - {providerHost: other.example.com, priority: 1}"+
		"\n---\napiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: other}\nspec:\n  host: other.example.com\n  tls: {mode: DISABLE}\n")
	f.members.Publish(pods, routing.Servers{})
	// The other's name does not resolve here, which says that it was called.
	f.do("POST", "http://chat", prompt).wantError(t, 502, routing.ConnectFailure, "other.example.com")
	one := f.add()
	f.publish(one)
	for f.do("POST", "http://chat", prompt).status != 200 {
		continue
	}
	one.Close()
	f.do("POST", "http://chat", prompt)
	f.do("POST", "http://chat", prompt).wantError(t, 502, routing.ConnectFailure, "other.example.com")
}

func TestAWebSocketIsUnderWayUntilItEnds(t *testing.T) {
	f := newFleet(t, 2, routing.Balance{}, "")
	f.does(func(w http.ResponseWriter, r *http.Request) {
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		_ = buf.Flush()
		_, _ = io.Copy(conn, buf)
	})
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET http://"+vllm+"/chat HTTP/1.1\r\nHost: "+vllm+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	for _, word := range []string{"one", "two"} {
		_, _ = io.WriteString(conn, word)
		b := make([]byte, 3)
		if _, err := io.ReadFull(in, b); err != nil || string(b) != word {
			t.Fatalf("%q %v", b, err)
		}
		if n := f.gauge(`remora_server_calls{servers="Service default/api-service port http"}`); n != 1 {
			t.Errorf("%d calls are under way", n)
		}
	}
	_ = conn.Close()
	f.idle()
}

func TestLeastTokensKnowsHowMuchIsStillToCome(t *testing.T) {
	f := newFleet(t, 2, routing.Balance{Policy: routing.LeastTokens}, "")
	steps := make(chan int)
	f.does(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("X-Slow") == "" {
			_, _ = io.WriteString(w, `{"usage":{"prompt_tokens":1,"completion_tokens":10,"total_tokens":11}}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for range steps {
			_, _ = io.WriteString(w, `data: {"choices":[{"delta":{"content":"`+strings.Repeat("word ", 100)+`"}}]}`+"\n\n")
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	body := `{"stream":true,"max_tokens":1000,"messages":[{"role":"user","content":"` + strings.Repeat("word ", 500) + `"}]}`
	answer := make(chan *http.Response)
	go func() {
		resp, err := f.open(context.Background(), "POST", "http://"+vllm+"/v1/chat/completions", body, "X-Slow", "1")
		if err != nil {
			t.Error(err)
		}
		answer <- resp
	}()
	steps <- 1
	resp := <-answer
	busy := f.only(1)
	// Beside a call that has hundreds of tokens to write, all others go to the other pod.
	for range 20 {
		if got := f.do("POST", "http://"+vllm+"/v1/chat/completions", prompt); got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	if n := f.counts(); n[busy] != 0 {
		t.Errorf("the pods got %v", n)
	}
	close(steps)
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
	_ = resp.Body.Close()
	f.idle()
}
