package watch

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// asked remembers which collections an API server was asked for, and which are asked for now.
type asked struct {
	ended chan struct{} // told of each that is asked for no more

	mu   sync.Mutex
	now  map[string]int
	ever []string
}

// count has a pretender count its watches.
func (p *pretender) count() *asked {
	a := &asked{now: map[string]int{}, ended: make(chan struct{}, 100)}
	p.answer = func(_ http.ResponseWriter, r *http.Request) bool {
		resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		a.mu.Lock()
		a.now[resource]++
		a.ever = append(a.ever, resource+" "+r.URL.Query().Get("labelSelector"))
		a.mu.Unlock()
		go func() {
			<-r.Context().Done()
			a.mu.Lock()
			a.now[resource]--
			a.mu.Unlock()
			a.ended <- struct{}{}
		}()
		return false
	}
	return a
}

func (a *asked) collections() (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for resource, n := range a.now {
		if n > 0 {
			all = append(all, resource)
		}
	}
	slices.Sort(all)
	return all
}

func backendOf(service string) string {
	return `"spec":{"host":"r.example","rules":[{"name":"all","backendRefs":[{"backendRef":{"name":"` + service + `","port":80}}]}]}`
}

const slicesOfLLM = `"metadata":{"name":"llm-1","namespace":"team","labels":{"kubernetes.io/service-name":"llm"}},"ports":[{"name":"http","port":8080}],` +
	`"endpoints":[{"addresses":["10.0.0.1"]}]`

func TestASidecarFollowsOnlyWhatItsConfigurationSpeaksOf(t *testing.T) {
	p := newPretender(t)
	watched := p.count()
	p.first["llmproviders"] = []string{toldOf("ADDED", "LLMProvider", "team", "a", "1", specOf("a.example"))}
	p.first["services"] = []string{toldOf("ADDED", "Service", "team", "llm", "1", `"spec":{"ports":[{"name":"http","port":80}]}`)}
	p.first["endpointslices"] = []string{`{"type":"ADDED","object":{"kind":"EndpointSlice",` + slicesOfLLM + `}}`}
	a := p.api()
	a.Members = snapshot.NewMembers()
	w := watch(t, a)
	w.awaitReady()
	usual := []string{"llmproviders", "llmroutes", "secrets"}
	if got := watched.collections(); !slices.Equal(got, usual) {
		t.Errorf("without a Service, it follows %v", got)
	}
	if a.roll != nil || len(a.feeds) != 3 {
		t.Error("what is not needed takes memory")
	}

	p.events["llmroutes"] <- toldOf("ADDED", "LLMRoute", "team", "r", "2", backendOf("llm"))
	s := w.awaitText("host r.example")
	id := routing.ServersID{Kind: routing.KindService, Namespace: "team", Name: "llm", Port: "http"}
	if servers, known := a.Members.Of(id); !known || addressesOf(servers) != "10.0.0.1:8080" {
		t.Errorf("calls go there before it is known where to: %v %v\n%s", servers, known, show(s))
	}
	want := []string{"destinationrules", "endpointslices", "llmproviders", "llmroutes", "secrets", "services", "virtualservices"}
	if got := watched.collections(); !slices.Equal(got, want) {
		t.Errorf("it follows %v", got)
	}
	if !slices.Contains(watched.ever, "endpointslices kubernetes.io/service-name in (llm)") {
		t.Errorf("it has other Services' endpoints told: %v", watched.ever)
	}

	p.events["llmroutes"] <- toldOf("DELETED", "LLMRoute", "team", "r", "3", backendOf("llm"))
	w.awaitNo("r.example")
	limit := time.After(30 * time.Second)
	for !slices.Equal(watched.collections(), usual) {
		select {
		case <-watched.ended:
		case <-limit:
			t.Fatalf("it still follows %v", watched.collections())
		}
	}
	if _, known := a.Members.Of(id); known {
		t.Error("servers are remembered that nothing calls")
	}
}

func TestAGatewayKeepsNoKeyOfOtherNamespacesAndMissesNoSecretThere(t *testing.T) {
	p := newPretender(t)
	p.events["gateways"] = make(chan string)
	with := func(config string) string {
		return `"spec":{"host":"a.example","configs":{"defaultConfig":{"openAIConfig":{` + config + `}},"routeSpecificConfigs":{"vip":{"openAIConfig":{"apiKey":"sk-of-vip"}}}}}`
	}
	p.first["llmproviders"] = []string{
		toldOf("ADDED", "LLMProvider", "other", "inline", "1", with(`"apiKey":"sk-of-other"`)),
		toldOf("ADDED", "LLMProvider", "third", "named", "1", strings.ReplaceAll(with(`"apiKeyRef":{"name":"s","key":"k"}`), "a.example", "b.example")),
		toldOf("ADDED", "LLMProvider", "team", "own", "1", strings.ReplaceAll(with(`"apiKeyRef":{"name":"s","key":"k"}`), "a.example", "c.example")),
	}
	a := p.api()
	a.Gateway, a.Members, a.LastGood = true, snapshot.NewMembers(), filepath.Join(t.TempDir(), "own", "last.json")
	w := watch(t, a)
	s := w.awaitReady()
	w.stop()
	var missing []string
	for _, q := range s.Problems {
		if q.Code == routing.SecretNotFound {
			missing = append(missing, q.Object.String())
		}
	}
	if !slices.Equal(missing, []string{"LLMProvider team/own"}) {
		t.Errorf("Secrets are missing for %v", missing)
	}
	text, err := os.ReadFile(a.LastGood)
	w.must(err)
	if n := strings.Count(string(text), "sk-of-"); n != 1 || !strings.Contains(string(text), withheld) {
		t.Errorf("%d keys are saved, and one is the gateway's:\n%s", n, text)
	}
}

func TestARouteToAPoolWaitsForItsServersAndNotForEver(t *testing.T) {
	p := newPretender(t)
	p.first["inferencepools"] = []string{toldOf("ADDED", "InferencePool", "team", "pool", "1", `"spec":{"selector":{"matchLabels":{"app":"m"}},"targetPorts":[{"number":8000}]}`)}
	toPool := `"spec":{"host":"p.example","rules":[{"name":"all","backendRefs":[{"backendRef":{"group":"inference.networking.k8s.io","kind":"InferencePool","name":"pool"}}]}]}`
	p.first["llmproviders"] = []string{toldOf("ADDED", "LLMProvider", "team", "a", "1", specOf("a.example"))}
	a := p.api()
	a.Members = snapshot.NewMembers()
	w := watch(t, a)
	w.awaitReady()
	p.events["llmroutes"] <- toldOf("ADDED", "LLMRoute", "team", "r", "2", toPool)
	s := w.awaitText("host p.example") // nobody writes who its servers are
	var ids []routing.ServersID
	for id := range s.Table.ServersIDs() {
		ids = append(ids, id)
	}
	if len(ids) != 1 {
		t.Fatalf("servers %v in\n%s", ids, show(s))
	}
	awaitServers(t, a.Members, ids[0], "")
	p.events["endpointslices"] <- `{"type":"ADDED","object":{"kind":"EndpointSlice","metadata":{"name":"pool-1","namespace":"team","labels":{"remora.dev/servers":"pool"},` +
		`"annotations":{"remora.dev/servers-of":"pool"}},"ports":[{"name":"8000","port":8000}],"endpoints":[{"addresses":["10.0.0.9"]}]}}`
	awaitServers(t, a.Members, ids[0], "10.0.0.9:8000")
}
