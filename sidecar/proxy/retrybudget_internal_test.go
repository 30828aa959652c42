package proxy

import (
	"testing"
	"time"
)

// thrifty is a budget with the test's clock.
func thrifty() (b *retryBudget, pass func(time.Duration)) {
	now := time.Unix(1e9, 0)
	return &retryBudget{now: func() time.Time { return now }}, func(d time.Duration) { now = now.Add(d) }
}

// spend takes all there is.
func (b *retryBudget) spend() (n int) {
	for b.take() {
		n++
	}
	return n
}

func TestAQuietHostHasThreeRetriesASecond(t *testing.T) {
	b, pass := thrifty()
	for range 10 {
		if n := b.spend(); n != 3 {
			t.Fatalf("%d at once, want 3", n)
		}
		pass(time.Second / 3)
		if n := b.spend(); n != 1 {
			t.Fatalf("%d after a third of a second, want 1", n)
		}
		pass(time.Hour) // they do not pile up, and a clock that jumps makes none
	}
}

func TestFiveRequestsPayForARetryAndSavingsHaveAnEnd(t *testing.T) {
	b, pass := thrifty()
	b.spend()
	for range 4 {
		b.deposit()
	}
	if n := b.spend(); n != 0 {
		t.Errorf("four requests pay for %d", n)
	}
	b.deposit()
	if n := b.spend(); n != 1 {
		t.Errorf("five requests pay for %d", n)
	}
	for range 100_000 {
		b.deposit()
	}
	if n := b.spend(); n != maxSavings {
		t.Errorf("%d are saved", n)
	}
	pass(-time.Hour) // which the real clock never does
	for range 5 {
		b.deposit()
	}
	if !b.take() {
		t.Error("what was paid for is refused")
	}
}

func TestABudgetIsKeptAsLongAsItsHost(t *testing.T) {
	w := newWard(t, "a")
	host := w.table.Host([]byte("chat"))
	all := retryBudgets{all: map[string]*retryBudget{}}
	b := all.of(host)
	all.of(w.table.Host([]byte("a.example.com")))
	all.retire(compiled(t, "b"))
	if all.of(host) != b || len(all.all) != 1 {
		t.Errorf("%d are kept, and it is another: %t", len(all.all), all.of(host) != b)
	}
	if n := testing.AllocsPerRun(100, func() { all.of(host).deposit() }); n != 0 {
		t.Errorf("a request costs %v allocations", n)
	}
}
