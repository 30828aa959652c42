package balance

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// failAt has calls at one server fail.
func (r *rig) failAt(i, times int, f Fault) (left time.Duration) {
	all, _ := r.Servers()
	for range times {
		c := r.call(all[i], &Query{}, Trial{Turn: r.turns.Load()})
		left = max(left, c.Failed(f, r.now))
		c.End()
	}
	return left
}

func (r *rig) wantOut(n int) {
	r.t.Helper()
	if _, out := r.Servers(); out != n {
		r.t.Errorf("%d are left alone, want %d", out, n)
	}
}

func TestAServerThatRefusesIsLeftAtOnceAndForLongerEachTime(t *testing.T) {
	r := newRig(t, routing.Balance{Policy: routing.RoundRobin}, some(3))
	if left := r.failAt(1, 1, Refused); left != firstRefused {
		t.Fatalf("left alone for %s", left)
	}
	if n := r.counts(100)["10.0.0.1"]; n > 0 {
		t.Errorf("it got %d calls", n)
	}
	for _, want := range []int{1, 2, 4, 8, 16, 30, 30, 30} {
		r.now = r.now.Add(31 * time.Second)
		c := r.pick()
		if !c.Probe() || c.Server().Address != "10.0.0.1" {
			t.Fatalf("the next call goes to %s", c.Server().Address)
		}
		if other := r.pick(); other.Probe() {
			t.Fatal("there are two probes")
		} else {
			other.End()
		}
		if left := c.Failed(Refused, r.now); left != time.Duration(want)*time.Second {
			t.Errorf("left alone for %s, want %ds", left, want)
		}
		c.End()
	}
	r.now = r.now.Add(time.Minute)
	c := r.pick()
	if !c.Completed() {
		t.Error("it is not back")
	}
	c.End()
	r.wantOut(0)
	if left := r.failAt(1, 1, Refused); left != firstRefused {
		t.Errorf("after an answer, left alone for %s", left)
	}
	r.idle()
}

func TestAProbeThatSaysNothingIsFollowedByAnother(t *testing.T) {
	r := newRig(t, routing.Balance{}, some(2))
	r.failAt(0, 1, Silent)
	r.now = r.now.Add(firstSilent)
	for range 3 {
		c := r.pick()
		if !c.Probe() {
			t.Fatal("there is no probe")
		}
		c.End()
	}
}

func TestNoMoreServersAreLeftAloneForTheirAnswersThanMayBe(t *testing.T) {
	r := newRig(t, routing.Balance{MaxEjected: 30}, some(10))
	for i := range 10 {
		r.failAt(i, 10, Failing)
	}
	r.wantOut(3)
	for i := range 10 {
		r.failAt(i, 1, Refused) // but all that cannot be reached
	}
	r.wantOut(10)
	one := newRig(t, routing.Balance{}, some(1))
	one.failAt(0, 3, Failing)
	one.wantOut(1)
	few := newRig(t, routing.Balance{MaxEjected: 100, MinHealthy: 60}, some(10))
	for i := range 10 {
		few.failAt(i, 10, Failing)
	}
	few.wantOut(4)
}

func TestWhereAllAreLeftAloneTheyAreCalledAllTheSame(t *testing.T) {
	for name, b := range map[string]routing.Balance{"turns": {Policy: routing.RoundRobin}, "two draws": {}, "chance": {Policy: routing.Random}, "hash": hashes["ring"]} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, b, some(4))
			for i := range 4 {
				r.failAt(i, 1, Refused)
			}
			q := r.query()
			if _, result := r.Pick(&q); result != Left {
				t.Fatalf("result %d", result)
			}
			got := map[string]int{}
			for range 400 {
				c := r.pick(func(q *Query) { q.Force = true })
				got[c.Server().Address]++
				c.End()
			}
			spread(t, got, 4, 400)
			// Whichever answers is back.
			c := r.pick(func(q *Query) { q.Force = true })
			if !c.Completed() {
				t.Error("it is not back")
			}
			c.End()
			r.wantOut(3)
			r.idle()
		})
	}
}

