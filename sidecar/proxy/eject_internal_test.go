package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
)

// ward is the ejections of a route, with a clock and a log that are the test's.
type ward struct {
	*ejections
	table *routing.Table
	clock atomic.Int64
	lines []string // written with the ejections' lock held
	set   *metrics.Set
}

// newWard has providers a, b, c, … for refs, which are backendRefs of the route "chat" after "providerHost: ". missing
// is one that nobody has.
func newWard(tb testing.TB, refs ...string) *ward {
	tb.Helper()
	w := &ward{set: metrics.New()}
	w.ejections = newEjections(funcr.New(func(_, args string) { w.lines = append(w.lines, args) }, funcr.Options{}), w.set)
	w.now = func() time.Time { return time.Unix(1e9, w.clock.Load()) }
	w.table = compiled(tb, refs...)
	w.retire(w.table)
	return w
}

func compiled(tb testing.TB, refs ...string) *routing.Table {
	tb.Helper()
	o := routing.Objects{Secrets: []routing.Secret{}}
	add := func(text string) {
		if _, err := o.Decode([]byte(text), "default"); err != nil {
			tb.Fatal(err)
		}
	}
	rule := ""
	for _, ref := range refs {
		name, _, _ := strings.Cut(ref, ",")
		rule += "\n    - {providerHost: " + strings.Replace(ref, name, name+".example.com", 1) + "}"
		if name != "missing" {
			add("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: " + name + "}\nspec:\n  host: " + name +
				".example.com\n  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 10s}}\n")
		}
	}
	add("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: chat}\nspec:\n  host: chat\n  rules:\n  - backendRefs:" + rule + "\n")
	table, problems := routing.Compile(o, &routing.Workload{Namespace: "default"})
	for _, p := range problems {
		if p.Severity == routing.Invalid {
			tb.Fatal(p)
		}
	}
	return table
}

func (w *ward) rule() *routing.Rule { return w.table.Host([]byte("chat")).Rules[0] }

// target is that of the provider of this name.
func (w *ward) target(name string) *routing.Target {
	for t := range w.table.Targets() {
		if t.Provider.Name == name {
			return t
		}
	}
	return nil
}

func (w *ward) pass(d time.Duration) { w.clock.Add(int64(d)) }

// fail has calls fail one after the other, as they would where nothing else is left.
func (w *ward) fail(name string, times int) {
	for range times {
		tr, ok := w.admit(w.target(name))
		if !ok {
			tr = w.force(w.target(name))
		}
		w.failed(&tr, balance.Failing)
	}
}

func (w *ward) admits(name string) bool { return w.free(w.target(name)) }

func (w *ward) mustAdmit(t *testing.T, name string) trial {
	t.Helper()
	tr, ok := w.admit(w.target(name))
	if !ok {
		t.Fatalf("%s is left alone", name)
	}
	return tr
}

func TestABackendIsLeftAloneAfterSoManyFailuresInARow(t *testing.T) {
	w := newWard(t, "a", "b")
	w.fail("a", 2)
	tr := w.mustAdmit(t, "a")
	w.completed(&tr)
	w.fail("a", 2)
	if !w.admits("a") {
		t.Fatal("two failures in a row are enough, and three should be")
	}
	w.fail("a", 1)
	if w.admits("a") || !w.admits("b") {
		t.Errorf("after three: a %t, b %t", w.admits("a"), w.admits("b"))
	}
	w.pass(10*time.Second - 1)
	if w.admits("a") {
		t.Error("it is tried too early")
	}
	w.pass(1)
	if !w.admits("a") {
		t.Error("it is not tried in time")
	}
}

func TestAnEjectionThatGoesOnGetsLongerUpToTenTimes(t *testing.T) {
	w := newWard(t, "a")
	w.fail("a", 3)
	for _, seconds := range []int{10, 20, 40, 80, 100, 100, 100, 100, 100} {
		w.pass(time.Duration(seconds)*time.Second - 1)
		if w.admits("a") {
			t.Fatalf("it is tried before %ds", seconds)
		}
		w.pass(1)
		tr := w.mustAdmit(t, "a")
		if !tr.Probe {
			t.Fatal("that is no probe")
		}
		w.failed(&tr, balance.Failing)
	}
	if n := w.set.Ejections("default/a").Get(); n != 10 || len(w.lines) != 10 {
		t.Errorf("%d ejections, %d lines in the log", n, len(w.lines))
	}
	w.pass(100 * time.Second)
	tr := w.mustAdmit(t, "a")
	w.completed(&tr)
	w.fail("a", 3)
	w.pass(10 * time.Second)
	if !w.admits("a") {
		t.Error("after a good answer the time is still a longer one")
	}
}

