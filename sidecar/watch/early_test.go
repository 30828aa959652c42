package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

func TestCallsDoNotFailBetweenTwoEventsThatBelongTogether(t *testing.T) {
	p := newPretender(t)
	p.first["llmproviders"] = []string{toldOf("ADDED", "LLMProvider", "team", "a", "1", specOf("a.example"))}
	p.first["llmroutes"] = []string{toldOf("ADDED", "LLMRoute", "team", "r", "1", leadingTo("a.example"))}
	w := watch(t, p.api())
	w.has(w.awaitReady(), "https://a.example:443")
	unresolved := func(s *snapshot.Snapshot) bool { return strings.Contains(show(s), "(ProviderNotFound)") }
	w.store.OnChange(func(s *snapshot.Snapshot) {
		if unresolved(s) {
			t.Errorf("a table with a hole:\n%s", show(s))
		}
	})
	for i := range 20 { // the provider is made for the route, and its event comes later
		host := fmt.Sprintf("n%d.example", i)
		p.events["llmroutes"] <- toldOf("MODIFIED", "LLMRoute", "team", "r", fmt.Sprint(10+i), leadingTo(host))
		<-time.After(10 * time.Millisecond)
		p.events["llmproviders"] <- toldOf("ADDED", "LLMProvider", "team", fmt.Sprint("n", i), "10", specOf(host))
		w.awaitText("host r.example\n  rule 1 all of LLMRoute team/r\n    0: 1/1 https://" + host + ":443")
	}
}

func TestWhatIsMissingForGoodIsToldSoon(t *testing.T) {
	p := newPretender(t)
	p.first["llmproviders"] = []string{toldOf("ADDED", "LLMProvider", "team", "a", "1", specOf("a.example"))}
	p.first["llmroutes"] = []string{toldOf("ADDED", "LLMRoute", "team", "r", "1", leadingTo("a.example"))}
	w := watch(t, p.api())
	w.awaitReady()
	at := time.Now()
	p.events["llmproviders"] <- toldOf("DELETED", "LLMProvider", "team", "a", "2", specOf("a.example"))
	w.awaitText("(ProviderNotFound)")
	if took := time.Since(at); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestAKeyThatIsGoneIsNeverHeldBack(t *testing.T) {
	a := &API{wake: make(chan struct{}, 1), feeds: []*feed{{kind: v1beta1.KindLLMProvider}, {kind: secretKind}}}
	a.current = &compiled{changes: []int{1, 1}}
	missing := []finding{{Problem: routing.Problem{Severity: routing.Unresolved, Code: routing.SecretNotFound}}}
	if !a.early(&compiled{changes: []int{2, 1}, findings: missing}) {
		t.Error("an edit with a reference to nothing is not held back")
	}
	if a.early(&compiled{changes: []int{2, 2}, findings: missing}) {
		t.Error("another Secret is held back")
	}
}