func TestACallDoesNotGoWhereItHasBeen(t *testing.T) {
	for name, b := range map[string]routing.Balance{"turns": {Policy: routing.RoundRobin}, "two draws": {}, "chance": {Policy: routing.Random}, "ring": hashes["ring"], "Maglev": hashes["Maglev"]} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, b, some(5))
			for range 50 {
				var tried []*Server
				for range 5 {
					c := r.pick(keyed(1), func(q *Query) { q.Tried = tried })
					tried = append(tried, c.Server())
					c.End()
				}
				q := r.query()
				q.Tried = tried
				if _, result := r.Pick(&q); result != Spent || r.Free(&q) {
					t.Fatalf("result %d", result)
				}
				seen := map[*Server]bool{}
				for _, s := range tried {
					seen[s] = true
				}
				if len(seen) != 5 {
					t.Fatal("it was twice at one")
				}
			}
		})
	}
}

func TestAnEmptyListKeepsTheServersForAWhile(t *testing.T) {
	r := newRig(t, routing.Balance{}, some(3))
	r.Update(nil, r.now)
	r.now = r.now.Add(routing.KeepServers / 2)
	r.Update(nil, r.now) // which is no news
	r.now = r.now.Add(routing.KeepServers / 2)
	c := r.pick()
	c.End()
	r.now = r.now.Add(1)
	q := r.query()
	if _, result := r.Pick(&q); result != Missing || r.Free(&q) {
		t.Errorf("result %d", result)
	}
	r.Update(some(2), r.now)
	if n := r.counts(100); len(n) != 2 {
		t.Errorf("the calls went to %v", n)
	}
	empty := New(routing.Balance{}, Limits{})
	if _, result := empty.Pick(&q); result != Missing {
		t.Errorf("without any server: result %d", result)
	}
}

func TestANewServerGetsItsShareSlowly(t *testing.T) {
	for name, policy := range map[string]routing.BalancePolicy{"ROUND_ROBIN": routing.RoundRobin, "LEAST_REQUEST": routing.LeastRequest, "RANDOM": routing.Random, "LEAST_TOKENS": routing.LeastTokens} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, routing.Balance{Policy: policy, SlowStart: routing.SlowStart{WindowSeconds: 100, MinPercent: 10, Aggression: 1}}, some(4))
			spread(t, r.counts(4000), 4, 4000) // those that were there first are not new
			r.Update(some(5), r.now)
			for _, c := range []struct {
				after time.Duration
				share float64
			}{{time.Second, 0.1}, {50 * time.Second, 0.5}, {75 * time.Second, 0.75}, {100 * time.Second, 1}} {
				r.now = start.Add(c.after)
				const calls = 20000
				got := float64(r.counts(calls)["10.0.0.4"]) / (calls / (4 + c.share))
				if got < c.share*0.85 || got > c.share*1.15 {
					t.Errorf("after %s it got %.2f of a full share, want %.2f", c.after, got, c.share)
				}
			}
			r.idle()
		})
	}
}

func TestTurnsByWeightAreEvenlySpread(t *testing.T) {
	r := newRig(t, routing.Balance{Policy: routing.RoundRobin, SlowStart: routing.SlowStart{WindowSeconds: 100, Aggression: 1}}, some(2))
	r.Update(some(3), r.now)
	r.now = r.now.Add(50 * time.Second) // the third has half of a share: one turn of five
	last := 0
	for i := range 1000 {
		c := r.pick()
		if c.Server().Address == "10.0.0.2" {
			if i > 10 && (i-last < 4 || i-last > 6) {
				t.Errorf("it has turns %d and %d", last, i)
			}
			last = i
		}
		c.End()
	}
}

// BenchmarkUpdate is what it costs to take in that one of ten thousand servers is another.
func BenchmarkUpdate(b *testing.B) {
	all := some(10001)
	slices.SortFunc(all, func(a, b routing.Server) int { return strings.Compare(a.Address, b.Address) })
	for name, how := range map[string]routing.Balance{"turns": {Policy: routing.RoundRobin}, "near ones": {Locality: routing.Locality{Prefer: true}}, "ring": hashes["ring"], "Maglev": hashes["Maglev"]} {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, how, all[:10000])
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				r.Update(all[i%2:10000+i%2], r.now)
			}
		})
	}
}

func TestTenThousandServersGetTheirShares(t *testing.T) {
	for name, b := range map[string]routing.Balance{"turns": {Policy: routing.RoundRobin}, "two draws": {}, "chance": {Policy: routing.Random}, "tokens": {Policy: routing.LeastTokens}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, b, some(10000))
			spread(t, r.counts(100_000), 10000, 100_000)
			for i := range 10000 {
				r.failAt(i, 1, Refused)
			}
			r.wantOut(10000)
			c := r.pick(func(q *Query) { q.Force = true })
			c.End()
			r.now = r.now.Add(time.Minute)
			for range 10000 { // each is probed
				c := r.pick()
				c.Completed()
				c.End()
			}
			r.wantOut(0)
			r.idle()
		})
	}
}

