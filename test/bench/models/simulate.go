package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/bench/modelserver"
)

// scenario is a simulated run.
type scenario struct {
	policy    routing.BalancePolicy
	servers   int
	balancers int    // that know nothing of each other, and share the calls evenly
	chance    uint64 // of what the balancers draw
	foresight foresight
}

// foresight is what a balancer knows of the length of an answer that has not been written.
type foresight int

const (
	average foresight = iota // that of those before
	exact                    // all, as nobody does
)

// under is a call that is under way.
type under struct {
	number  int
	arrival modelserver.Arrival
	server  int
	group   *balance.Group
	call    balance.Call
}

// machine is a simulated server.
type machine struct {
	engine *modelserver.Engine
	busy   bool
	until  time.Duration // the end of its step
	wrote  []*modelserver.Job
}

// run has calls served and gives the time until the first token of each.
func (s scenario) run(arrivals []modelserver.Arrival) []time.Duration {
	r := &simulation{
		scenario: s, chance: rand.New(rand.NewPCG(s.chance, 1)),
		first: make([]time.Duration, len(arrivals)), jobs: map[*modelserver.Job]*under{}, machines: make([]machine, s.servers),
	}
	var servers routing.Servers
	for i := range r.machines {
		r.machines[i].engine = modelserver.New(modelserver.Common)
		servers = append(servers, routing.Server{Address: fmt.Sprintf("s%04d", i), Port: 80})
	}
	for range max(1, s.balancers) {
		g := balance.New(routing.Balance{Policy: s.policy, MaxEjected: routing.DefaultMaxEjected}, balance.Limits{})
		g.Update(servers, start)
		r.groups = append(r.groups, g)
	}
	for next := 0; next < len(arrivals) || len(r.jobs) > 0; {
		m := r.soonest()
		if next < len(arrivals) && (m < 0 || arrivals[next].At <= r.machines[m].until) {
			r.arrives(next, arrivals[next])
			next++
			continue
		}
		r.ends(m)
	}
	return r.first
}

// start is the beginning of all simulated time.
var start = time.Unix(1_700_000_000, 0)

type simulation struct {
	scenario
	chance   *rand.Rand
	groups   []*balance.Group
	machines []machine
	jobs     map[*modelserver.Job]*under
	first    []time.Duration
}

// soonest is the machine whose step ends first; -1: none has work.
func (r *simulation) soonest() int {
	found := -1
	for i := range r.machines {
		if m := &r.machines[i]; m.busy && (found < 0 || m.until < r.machines[found].until) {
			found = i
		}
	}
	return found
}

func (r *simulation) arrives(number int, a modelserver.Arrival) {
	g := r.groups[r.chance.IntN(len(r.groups))]
	u := &under{number: number, arrival: a, group: g}
	call, result := g.Pick(&balance.Query{Now: start.Add(a.At), Draw: r.chance.Uint64(), Tokens: r.left(u, 0)})
	if result != balance.Picked {
		panic("no server was picked of those that are all there")
	}
	u.call = call
	if _, err := fmt.Sscanf(call.Server().Address, "s%d", &u.server); err != nil {
		panic(err)
	}
	j := &modelserver.Job{Prompt: a.Prompt, Output: a.Output}
	r.jobs[j] = u
	m := &r.machines[u.server]
	m.engine.Add(j)
	if !m.busy {
		m.step(a.At)
	}
}

// left is how many tokens a call has still to have read and written, as far as its balancer can know.
func (r *simulation) left(u *under, written int) int64 {
	answer := u.group.Expected()
	switch {
	case r.foresight == exact:
		answer = int64(u.arrival.Output)
		if written > 0 {
			return answer - int64(written)
		}
	case written > 0:
		return balance.StillToCome(answer, int64(written))
	case answer == 0:
		answer = usualOutput
	}
	return int64(u.arrival.Prompt) + answer
}

// usualOutput is what the proxy expects of an answer as long as it knows of none.
const usualOutput = 256

func (m *machine) step(now time.Duration) {
	var took time.Duration
	took, m.wrote = m.engine.Step()
	m.busy, m.until = took > 0, now+took
}

// ends is what happens where the step of a machine is over.
func (r *simulation) ends(i int) {
	m := &r.machines[i]
	now := m.until
	for _, j := range m.wrote {
		u := r.jobs[j]
		if j.Written() == 1 {
			r.first[u.number] = now - u.arrival.At
		}
		if j.Written() < j.Output {
			u.call.Remaining(r.left(u, j.Written()))
			continue
		}
		u.call.Completed()
		u.call.End()
		u.group.Wrote(int64(j.Output))
		delete(r.jobs, j)
	}
	m.step(now)
}
