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

func TestCallsDoNotFailUntilAnotherKeyIsHandedOver(t *testing.T) {
	p := newPretender(t)
	spec := func(key string) string {
		return `"spec":{"host":"a.example","configs":{"defaultConfig":{"openAIConfig":{` + key + `}}}}`
	}
	keys := func(entries string) string { return `"data":{` + entries + `}` }
	p.first["llmproviders"] = []string{toldOf("ADDED", "LLMProvider", "team", "a", "1", spec(`"apiKey":"sk-in-the-object"`))}
	p.first["secrets"] = []string{toldOf("ADDED", "Secret", "team", "remora-sidecar-keys", "1", keys(""))}
	w := watch(t, p.api())
	w.has(w.awaitReady(), "key=inline")
	w.store.OnChange(func(s *snapshot.Snapshot) {
		if strings.Contains(show(s), "(SecretNotFound)") {
			t.Errorf("a table without the key:\n%s", show(s))
		}
	})
	all := ""
	for i, name := range []string{"one", "two"} {
		p.events["llmproviders"] <- toldOf("MODIFIED", "LLMProvider", "team", "a", fmt.Sprint(10+i), spec(`"apiKeyRef":{"name":"`+name+`"}`))
		<-time.After(2 * holdTime) // longer than what waits for another kind
		all += `"` + name + `_apiKey":"c2stZmFrZQ==",`
		p.events["secrets"] <- toldOf("MODIFIED", "Secret", "team", "remora-sidecar-keys", fmt.Sprint(10+i), keys(strings.TrimSuffix(all, ",")))
		w.awaitText("key=secret:" + name + "/apiKey")
	}
}

func TestAKeyThatIsGoneIsNeverHeldBack(t *testing.T) {
	providers, keys := &feed{kindOfFeed: &providerFeed}, &feed{kindOfFeed: &keysFeed}
	a := &API{wake: make(chan struct{}, 1), feeds: []*feed{providers, keys}}
	used, other := refOf(v1beta1.KindLLMProvider, "team", "used"), refOf(v1beta1.KindLLMProvider, "team", "new")
	a.current = &compiled{changes: map[*feed]int{providers: 1, keys: 1}, all: &set{candidates: []*candidate{{ref: used}}}}
	missing := []finding{{Problem: routing.Problem{Object: used, Severity: routing.Unresolved, Code: routing.SecretNotFound}}}
	if !a.early(&compiled{changes: map[*feed]int{providers: 2, keys: 1}, findings: missing}) {
		t.Error("an edit with a reference to nothing is not held back")
	}
	missingAnew := []finding{{Problem: routing.Problem{Object: other, Severity: routing.Unresolved, Code: routing.SecretNotFound}}}
	if a.patience(&compiled{changes: map[*feed]int{providers: 2, keys: 1}, findings: missingAnew}) >= a.patience(&compiled{changes: map[*feed]int{providers: 2, keys: 1}, findings: missing}) {
		t.Error("a new host is not owned until its key is there")
	}
	if a.early(&compiled{changes: map[*feed]int{providers: 2, keys: 2}, findings: missing}) {
		t.Error("another Secret is held back")
	}
}
