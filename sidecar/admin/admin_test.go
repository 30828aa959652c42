package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

const provider = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: qwen}
spec:
  host: qwen.example
  configs: {defaultConfig: {openAIConfig: {model: turbo, apiKey: sk-very-secret}}}
`

// serve starts both servers and gives a function that asks one of them.
func serve(t *testing.T) (s *Server, store *snapshot.Store, ask func(where, method, path string) (int, http.Header, string)) {
	t.Helper()
	store = snapshot.NewStore()
	s = New(store, metrics.New())
	addresses := map[string]string{}
	done := make(chan error, 2)
	for where, f := range map[string]func(net.Listener) error{"health": s.ServeHealth, "admin": s.ServeAdmin} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses[where] = ln.Addr().String()
		go func() { done <- f(ln) }()
	}
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return s, store, func(where, method, path string) (int, http.Header, string) {
		t.Helper()
		conn, err := net.Dial("tcp", addresses[where])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		req, err := http.NewRequest(method, "http://sidecar"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.Header, string(body)
	}
}

func publish(t *testing.T, store *snapshot.Store) *routing.Table {
	t.Helper()
	var in routing.Objects
	if _, err := in.Decode([]byte(provider), "default"); err != nil {
		t.Fatal(err)
	}
	table, problems := routing.Compile(in, nil)
	store.Publish(&snapshot.Snapshot{Table: table, Problems: problems, Ready: true})
	return table
}

func TestReadinessFollowsTheConfigurationAndTheShutdown(t *testing.T) {
	s, store, ask := serve(t)
	f := func(path string, wantStatus int, wantText string) {
		t.Helper()
		status, _, body := ask("health", "GET", path)
		if status != wantStatus || !strings.Contains(body, wantText) {
			t.Errorf("%s: %d %q, want %d %q", path, status, body, wantStatus, wantText)
		}
	}
	f("/livez", 200, "ok")
	f("/readyz", 503, "no configuration has been read")
	table := publish(t, store)
	f("/readyz", 200, table.Generation())
	s.Drain()
	f("/readyz", 503, "shutting down")
	f("/livez", 200, "ok")
}

func TestAnOutageIsToldAndTakesNoReadinessAway(t *testing.T) {
	_, store, ask := serve(t)
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	store.Publish(&snapshot.Snapshot{Table: store.Load().Table, Outage: &snapshot.Outage{Since: since}})
	const away = "the API server has not been reachable since 2026-01-02T03:04:05Z"
	if status, _, body := ask("health", "GET", "/readyz"); status != 503 || !strings.Contains(body, "no configuration has been read yet; "+away) {
		t.Errorf("before the first configuration: %d %q", status, body)
	}
	table := publish(t, store)
	store.Publish(&snapshot.Snapshot{Table: table, Ready: true, Outage: &snapshot.Outage{Since: since, Saved: since.Add(-time.Hour)}})
	const saved = "the configuration is the one that was saved at 2026-01-02T02:04:05Z"
	if status, _, body := ask("health", "GET", "/readyz"); status != 200 || body != "ok generation="+table.Generation()+"; "+away+"; "+saved+"\n" {
		t.Errorf("readyz: %d %q", status, body)
	}
	if _, _, body := ask("admin", "GET", "/config"); !strings.Contains(body, "\n# "+away+"\n# "+saved+"\n") {
		t.Errorf("config:\n%s", body)
	}
}

func TestTheConfigurationIsShownWithItsProblemsAndWithoutKeys(t *testing.T) {
	_, store, ask := serve(t)
	if _, _, body := ask("admin", "GET", "/config"); !strings.Contains(body, "# no configuration has been read yet") {
		t.Errorf("before the first configuration: %q", body)
	}
	table := publish(t, store)
	status, _, body := ask("admin", "GET", "/config")
	for _, want := range []string{"# generation " + table.Generation(), "# warning  LLMProvider default/qwen  ", "(InlineKey)", "host qwen.example", "https://qwen.example:443"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing in\n%s", want, body)
		}
	}
	if status != 200 || strings.Contains(body, "sk-very-secret") {
		t.Errorf("status %d, body\n%s", status, body)
	}
}

func TestTheHealthAddressShowsNoConfiguration(t *testing.T) {
	_, store, ask := serve(t)
	publish(t, store)
	for _, path := range []string{"/config", "/", "/debug/pprof/"} {
		if status, _, body := ask("health", "GET", path); status != 404 || strings.Contains(body, "qwen") {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
}

func TestOnlyGetAndHeadAreAnswered(t *testing.T) {
	_, store, ask := serve(t)
	publish(t, store)
	for _, path := range []string{"/", "/config", "/livez", "/readyz"} {
		if status, header, _ := ask("admin", "POST", path); status != 405 || header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: %d %v", path, status, header)
		}
		status, header, body := ask("admin", "HEAD", path)
		if status != 200 || body != "" || header.Get("Server") != "" {
			t.Errorf("HEAD %s: %d %q %v", path, status, body, header)
		}
	}
	if status, _, body := ask("admin", "GET", "/"); status != 200 || !strings.Contains(body, "/config") {
		t.Errorf("/: %d %q", status, body)
	}
}

func TestTheFirstConfigurationAnswersWhoWaitsForIt(t *testing.T) {
	_, store, ask := serve(t)
	asked := make(chan struct{})
	type answer struct {
		status int
		body   string
	}
	got := make(chan answer, 1)
	go func() {
		close(asked)
		status, _, body := ask("health", http.MethodGet, "/startupz")
		got <- answer{status, body}
	}()
	<-asked
	if status, _, _ := ask("health", http.MethodGet, "/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %d without a configuration", status)
	}
	table, _ := routing.Compile(routing.Objects{}, nil)
	store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
	if a := <-got; a.status != http.StatusOK || !strings.HasPrefix(a.body, "ok") {
		t.Errorf("/startupz answers %d %s", a.status, a.body)
	}
}

func TestARequestIsExplainedAndBadQuestionsAreRefusedByTheParameter(t *testing.T) {
	_, store, ask := serve(t)
	publish(t, store)
	status, header, body := ask("admin", "GET", "/explain?host=qwen.example&path=/v1/embeddings&model=m&header=user-type:subscriber&header=user-type:%20guest")
	var e routing.Explanation
	if err := json.Unmarshal([]byte(body), &e); err != nil || status != 200 || header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %v\n%s", status, header, err, body)
	}
	if e.Rule == nil || e.Rule.Owner != "LLMProvider default/qwen" || e.Operation != "embeddings" || len(e.Backends) != 1 || e.Backends[0].Key != "inline" ||
		e.Backends[0].Model != "m" || e.Backends[0].URL != "https://qwen.example:443/v1/embeddings" || strings.Contains(body, "sk-very-secret") {
		t.Errorf("%s", body)
	}
	f := func(query, want string) {
		t.Helper()
		if status, _, body := ask("admin", "GET", "/explain"+query); status != 400 || !strings.HasPrefix(body, want+": ") || strings.Count(body, "\n") != 1 {
			t.Errorf("%s: %d %q, want %s", query, status, body, want)
		}
	}
	f("", "host")
	f("?host=", "host")
	f("?host=http://qwen.example/", "host")
	f("?host=a&host=b", "host")
	f("?host=a%0ab", "host")
	f("?host=a&method=P%20T", "method")
	f("?host=a&path=v1", "path")
	f("?host=a&header=user-type", "header")
	f("?host=a&header=:x", "header")
	f("?host=a&header=a%20b:x", "header")
	f("?host=a&header=a:x%0d%0ay", "header")
	f("?host=a&model=x%00", "model")
	f("?host=a&port=0", "port")
	f("?host=a&port=70000", "port")
	f("?host=a&labels=app", "labels")
	f("?host=a&a%0ab=c", `"a\nb"`)
	for _, path := range []string{"/explain?host=a"} {
		if status, _, _ := ask("health", "GET", path); status != 404 {
			t.Errorf("the health address answers %s with %d", path, status)
		}
	}
}

func TestTheConfigurationIsThereForPrograms(t *testing.T) {
	_, store, ask := serve(t)
	table := publish(t, store)
	status, _, body := ask("admin", "GET", "/config?format=json")
	var c configuration
	if err := json.Unmarshal([]byte(body), &c); err != nil || status != 200 {
		t.Fatalf("%d %v\n%s", status, err, body)
	}
	if !c.Ready || c.Generation != table.Generation() || len(c.Problems) == 0 || c.Problems[0].Code != routing.InlineKey || len(c.Hosts) != 1 ||
		c.Hosts[0].Names[0] != "qwen.example" || c.Hosts[0].Rules[0].Backends[0].Model != "turbo" || strings.Contains(body, "sk-very-secret") {
		t.Errorf("%s", body)
	}
	if status, _, body := ask("admin", "GET", "/config?format=xml"); status != 400 || !strings.HasPrefix(body, "format: ") {
		t.Errorf("%d %q", status, body)
	}
}
