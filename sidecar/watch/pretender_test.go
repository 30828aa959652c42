package watch

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"

	"remora.dev/remora/apis/v1beta1"
)

// pretender is an API server that says what a test has it say, about the namespace team.
type pretender struct {
	*httptest.Server
	refusal atomic.Int32           // a status to answer everything with, or 0
	first   map[string][]string    // the events that each watch begins with, by resource
	events  map[string]chan string // those that follow
	answer  func(http.ResponseWriter, *http.Request) bool
}

const endOfList = `{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}`

func newPretender(t *testing.T) *pretender {
	t.Helper()
	p := &pretender{first: map[string][]string{}, events: map[string]chan string{}}
	for _, resource := range []string{"llmproviders", "llmroutes", "secrets", "services", "endpointslices", "virtualservices", "destinationrules", "inferencepools"} {
		p.events[resource] = make(chan string, 100)
	}
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

func (p *pretender) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.answer != nil && p.answer(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if code := int(p.refusal.Load()); code != 0 {
		reason := map[int]string{403: "Forbidden", 422: "Invalid", 503: "ServiceUnavailable"}[code]
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q}`, code, reason)
		return
	}
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	for _, e := range append(p.first[resource], endOfList) {
		fmt.Fprintln(w, e)
	}
	for {
		w.(http.Flusher).Flush()
		select {
		case e := <-p.events[resource]:
			fmt.Fprintln(w, e)
		case <-r.Context().Done():
			return
		}
	}
}

func (p *pretender) api() *API {
	return &API{Config: &rest.Config{Host: p.URL, BearerToken: "the-token"}, Namespace: "team", KeysSecret: v1beta1.KeysSecret}
}

// toldOf gives an event about an object.
func toldOf(event, kind, namespace, name, version, content string) string {
	return fmt.Sprintf(`{"type":%q,"object":{"kind":%q,"metadata":{"name":%q,"namespace":%q,"uid":%q,"resourceVersion":%q},%s}}`,
		event, kind, name, namespace, name, version, content)
}

func specOf(host string) string { return `"spec":{"host":"` + host + `"}` }

func leadingTo(host string) string {
	return `"spec":{"host":"r.example","rules":[{"name":"all","backendRefs":[{"providerHost":"` + host + `"}]}]}`
}
