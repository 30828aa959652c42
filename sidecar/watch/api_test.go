package watch

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// keysSecret gives the Secret of keys with entries as in the argument, in plain text.
func keysSecret(entries string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {name: remora-sidecar-keys}\nstringData: {" + entries + "}\n"
}

func TestAChangeInKubernetesTakesEffectWithinMilliseconds(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one"))
	w := watch(t, n.api())
	w.has(w.awaitReady(), "model=one")
	edit := n.editor("llmproviders", "a")
	var took []time.Duration
	for i := range 100 {
		model := strings.Repeat("x", i%7+1) + "-" + string(rune('a'+i%26))
		at := edit(`{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"` + model + `"}}}}}`)
		w.awaitText("model=" + model + "\n")
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	t.Logf("from the request of the change to its effect: p50 %s, p99 %s", took[50], took[98])
	if took[50] > 500*time.Millisecond {
		t.Errorf("half of the changes took longer than %s", took[50])
	}
}

func TestAnEditInKubernetesThatIsInvalidKeepsTheLastGoodVersion(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one") + "---\n" + provider("b", "b.example", "one"))
	w := watch(t, n.api())
	w.awaitReady()
	// The schema lets it pass, and no webhook is there.
	n.apply(strings.Replace(provider("a", "new.example", "two"), "  configs:", "  tls: {caBundle: bm90IGEgY2VydGlmaWNhdGU=}\n  configs:", 1))
	n.apply(provider("b", "b.example", "three"))
	s := w.awaitText("model=three")
	w.has(s, "https://a.example:443/v1/chat/completions model=one", "host new.example\n  refused InvalidConfiguration", "the version from before this edit keeps running")
	if p := s.Problems[0]; p.Object.String() != "LLMProvider "+n.name+"/a" || p.Severity != routing.Invalid {
		t.Errorf("the problem is of %s", p.Object)
	}
	if line := w.awaitLog("configuration is invalid"); !strings.Contains(line, `"generation 2"`) {
		t.Errorf("the log does not say which version: %s", line)
	}
	// Another object of that name has no past.
	n.kubectl("delete", "llmprovider", "a", "-n", n.name)
	n.apply(strings.Replace(provider("a", "a.example", "four"), "  configs:", "  tls: {caBundle: bm90IGEgY2VydGlmaWNhdGU=}\n  configs:", 1))
	s = w.awaitText("host a.example\n  refused InvalidConfiguration")
	w.hasNot(s, "keeps running", "model=one")
	n.apply(strings.Replace(provider("a", "a.example", "five"), "  configs:", "  tls: null\n  configs:", 1))
	s = w.awaitText("model=five")
	w.hasNot(s, "InvalidConfiguration")
	if len(s.Problems) > 0 {
		t.Errorf("problems are left:\n%s", show(s))
	}
}

func TestAKeyThatIsRotatedOrRevokedTakesEffectAndOnlyItsSecretIsRead(t *testing.T) {
	n := newNamespace(t)
	// Two of the provider's own Secrets, which the sidecar may not read.
	n.apply(strings.Replace(provider("a", "a.example", "one"), "model: one", "apiKeyRef: {name: dash-scope.x, key: api_key}", 1))
	n.apply("apiVersion: v1\nkind: Secret\nmetadata: {name: dash-scope.x}\nstringData: {api_key: not-this-one}\n")
	w := watch(t, n.api())
	w.has(w.awaitReady(), "has no dash-scope.x_api_key for key api_key of Secret dash-scope.x: add it")

	n.apply(keysSecret("dash-scope.x_api_key: sk-first, other: ignored"))
	first := w.awaitText("key=secret:dash-scope.x/api_key")
	if len(first.Problems) > 0 {
		t.Errorf("problems where there are none:\n%s", show(first))
	}
	if got := keyOf(t, first, "a.example"); got != "sk-first" {
		t.Errorf("the key is %q", got)
	}
	n.apply(keysSecret("dash-scope.x_api_key: sk-second"))
	second := w.await("another generation", func(s *snapshot.Snapshot) bool { return s.Table.Generation() != first.Table.Generation() })
	if got := keyOf(t, second, "a.example"); got != "sk-second" {
		t.Errorf("the key is %q", got)
	}
	n.kubectl("delete", "secret", "remora-sidecar-keys", "-n", n.name)
	w.awaitText("(SecretNotFound)")
	if log := w.logged(); strings.Contains(log, "sk-") || strings.Contains(log, "not-this-one") {
		t.Errorf("a key is in the log:\n%s", log)
	}
}

func keyOf(t *testing.T, s *snapshot.Snapshot, host string) string {
	t.Helper()
	h := s.Table.Host([]byte(host))
	if h == nil || len(h.Rules) == 0 {
		t.Fatalf("%s is not served", host)
	}
	return h.Rules[0].Levels[0].Backends[0].Target.Keys[0].Key.Reveal()
}

func TestAMissingRightIsNamedAndNothingIsReadyWithoutIt(t *testing.T) {
	n := newNamespace(t)
	n.allow(rightOfObjects)
	n.apply(provider("a", "a.example", "one"))
	w := watch(t, n.api())
	line := w.awaitLog("the API server refuses to tell the configuration")
	if !strings.Contains(line, "the right to list and watch Secret remora-sidecar-keys in namespace "+n.name+" is missing") {
		t.Errorf("the log does not name the right: %s", line)
	}
	s := w.awaitText("(ConfigurationUnread)")
	if s.Ready || !s.Table.Incomplete() || s.Outage != nil {
		t.Errorf("ready %v, incomplete %v, outage %v", s.Ready, s.Table.Incomplete(), s.Outage)
	}
	n.allow(rightOfObjects, rightOfSecret)
	w.hasNot(w.awaitReady(), "ConfigurationUnread")
	if n := strings.Count(w.logged(), "refuses"); n != 1 {
		t.Errorf("it was said %d times:\n%s", n, w.logged())
	}
}

func TestAnAPIServerThatIsKilledLeavesTheTableAndIsFollowedAgain(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one"))
	w := watch(t, n.api())
	w.awaitReady()
	said := len(w.logged()) // an API server may not be there yet for a CRD that is new
	before := time.Now()
	n.cp.APIServer.Kill()
	s := w.await("an outage", func(s *snapshot.Snapshot) bool { return s.Outage != nil })
	w.has(s, "model=one")
	if !s.Ready || s.Outage.Since.Before(before) || !s.Outage.Saved.IsZero() {
		t.Errorf("ready %v, outage %+v", s.Ready, s.Outage)
	}
	if err := n.cp.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.apply(provider("a", "a.example", "two"))
	w.awaitText("model=two")
	w.await("no outage", func(s *snapshot.Snapshot) bool { return s.Outage == nil })
	for _, text := range []string{"the API server cannot be reached", "the API server is reachable again"} {
		if n := strings.Count(w.logged()[said:], text); n != 1 {
			t.Errorf("%q was said %d times:\n%s", text, n, w.logged())
		}
	}
}

func TestAFrozenAPIServerIsNoticedAndFollowedAgain(t *testing.T) {
	// client-go asks connections for a sign of life after 30 seconds of silence, and gives it 15 more.
	t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "1")
	t.Setenv("HTTP2_PING_TIMEOUT_SECONDS", "1")
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one"))
	a := n.api()
	a.Config.Dial = (&net.Dialer{}).DialContext // or client-go takes connections that it has
	w := watch(t, a)
	w.awaitReady()
	w.must(n.cp.APIServer.Freeze())
	defer n.cp.APIServer.Thaw()
	s := w.await("an outage", func(s *snapshot.Snapshot) bool { return s.Outage != nil })
	if !s.Ready {
		t.Error("it is not ready any more")
	}
	w.must(n.cp.APIServer.Thaw())
	n.apply(provider("a", "a.example", "two"))
	w.awaitText("model=two")
	w.await("no outage", func(s *snapshot.Snapshot) bool { return s.Outage == nil })
}

