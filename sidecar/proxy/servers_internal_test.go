package proxy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

var behind = routing.ServersID{Kind: routing.KindService, Namespace: "default", Name: "api"}

// withServers is a proxy whose provider a stands for a Service.
func withServers(tb testing.TB, b routing.Balance) (*Proxy, *routing.Rule, *snapshot.Members) {
	tb.Helper()
	table := compiled(tb, "a")
	for t := range table.Targets() {
		if t.Provider.Name == "a" {
			t.Servers, t.Balance = behind, b
		}
	}
	store, members := snapshot.NewStore(), snapshot.NewMembers()
	store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
	p, err := New(Options{Store: store, Members: members, Log: logr.Discard()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.Shutdown(ctx)
	})
	return p, table.Host([]byte("chat")).Rules[0], members
}

func podsFrom(first, n int) routing.Servers {
	all := make(routing.Servers, n)
	for i := range all {
		at := first + i
		all[i] = routing.Server{Address: fmt.Sprintf("10.%03d.%03d.%03d", at>>16, at>>8&255, at&255), Port: 80}
	}
	return all
}

// poolsOf counts the pools of servers.
func (p *Proxy) poolsOf() (n int) {
	p.pools.Range(func(_, v any) bool {
		if v.(*pool).served {
			n++
		}
		return true
	})
	return n
}

func TestChoosingAServerAllocatesNothing(t *testing.T) {
	for _, policy := range []routing.BalancePolicy{routing.RoundRobin, routing.LeastRequest, routing.Random, routing.LeastTokens} {
		p, rule, members := withServers(t, routing.Balance{Policy: policy})
		members.Publish(behind, podsFrom(0, 10))
		c := &call{proxy: p, rule: rule}
		once := func() {
			c.level, c.tried, c.visited = 0, 0, c.visited[:0]
			if c.choose() != nil || c.trial.call.Server() == nil {
				t.Fatal("no server")
			}
			c.pool()
			p.ejections.completed(&c.trial)
			c.leave()
		}
		for range 100 {
			once()
		}
		if n := testing.AllocsPerRun(1000, once); n != 0 {
			t.Errorf("policy %d: %v allocations", policy, n)
		}
	}
}

func BenchmarkChooseServer(b *testing.B) {
	for _, n := range []int{3, 10000} {
		for name, policy := range map[string]routing.BalancePolicy{"ROUND_ROBIN": routing.RoundRobin, "LEAST_REQUEST": routing.LeastRequest, "LEAST_TOKENS": routing.LeastTokens} {
			b.Run(fmt.Sprintf("%s/servers=%d", name, n), func(b *testing.B) {
				p, rule, members := withServers(b, routing.Balance{Policy: policy})
				members.Publish(behind, podsFrom(0, n))
				c := &call{proxy: p, rule: rule}
				b.ReportAllocs()
				for b.Loop() {
					c.level, c.tried, c.visited = 0, 0, c.visited[:0]
					c.choose()
					p.ejections.completed(&c.trial)
					c.leave()
				}
			})
		}
	}
}

func TestAHundredThousandServersComeAndGoAndLeaveNothingBehind(t *testing.T) {
	p, rule, members := withServers(t, routing.Balance{Policy: routing.RoundRobin})
	before := runtime.NumGoroutine()
	var callers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		callers.Go(func() {
			c := &call{proxy: p, rule: rule}
			for {
				select {
				case <-stop:
					return
				default:
				}
				c.level, c.tried, c.visited = 0, 0, c.visited[:0]
				if r := c.choose(); r != nil {
					t.Error(r.Message)
					return
				}
				if c.trial.group != nil {
					c.pool()
				}
				switch rand.IntN(4) {
				case 0:
					p.ejections.failed(&c.trial, balance.Refused)
				case 1:
				default:
					p.ejections.completed(&c.trial)
				}
				c.leave()
			}
		})
	}
	for i := range 1000 {
		members.Publish(behind, podsFrom(i*100, 100))
		for _, g := range p.servers.groups() {
			g.renew(members, time.Now())
		}
	}
	close(stop)
	callers.Wait()
	members.Publish(behind, podsFrom(0, 3))
	for _, g := range p.servers.groups() {
		g.renew(members, time.Now())
		if n := g.Calls(); n != 0 {
			t.Errorf("%d calls are under way", n)
		}
		if all, out := g.Servers(); len(all) != 3 || out != 0 {
			t.Errorf("%d servers, %d left alone", len(all), out)
		}
	}
	// Who had just chosen a server that went may have made its pool anew, for as long as nobody sweeps.
	p.pools.Range(func(k, v any) bool {
		if v.(*pool).sweep(time.Now()) {
			p.pools.Delete(k)
		}
		return true
	})
	if n := p.poolsOf(); n != 0 {
		t.Errorf("%d pools are left", n)
	}
	if n := runtime.NumGoroutine(); n > before+2 {
		t.Errorf("%d goroutines, and %d before", n, before)
	}
}

func TestAConfigurationWithoutTheServersForgetsThem(t *testing.T) {
	p, rule, members := withServers(t, routing.Balance{})
	members.Publish(behind, podsFrom(0, 5))
	c := &call{proxy: p, rule: rule}
	for range 50 {
		c.level, c.tried, c.visited = 0, 0, c.visited[:0]
		c.choose()
		c.pool()
		c.leave()
	}
	if n := p.poolsOf(); n != 5 {
		t.Errorf("%d pools", n)
	}
	p.store.Publish(&snapshot.Snapshot{Table: compiled(t, "b"), Ready: true})
	if n := p.poolsOf(); n != 0 || len(p.servers.groups()) != 0 {
		t.Errorf("%d pools and %d groups are left", n, len(p.servers.groups()))
	}
	c.level, c.tried = 0, 0
	if r := c.choose(); r != nil || c.trial.group == nil { // a call that began with the old one
		t.Error("a call with the old configuration finds no server")
	}
	c.leave()
}
