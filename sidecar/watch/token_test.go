package watch

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"remora.dev/remora/sidecar/snapshot"
)

// A token that has expired, or was revoked, ends nothing. The kubelet brings the next one some time after it was written.
func TestWithoutAGoodTokenTheTableRunsOnUntilTheFileHasAnother(t *testing.T) {
	p := newPretender(t)
	p.first["llmproviders"] = []string{toldOf("ADDED", "LLMProvider", "team", "a", "1", specOf("a.example"))}
	var good atomic.Value
	good.Store("Bearer first")
	p.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == good.Load() {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":401,"reason":"Unauthorized"}`)
		return true
	}
	f := newFollower(t, "token", "first\n")
	a := p.api()
	a.Config.BearerToken, a.Config.BearerTokenFile = "first", f.path("token") // as rest.InClusterConfig gives both
	w := watch(t, a)
	w.awaitReady()

	good.Store("Bearer second")
	p.CloseClientConnections() // watches end by themselves after some minutes
	s := w.awaitText("the API server does not accept the credentials")
	w.has(s, "host a.example", "what was read before keeps running")
	if !s.Ready || s.Outage != nil {
		t.Errorf("ready %v, outage %+v", s.Ready, s.Outage)
	}
	w.await("all to be refused", func(s *snapshot.Snapshot) bool { return len(s.Problems) == 3 })

	f.write("token", "second\n")
	w.awaitNo("ConfigurationUnread")
	p.events["llmproviders"] <- toldOf("ADDED", "LLMProvider", "team", "b", "10", specOf("b.example"))
	w.has(w.awaitText("host b.example"), "host a.example")
	if n := strings.Count(w.logged(), "refuses to tell"); n != 1 {
		t.Errorf("it was said %d times:\n%s", n, w.logged())
	}
	if strings.Contains(w.logged(), "Bearer") || strings.Contains(w.logged(), "second") {
		t.Errorf("a token is in the log:\n%s", w.logged())
	}
}