func TestOfManyCallsOneIsTheProbe(t *testing.T) {
	w := newWard(t, "a")
	for range 20 {
		w.fail("a", 3)
		w.pass(time.Hour)
		var admitted atomic.Int64
		var probe trial
		var calls sync.WaitGroup
		for range 200 {
			calls.Go(func() {
				if tr, ok := w.admit(w.target("a")); ok {
					admitted.Add(1)
					probe = tr
				}
			})
		}
		calls.Wait()
		if admitted.Load() != 1 {
			t.Fatalf("%d of 200 calls were let through", admitted.Load())
		}
		w.completed(&probe)
		if w.out.Load() != 0 {
			t.Fatal("it is not back")
		}
	}
}

func TestAProbeThatSaysNothingGivesItsTurnToTheNext(t *testing.T) {
	w := newWard(t, "a")
	w.fail("a", 3)
	w.pass(10 * time.Second)
	tr := w.mustAdmit(t, "a")
	w.abandon(&tr)
	tr = w.mustAdmit(t, "a")
	if w.admits("a") {
		t.Fatal("two probes at a time")
	}
	w.abandon(&tr)
	w.abandon(&tr) // of no effect
	tr = w.mustAdmit(t, "a")
	w.answered(&tr)
	for range 10 {
		w.mustAdmit(t, "a")
	}
}

func TestCallsFromBeforeSayNothingOfWhatCameAfter(t *testing.T) {
	w := newWard(t, "a")
	before := make([]trial, 20)
	for i := range before {
		before[i] = w.mustAdmit(t, "a")
	}
	w.fail("a", 3)
	w.answered(&before[0])
	w.completed(&before[1])
	if w.admits("a") {
		t.Error("an answer to a call that was sent before the ejection ends it")
	}
	w.pass(10 * time.Second)
	tr := w.mustAdmit(t, "a")
	w.failed(&before[2], balance.Failing)
	w.completed(&tr)
	for i := range before[3:] {
		w.failed(&before[3+i], balance.Failing)
	}
	if !w.admits("a") {
		t.Error("calls that hung before it was back eject it again")
	}
}

func TestAForcedCallBringsABackendBackButItsFailureIsNoNews(t *testing.T) {
	w := newWard(t, "a")
	w.fail("a", 100)
	if n := w.set.Ejections("default/a").Get(); n != 1 {
		t.Errorf("%d ejections", n)
	}
	tr := w.force(w.target("a"))
	w.answered(&tr)
	if !w.admits("a") {
		t.Error("it answers, and is still left alone")
	}
	if len(w.lines) != 2 || !strings.Contains(w.lines[1], "answers again") || !strings.Contains(w.lines[1], "BackendEjected") {
		t.Errorf("the log says %q", w.lines)
	}
}

func TestAProviderThatNeverEndsItsAnswersIsLeftAloneToo(t *testing.T) {
	w := newWard(t, "a")
	die := func() {
		tr := w.mustAdmit(t, "a")
		w.answered(&tr)
		w.failed(&tr, balance.Failing)
	}
	for range 3 {
		die()
	}
	if w.admits("a") {
		t.Fatal("three streams died, and nothing followed")
	}
	// Once it is back, one more is enough, and the time doubles: nothing has been complete yet.
	w.pass(10 * time.Second)
	die()
	w.pass(20*time.Second - 1)
	if w.admits("a") {
		t.Error("it began to answer, and that counts as if it had answered")
	}
}

func TestAnotherConfigurationForgetsWhatItDoesNotUse(t *testing.T) {
	w := newWard(t, "a", "b")
	w.fail("a", 3)
	w.fail("b", 3)
	w.pass(10 * time.Second)
	tr := w.mustAdmit(t, "b")
	old := w.target("b")
	w.table = compiled(t, "a", "c")
	w.retire(w.table)
	if w.out.Load() != 1 || w.troubled.Load() != 1 || len(w.all) != 1 {
		t.Errorf("%d ejected, %d in trouble, %d known", w.out.Load(), w.troubled.Load(), len(w.all))
	}
	w.failed(&tr, balance.Failing)
	for range 5 {
		late := w.force(old)
		w.failed(&late, balance.Failing)
	}
	if len(w.all) != 1 || w.out.Load() != 1 {
		t.Error("a call of the old configuration brings it back")
	}
	if got := exposed(w.set); !strings.Contains(got, "remora_ejected_backends 1\n") {
		t.Errorf("the metrics say %s", got)
	}
}

func exposed(set *metrics.Set) string {
	var b strings.Builder
	set.Write(&b)
	return b.String()
}

