package proxy

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// bunch is the keys a and b of a provider, with a clock that is the test's.
type bunch struct {
	*keyring
	t     *testing.T
	clock time.Time
}

func newBunch(t *testing.T, a, b string) *bunch {
	t.Helper()
	k := &bunch{newKeyring(snapshot.NewStore(), logr.Discard(), metrics.New()), t, time.Unix(1e9, 0)}
	k.now = func() time.Time { return k.clock }
	k.publish(a, b)
	return k
}

func (k *bunch) publish(a, b string) {
	k.t.Helper()
	o := routing.Objects{Secrets: []routing.Secret{
		{Namespace: "default", Name: "a", Data: map[string]routing.Key{"apiKey": routing.NewKey(a)}},
		{Namespace: "default", Name: "b", Data: map[string]routing.Key{"apiKey": routing.NewKey(b)}},
	}}
	if _, err := o.Decode([]byte(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: two}
spec: {host: two.example.com, configs: {defaultConfig: {openAIConfig: {model: m, apiKeyRefs: [{name: a}, {name: b}]}}}}
`), "default"); err != nil {
		k.t.Fatal(err)
	}
	table, _ := routing.Compile(o, &routing.Workload{Namespace: "default"})
	k.store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
	k.adopt()
}

func (k *bunch) target() *routing.Target {
	for t := range k.store.Load().Table.Targets() {
		return t
	}
	return nil
}

// use has a call send key i, for which the provider answers then.
func (k *bunch) use(i int) (answer func(status int, header ...string)) {
	c := k.current().all[credentialID(k.target(), i)]
	v, turn := c.current.Load(), k.keyring.rests.turns.Load()
	return func(status int, header ...string) {
		if !refusesKey(status) {
			k.keyring.rests.accepted(v, turn)
			return
		}
		var h fasthttp.ResponseHeader
		h.SetStatusCode(status)
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		k.refused(c, v, turn, &h)
	}
}

// rests tells whether no call gets key i while there is another.
func (k *bunch) rests(i int) bool {
	for range 64 { // of which each one draws it otherwise with a chance of a half
		if got, _ := k.pick(k.target(), 0, true); got == i {
			return false
		}
	}
	return true
}

// restsFor asserts for how long key 0 rests from now on; the clock is at its end then.
func (k *bunch) restsFor(want time.Duration) {
	k.t.Helper()
	k.clock = k.clock.Add(want - time.Nanosecond)
	if !k.rests(0) || k.countResting() != 1 {
		k.t.Errorf("the rest is over before %s", want)
	}
	k.clock = k.clock.Add(time.Nanosecond)
	if k.countResting() != 0 {
		k.t.Errorf("the rest is not over after %s", want)
	}
}

func TestHowLongAKeyRests(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header []string
		want   []time.Duration // after one refusal after the other
	}{
		"429":                   {429, nil, []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute}},
		"401":                   {401, nil, []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute}},
		"403":                   {403, nil, []time.Duration{time.Minute, 2 * time.Minute}},
		"Retry-After":           {429, []string{"Retry-After", "7"}, []time.Duration{7 * time.Second, 7 * time.Second}},
		"Retry-After of a 403":  {403, []string{"Retry-After", "7"}, []time.Duration{7 * time.Second}},
		"Retry-After-Ms":        {429, []string{"Retry-After-Ms", "250", "Retry-After", "1"}, []time.Duration{250 * time.Millisecond}},
		"a long Retry-After":    {429, []string{"Retry-After", "86400"}, []time.Duration{time.Hour}},
		"an endless one":        {429, []string{"Retry-After", "18446744073709551615"}, []time.Duration{time.Hour}},
		"none at all":           {429, []string{"Retry-After", "0"}, []time.Duration{firstBackoff}},
		"one that is no number": {429, []string{"Retry-After", "soon"}, []time.Duration{10 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newBunch(t, "sk-a", "sk-b")
			for _, want := range c.want {
				k.use(0)(c.status, c.header...)
				k.restsFor(want)
			}
			k.use(0)(200)
			if k.rests(0) || k.troubled() != 0 {
				t.Error("a success does not end it")
			}
			k.use(0)(c.status, c.header...)
			k.restsFor(c.want[0])
		})
	}
}

func (k *bunch) troubled() int32 { return k.keyring.rests.troubled.Load() }

func TestWhatWasSentBeforeARestSaysNothingOfIt(t *testing.T) {
	k := newBunch(t, "sk-a", "sk-b")
	good, bad := k.use(0), []func(int, ...string){k.use(0), k.use(0), k.use(0)}
	for _, answer := range bad {
		answer(429) // which is one rest, not three
	}
	good(200)
	k.restsFor(10 * time.Second)
	// While it rests it is used where the others do too; then a longer wait holds, and nothing else.
	k.use(0)(429)
	k.use(0)(429)
	k.restsFor(20 * time.Second)
	k.use(0)(429)
	k.use(0)(429, "Retry-After", "100")
	k.restsFor(100 * time.Second)
}

func TestAfterItsRestOneCallTriesAKeyAtATime(t *testing.T) {
	k := newBunch(t, "sk-a", "sk-b")
	k.use(0)(401)
	k.clock = k.clock.Add(time.Minute)
	if !k.rests(0) {
		t.Error("calls that cannot be sent again try it")
	}
	tried := func() (n int) {
		for range 200 {
			if i, rests := k.pick(k.target(), 0, false); rests {
				t.Error("all seem to rest")
			} else if i == 0 {
				n++
			}
		}
		return n
	}
	for range 3 {
		if n := tried(); n != 1 {
			t.Errorf("%d calls try it at once", n)
		}
		k.clock = k.clock.Add(probeTime)
	}
	k.use(0)(200)
	if n := tried(); n < 50 {
		t.Errorf("of 200 calls it has %d", n)
	}
}

func TestWhereAllRestTheOneThatIsBackFirstIsUsed(t *testing.T) {
	k := newBunch(t, "sk-a", "sk-b")
	k.use(0)(429, "Retry-After", "100")
	k.use(1)(429, "Retry-After", "50")
	for range 50 {
		if i, rests := k.pick(k.target(), 0, false); i != 1 || !rests {
			t.Fatalf("%d %v", i, rests)
		}
	}
	if i, _ := k.pick(k.target(), 1<<1, false); i != 0 {
		t.Errorf("without it: %d", i)
	}
	if i, rests := k.pick(k.target(), 3, false); i != -1 || rests {
		t.Errorf("without any: %d %v", i, rests)
	}
}

func TestAChangedKeyStartsAfresh(t *testing.T) {
	k := newBunch(t, "sk-a", "sk-b")
	late := k.use(0)
	k.use(0)(401)
	k.publish("sk-a", "sk-other")
	if !k.rests(0) {
		t.Error("another key's change ends the rest")
	}
	k.publish("sk-new", "sk-other")
	late(401)
	late(429, "Retry-After", "5")
	if k.rests(0) || k.troubled() != 0 || k.countResting() != 0 {
		t.Error("the new value rests for the old one")
	}
	k.use(0)(401)
	k.publish("sk-a", "sk-other")
	if k.rests(0) || k.troubled() != 0 {
		t.Error("an old value that is back is not as good as a new one")
	}
	k.use(0)(401)
	k.store.Publish(snapshot.NewStore().Load())
	if k.current(); k.troubled() != 0 || k.countResting() != 0 || len(k.gone) != 0 || len(k.table.Load().all) != 0 {
		t.Error("something is left of keys that are no more")
	}
}

// Many calls at once meet rests, changes and ends of keys; what is counted comes out even.
func TestRestsOfManyCallsComeOutEven(t *testing.T) {
	k := newBunch(t, "sk-a", "sk-b")
	var calling sync.WaitGroup
	for range 8 {
		calling.Go(func() {
			for n := range 2000 {
				t := k.target()
				i, _ := k.pick(t, 0, n%2 == 0)
				c := k.current().all[credentialID(t, i)]
				v, turn := c.current.Load(), k.keyring.rests.turns.Load()
				if n%3 > 0 {
					k.keyring.rests.accepted(v, turn)
					continue
				}
				var h fasthttp.ResponseHeader
				h.SetStatusCode(429)
				h.Set("Retry-After-Ms", strconv.Itoa(n%5))
				k.refused(c, v, turn, &h)
			}
		})
	}
	for i := range 50 {
		k.publish("sk-a"+strconv.Itoa(i), "sk-b")
	}
	calling.Wait()
	k.publish("sk-c", "sk-d")
	if n := k.troubled(); n != 0 {
		t.Errorf("%d keys are in trouble that are no more", n)
	}
}