func TestChoosingAllocatesNothing(t *testing.T) {
	for name, b := range map[string]routing.Balance{"turns": {Policy: routing.RoundRobin}, "two draws": {}, "tokens": {Policy: routing.LeastTokens}, "ring": hashes["ring"], "Maglev": hashes["Maglev"]} {
		r := newRig(t, b, some(10))
		var calls [8]Call
		i := 0
		once := func() {
			q := Query{Now: r.now, Draw: uint64(i) * 0x9e3779b97f4a7c15, Hashed: true, Hash: mix(uint64(i)), Tokens: 7}
			calls[i%8].Completed()
			calls[i%8].End()
			calls[i%8], _ = r.Pick(&q)
			i++
		}
		if n := testing.AllocsPerRun(1000, once); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// However servers come, go, fail and recover while calls begin and end: nothing stays counted, nothing is lost, and every call finds a
// server while there is one.
func TestAHundredThousandChangesUnderLoadLeaveNothingBehind(t *testing.T) {
	for name, b := range map[string]routing.Balance{
		"turns":  {Policy: routing.RoundRobin, SlowStart: routing.SlowStart{WindowSeconds: 1, Aggression: 1}, MaxEjected: 50},
		"tokens": {Policy: routing.LeastTokens, Locality: routing.Locality{Prefer: true}, MaxEjected: 50}, "ring": {Policy: routing.ConsistentHash, RingSize: 64, MaxEjected: 50},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, b, some(8))
			r.Locate("", "z1")
			pool := placed(4, [2]string{"", "z1"}, [2]string{"", "z2"}, [2]string{"", "z3"})
			var clock atomic.Int64
			now := func() time.Time { return start.Add(time.Duration(clock.Load())) }
			stop := make(chan struct{})
			var callers sync.WaitGroup
			for i := range 4 {
				callers.Go(func() {
					random := rand.New(rand.NewPCG(uint64(i), 2))
					var open []Call
					for {
						select {
						case <-stop:
							for i := range open {
								open[i].End()
							}
							return
						default:
						}
						q := Query{Now: now(), Draw: random.Uint64(), Hashed: true, Hash: random.Uint64(), Tokens: random.Int64N(100), Force: true}
						if len(open) > 0 {
							q.Tried = []*Server{open[0].Server()}
						}
						c, result := r.Pick(&q)
						if result != Picked && result != Spent {
							t.Errorf("result %d", result)
							return
						}
						if result == Picked {
							open = append(open, c)
						}
						for len(open) > random.IntN(20) {
							last := &open[len(open)-1]
							switch random.IntN(6) {
							case 0:
								last.Failed(Refused, now())
							case 1:
								last.Failed(Failing, now())
							case 2:
								last.Answered()
							case 3:
							default:
								last.Remaining(random.Int64N(50))
								last.Completed()
							}
							last.End()
							open = open[:len(open)-1]
						}
					}
				})
			}
			random := rand.New(rand.NewPCG(9, 9))
			changes := 50_000
			if name == "ring" {
				changes = 1000 // each costs as much as fifty of the others
			}
			for range changes {
				clock.Add(int64(time.Millisecond))
				n := 1 + random.IntN(len(pool)-1)
				from := random.IntN(len(pool) - n + 1)
				r.Update(pool[from:from+n], now())
			}
			close(stop)
			callers.Wait()
			r.idle()
			all, out := r.Servers()
			lost := 0
			for _, s := range all {
				if s.out.Load() != s.health.Out() {
					t.Errorf("%s: %+v", s.Address, s.health)
				}
				if s.out.Load() {
					lost++
				}
			}
			if lost != out || len(r.lost) != out {
				t.Errorf("%d are left alone, and %d are counted, and %d are known", lost, out, len(r.lost))
			}
			// All of them come back in time.
			clock.Add(int64(time.Hour))
			for range 1000 {
				c, _ := r.Pick(&Query{Now: now(), Draw: random.Uint64(), Force: true})
				c.Completed()
				c.End()
			}
			if _, out := r.Servers(); out > 0 && name != "tokens" {
				t.Errorf("%d are still left alone", out)
			}
		})
	}
}