// call is one that is about to choose.
func (w *ward) call() *call {
	return &call{proxy: &Proxy{ejections: w.ejections}, rule: w.rule()}
}

// drawn counts where a thousand first attempts go.
func (w *ward) drawn() map[string]int {
	n := map[string]int{}
	for range 1000 {
		c := w.call()
		if r := c.choose(); r != nil {
			n[string(r.Code)]++
		} else {
			n[c.target.Provider.Name]++
		}
		w.abandon(&c.trial)
	}
	return n
}

func TestTheShareOfAnEjectedBackendIsMovedAndNothingIsRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		refs    []string
		ejected string
		want    string // who gets calls
	}{
		{"to the others of its priority", []string{"a, weight: 90", "b, weight: 10", "c, weight: 1, priority: 1"}, "a", "b"},
		{"to the next priority", []string{"a", "b, priority: 1"}, "a", "b"},
		{"past an ejected one", []string{"a", "b, priority: 1", "c, priority: 2"}, "a b", "c"},
		{"nowhere, if all are ejected", []string{"a", "b, priority: 1"}, "a b", "a"},
		{"nowhere, if there is no other", []string{"a"}, "a", "a"},
		{"not to a weight of 0", []string{"a, weight: 1", "b, weight: 0"}, "a", "a"},
		{"not to a missing one of the next priority", []string{"a, weight: 1", "missing, weight: 999, priority: 1", "b, weight: 1, priority: 1"}, "a", "b"},
		{"not to a missing one that is all there is", []string{"a", "missing, priority: 1"}, "a", "a"},
		{"not to a missing one beside it, whose own share is refused", []string{"a, weight: 50", "missing, weight: 50"}, "a", "ProviderNotFound a"},
		{"nor is that share anybody's", []string{"a, weight: 33", "b, weight: 33", "missing, weight: 33"}, "a", "ProviderNotFound b"},
		{"that share goes to the next priority, ejected as it is", []string{"missing", "a, priority: 1"}, "a", "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWard(t, c.refs...)
			before := w.drawn()
			for name := range strings.FieldsSeq(c.ejected) {
				w.fail(name, 3)
			}
			n := w.drawn()
			for name := range strings.FieldsSeq(c.want) {
				if n[name] == 0 {
					t.Errorf("%s gets nothing: %v", name, n)
				}
				delete(n, name)
			}
			if len(n) > 0 {
				t.Errorf("calls go to %v", n)
			}
			w.pass(time.Hour) // each of them may be tried
			for name := range before {
				if n := w.drawn(); n[name] == 0 {
					t.Errorf("%s gets no probe: %v", name, n)
				}
			}
		})
	}
}

func TestAMissingProvidersShareStaysAsLargeBesideAnEjectedOne(t *testing.T) {
	w := newWard(t, "a, weight: 30", "b, weight: 30", "missing, weight: 40")
	w.fail("a", 3)
	if n := w.drawn(); n["ProviderNotFound"] < 300 || n["ProviderNotFound"] > 500 || n["b"] < 500 {
		t.Errorf("of 1000, 400 are the missing one's: %v", n)
	}
}

func TestThirtyTwoEjectedBackendsAreAllCalled(t *testing.T) {
	var refs []string
	for i := range 32 {
		refs = append(refs, fmt.Sprintf("p%d", i))
	}
	w := newWard(t, refs...)
	for _, name := range refs {
		w.fail(name, 3)
	}
	if n := w.drawn(); len(n) != 32 {
		t.Errorf("%d of 32 are called: %v", len(n), n)
	}
	w.pass(time.Hour)
	tr := w.mustAdmit(t, "p7")
	w.completed(&tr)
	var probes []trial
	for range 31 { // the others' probes hang
		if c := w.call(); c.choose() == nil && c.target.Provider.Name != "p7" {
			probes = append(probes, c.trial)
		}
	}
	for range 1000 {
		c := w.call()
		c.choose()
		if !c.trial.Probe && c.target.Provider.Name != "p7" {
			t.Fatalf("%s gets a call beside its probe", c.target.Provider.Name)
		}
	}
	if len(probes) == 0 {
		t.Error("none is probed")
	}
}

