package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
)

var start = time.Unix(1e9, 0)

// rig is a group with a clock and chance that are the test's.
type rig struct {
	*Group
	t      testing.TB
	now    time.Time
	random *rand.Rand
}

func newRig(tb testing.TB, b routing.Balance, servers routing.Servers) *rig {
	tb.Helper()
	r := &rig{Group: New(b, Limits{After: 3, Time: 10 * time.Second, AtOnce: true}), t: tb, now: start, random: rand.New(rand.NewPCG(1, 2))}
	r.Update(servers, r.now)
	return r
}

// some gives n servers.
func some(n int) routing.Servers {
	all := make(routing.Servers, n)
	for i := range all {
		all[i] = routing.Server{Address: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), Port: 8080}
	}
	return all
}

func (r *rig) query() Query { return Query{Now: r.now, Draw: r.random.Uint64()} }

// pick begins a call.
func (r *rig) pick(set ...func(*Query)) Call {
	r.t.Helper()
	q := r.query()
	for _, f := range set {
		f(&q)
	}
	c, result := r.Pick(&q)
	if result != Picked {
		r.t.Fatalf("result %d", result)
	}
	return c
}

// counts has n calls made, one after the other, and counts them by server.
func (r *rig) counts(n int, set ...func(*Query)) map[string]int {
	r.t.Helper()
	all := map[string]int{}
	for range n {
		c := r.pick(set...)
		all[c.Server().Address]++
		c.Completed()
		c.End()
	}
	return all
}

// idle asserts that nothing is under way.
func (r *rig) idle() {
	r.t.Helper()
	if n := r.Calls(); n != 0 {
		r.t.Errorf("%d calls are under way", n)
	}
	all, _ := r.Servers()
	for _, s := range all {
		if s.Calls() != 0 || s.Tokens() != 0 {
			r.t.Errorf("%s has %d calls and %d tokens", s.Address, s.Calls(), s.Tokens())
		}
	}
}

// spread asserts that counts are those of equal shares, as far as chance lets them: p < 1e-6 that it would not.
func spread(t *testing.T, counts map[string]int, servers, calls int) {
	t.Helper()
	expected := float64(calls) / float64(servers)
	chi := 0.0
	for _, n := range counts {
		chi += (float64(n) - expected) * (float64(n) - expected) / expected
	}
	chi += expected * float64(servers-len(counts))
	df := float64(servers - 1)
	// Wilson and Hilferty's approximation of the distribution of χ².
	z := (math.Cbrt(chi/df) - (1 - 2/(9*df))) / math.Sqrt(2/(9*df))
	if z > 4.75 {
		t.Errorf("χ² is %.1f with %d servers: %v", chi, servers, counts)
	}
}

func TestRoundRobinTakesEachServerInTurn(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 100} {
		r := newRig(t, routing.Balance{Policy: routing.RoundRobin}, some(n))
		for s, got := range r.counts(100 * n) {
			if got != 100 {
				t.Errorf("%s of %d got %d", s, n, got)
			}
		}
		r.idle()
	}
}

func TestRandomAndLeastRequestWithoutLoadAreEven(t *testing.T) {
	for _, policy := range []routing.BalancePolicy{routing.Random, routing.LeastRequest, routing.LeastTokens, routing.ConsistentHash} {
		for _, n := range []int{2, 3, 10, 50} {
			r := newRig(t, routing.Balance{Policy: policy, RingSize: 1024}, some(n))
			spread(t, r.counts(3000*n), n, 3000*n)
			r.idle()
		}
	}
}

func TestLeastRequestSparesTheSlow(t *testing.T) {
	r := newRig(t, routing.Balance{}, some(10))
	slow := map[string]bool{"10.0.0.3": true}
	var held []Call
	got := map[string]int{}
	for range 20000 {
		c := r.pick()
		got[c.Server().Address]++
		if slow[c.Server().Address] {
			held = append(held, c) // it answers only every hundredth call
		} else {
			c.End()
		}
		if len(held) > 0 && r.random.IntN(100) == 0 {
			held[0].End()
			held = held[1:]
		}
	}
	if n := got["10.0.0.3"]; n > 400 {
		t.Errorf("the slow one got %d of 20000", n)
	}
	for i := range held {
		held[i].End()
	}
	r.idle()
}

func TestLeastTokensKeepsTokensEvenWhereCallsAreNot(t *testing.T) {
	worst := map[routing.BalancePolicy]int64{}
	for _, policy := range []routing.BalancePolicy{routing.LeastTokens, routing.LeastRequest} {
		r := newRig(t, routing.Balance{Policy: policy}, some(10))
		for range 2000 {
			n := int64(math.Exp(r.random.NormFloat64()*1.5 + 5)) // long-tailed
			r.pick(func(q *Query) { q.Tokens = n })
		}
		all, _ := r.Servers()
		least := int64(math.MaxInt64)
		for _, s := range all {
			worst[policy] = max(worst[policy], s.Tokens())
			least = min(least, s.Tokens())
		}
		worst[policy] -= least
	}
	if worst[routing.LeastTokens]*2 > worst[routing.LeastRequest] {
		t.Errorf("tokens are apart by %d with LEAST_TOKENS, and by %d with LEAST_REQUEST", worst[routing.LeastTokens], worst[routing.LeastRequest])
	}
}

func TestTokensAreCorrectedWhileAnAnswerComes(t *testing.T) {
	r := newRig(t, routing.Balance{Policy: routing.LeastTokens}, some(1))
	c := r.pick(func(q *Query) { q.Tokens = 1000 })
	for _, left := range []int64{900, 500, 2000, 0, 7} {
		if c.Remaining(left); c.Server().Tokens() != left {
			t.Errorf("%d tokens, want %d", c.Server().Tokens(), left)
		}
	}
	c.End()
	c.End()
	c.Remaining(5)
	r.idle()
	for range 200 {
		r.Wrote(100)
	}
	if r.Expected() < 99 || r.Expected() > 101 {
		t.Errorf("%d tokens are expected", r.Expected())
	}
}