func TestAWatchThatIsCutEverySecondMissesNothing(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one"))
	a := n.api()
	g := newGate(t, a.Config)
	w := watch(t, a)
	w.awaitReady()
	before := len(w.logged()) // an API server may not be there yet for a CRD that is new
	edit := n.editor("llmproviders", "a")
	var took []time.Duration
	for range 8 {
		g.cut()
		for _, model := range []string{"two", "three"} {
			at := edit(`{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"` + model + `"}}}}}`)
			w.awaitText("model=" + model + "\n")
			took = append(took, time.Since(at))
		}
		<-time.After(time.Second)
	}
	t.Logf("from a change to its effect, slowest %s", slices.Max(took))
	if slices.Max(took) > time.Second {
		t.Errorf("a change took %s", slices.Max(took))
	}
	if log := w.logged()[before:]; strings.Contains(log, "cannot be reached") {
		t.Errorf("an API server that can be reached was called unreachable:\n%s", log)
	}
}

func TestAWatchThatIsOlderThanWhatEtcdKeepsBeginsAnew(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one"))
	a := n.api()
	g := newGate(t, a.Config)
	w := watch(t, a)
	w.awaitReady()
	edit := n.editor("llmproviders", "a")
	edit(`{"metadata":{"labels":{"x":"y"}}}`) // a watch with an event is not listed anew when it ends
	<-time.After(time.Second)
	g.closed.Lock()
	g.cut()
	edit(`{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"two"}}}}}`)
	<-time.After(3 * time.Second) // two compactions
	n.cp.APIServer.Kill()         // and what it remembers itself
	if err := n.cp.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.closed.Unlock()
	w.awaitText("model=two")
	edit(`{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"three"}}}}}`)
	w.awaitText("model=three")
}