// However providers flap, however the clock jumps forward, whatever the app aborts: every call finds a provider, no more
// than one probe is under way at each, and the counts agree with the state.
func TestFlappingProvidersNeverLeaveACallWithoutOne(t *testing.T) {
	w := newWard(t, "a, weight: 2", "b, weight: 1", "c, weight: 1, priority: 1")
	random := rand.New(rand.NewPCG(1, 2))
	var open []*call
	for range 200_000 {
		switch random.IntN(8) {
		case 0:
			w.pass(time.Duration(random.Int64N(int64(20 * time.Second))))
		case 1, 2, 3:
			c := w.call()
			if r := c.choose(); r != nil {
				t.Fatalf("refused: %s", r.Message)
			}
			open = append(open, c)
		default:
			if len(open) == 0 {
				continue
			}
			i := random.IntN(len(open))
			c := open[i]
			switch random.IntN(5) {
			case 0:
				w.completed(&c.trial)
			case 1:
				w.answered(&c.trial)
				continue
			case 2:
				w.abandon(&c.trial)
			default:
				w.failed(&c.trial, balance.Failing)
			}
			open = append(open[:i], open[i+1:]...)
		}
		probes := map[string]int{}
		for _, c := range open {
			b := w.all[keyOf(c.target)]
			if c.trial.Probe && b.Out() && b.Concerns(&c.trial.Trial) { // the probe of this ejection
				probes[c.target.Provider.Name]++
			}
		}
		out, troubled := int32(0), int32(0)
		for key, b := range w.all {
			if n := probes[key.provider.Name]; b.Out() && b.Probing() != (n == 1) || n > 1 {
				t.Fatalf("%d probes at %s: %+v", n, key.provider, *b)
			}
			if b.Out() {
				out++
			}
			if b.troubled {
				troubled++
			}
		}
		if out != w.out.Load() || troubled != w.troubled.Load() {
			t.Fatalf("%d ejected and %d in trouble, counted as %d and %d", out, troubled, w.out.Load(), w.troubled.Load())
		}
	}
	if w.set.Ejections("default/a").Get() < 100 {
		t.Error("hardly anything was ejected")
	}
}

func TestWhatFailsIsTriedAtAnEjectedBackendOnlyWhereAllAre(t *testing.T) {
	w := newWard(t, "a", "b, priority: 1")
	w.fail("b", 3)
	c := w.call()
	if c.choose(); c.target.Provider.Name != "a" || c.others() {
		t.Errorf("after %s, the ejected one is next: %t", c.target.Provider.Name, c.others())
	}
	w.fail("a", 3)
	c = w.call()
	if c.choose(); c.target.Provider.Name != "a" || !c.others() {
		t.Fatalf("after %s, there is another: %t", c.target.Provider.Name, c.others())
	}
	if c.choose(); c.target.Provider.Name != "b" || c.others() {
		t.Errorf("then comes %s, and there is another: %t", c.target.Provider.Name, c.others())
	}
}

func TestWhoHadOnlyTheRestOfTheTimeIsNotToBlame(t *testing.T) {
	w := newWard(t, "a")
	for range 5 {
		c := w.call()
		c.choose()
		c.trial.hurried = true
		c.judge(fail(routing.DeadlineExceeded, ""))
	}
	if !w.admits("a") {
		t.Error("it is ejected, though others had used up the time")
	}
	for range 3 {
		c := w.call()
		c.choose()
		c.judge(fail(routing.DeadlineExceeded, ""))
	}
	if w.admits("a") {
		t.Error("it had all of the time three times, and is not ejected")
	}
}

func TestABodyThatIsGoneIsNotSentAgain(t *testing.T) {
	for _, c := range []struct {
		once, sent, again bool
	}{{true, true, false}, {true, false, true}, {false, true, true}} {
		w := newWard(t, "a")
		call := w.call()
		call.budget, call.once, call.sent = &retryBudget{now: time.Now}, c.once, c.sent
		call.choose()
		if got := call.again(retryReason{allowed: true, same: true}); got.granted != c.again {
			t.Errorf("%+v: another attempt is granted: %t", c, got.granted)
		}
	}
}

func TestChoosingAllocatesNothing(t *testing.T) {
	w := newWard(t, "a", "b", "c, priority: 1")
	c := w.call()
	once := func() {
		c.level, c.tried = 0, 0
		c.choose()
		w.completed(&c.trial)
	}
	if n := testing.AllocsPerRun(1000, once); n != 0 {
		t.Errorf("%v allocations where nothing is ejected", n)
	}
	w.fail("a", 3)
	if n := testing.AllocsPerRun(1000, once); n != 0 {
		t.Errorf("%v allocations where one is ejected", n)
	}
}

func BenchmarkChoose(b *testing.B) {
	for _, bad := range []string{"none", "a"} {
		b.Run("ejected="+bad, func(b *testing.B) {
			w := newWard(b, "a", "b", "c, priority: 1")
			if bad != "none" {
				w.fail(bad, 3)
			}
			c := w.call()
			b.ReportAllocs()
			for b.Loop() {
				c.level, c.tried = 0, 0
				c.choose()
				w.completed(&c.trial)
			}
		})
	}
}
