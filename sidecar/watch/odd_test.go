package watch

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

func TestAnObjectThatAnOlderVersionAdmittedStopsNothingElse(t *testing.T) {
	n := newNamespace(t)
	// The older version knew other fields, and other types of these.
	crd := "llmroutes.istio.alibabacloud.com"
	schema := regexp.MustCompile(`"resourceVersion": "\d+",`).ReplaceAllString(n.kubectl("get", "crd", crd, "-o", "json"), "")
	open := `{"spec":{"versions":[{"name":"v1beta1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`
	n.kubectl("patch", "crd", crd, "--type=merge", "-p", open)
	t.Cleanup(func() {
		n.kubectl("delete", "llmroutes", "--all", "-n", n.name)
		if out, err := n.cp.KubectlWith(context.Background(), schema, "replace", "-f", "-"); err != nil {
			t.Error(out, err)
		}
	})
	old := "apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: old}\nspec: {host: old.example, rules: none}\n"
	limit := time.Now().Add(20 * time.Second)
	for { // the open schema takes a moment
		out, err := n.cp.KubectlWith(context.Background(), old, "create", "--validate=false", "-n", n.name, "-f", "-")
		if err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatal(out)
		}
	}
	n.apply(provider("a", "a.example", "one") + "---\n" + provider("p", "old.example", "two"))
	w := watch(t, n.api())
	s := w.awaitReady()
	w.has(s, "model=one", "host old.example\n  refused InvalidConfiguration", "LLMRoute "+n.name+"/old")
	n.apply(provider("a", "a.example", "three"))
	w.awaitText("model=three")
}

// front is an API server that answers some requests differently from the one behind it.
func front(t *testing.T, config *rest.Config, answer func(http.ResponseWriter, *http.Request) bool) {
	t.Helper()
	to, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answer(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	config.Host = server.URL
	config.TLSClientConfig = rest.TLSClientConfig{}
}

func TestAnAPIServerThatStreamsNoListsIsListed(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one"))
	a := n.api()
	var lists atomic.Int32
	front(t, a.Config, func(w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		if q.Get("sendInitialEvents") != "" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":422,"reason":"Invalid","message":"sendInitialEvents: Forbidden"}`)
			return true
		}
		if q.Get("watch") == "" {
			lists.Add(1)
			if got := q.Get("resourceVersion"); got != "0" {
				t.Errorf("a list asks for version %q", got)
			}
		}
		return false
	})
	w := watch(t, a)
	w.has(w.awaitReady(), "model=one")
	n.apply(provider("a", "a.example", "two"))
	w.awaitText("model=two")
	// Some seconds after its CRDs have come, Kubernetes may be away for them once more.
	if away := strings.Count(w.logged(), "storage is (re)initializing"); away == 0 && lists.Load() != 3 {
		t.Errorf("%d lists", lists.Load())
	} else if strings.Count(w.logged(), "cannot be reached") != away {
		t.Errorf("that is no outage:\n%s", w.logged())
	}
}

func TestAnAPIServerThatIsBusyIsNotAskedForMore(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one"))
	a := n.api()
	var busy atomic.Bool
	var asked, lists atomic.Int32
	busy.Store(true)
	front(t, a.Config, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" {
			lists.Add(1)
		}
		if !busy.Load() {
			return false
		}
		asked.Add(1)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
		return true
	})
	w := watch(t, a)
	w.awaitLog("cannot be reached")
	<-time.After(1500 * time.Millisecond)
	if n := asked.Load(); n > 6 { // three feeds, told to come back after a second
		t.Errorf("it was asked %d times", n)
	}
	busy.Store(false)
	w.awaitReady()
	if lists.Load() != 0 {
		t.Errorf("it was asked for %d lists, which cost it more", lists.Load())
	}
}
