package watch

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/snapshot"
)

func TestCredentialsDoNotFollowARedirect(t *testing.T) {
	taken := make(chan string, 100)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { taken <- r.Header.Get("Authorization") }))
	defer other.Close()
	p := newPretender(t)
	p.answer = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	}
	w := watch(t, p.api())
	w.awaitLog("cannot be reached")
	w.stop()
	if len(taken) > 0 {
		t.Errorf("another server was asked, with %q", <-taken)
	}
}

func TestWhatWasNotAskedForIsIgnored(t *testing.T) {
	p := newPretender(t)
	key := `"data":{"s_k":"c2stZm9yZWlnbg=="}`
	p.first["llmproviders"] = []string{
		toldOf("ADDED", "LLMProvider", "team", "a", "1", specOf("a.example")),
		toldOf("ADDED", "LLMProvider", "other", "b", "2", specOf("b.example")),
		toldOf("ADDED", "Pod", "team", "c", "3", specOf("c.example")),
		`{"type":"ADDED","object":{}}`,
	}
	p.first["secrets"] = []string{toldOf("ADDED", "Secret", "team", "another", "1", key), toldOf("ADDED", "Secret", "other", v1beta1.KeysSecret, "1", key)}
	a := p.api()
	w := watch(t, a)
	w.hasNot(w.awaitReady(), "b.example", "c.example")
	p.events["llmproviders"] <- toldOf("MODIFIED", "LLMProvider", "other", "a", "4", specOf("b.example"))
	p.events["llmproviders"] <- toldOf("DELETED", "LLMProvider", "other", "a", "5", specOf("a.example"))
	p.events["llmproviders"] <- toldOf("ADDED", "LLMProvider", "team", "d", "6", specOf("d.example"))
	s := w.awaitText("host d.example")
	w.has(s, "host a.example")
	w.hasNot(s, "b.example")
	if secrets := a.feeds[2].arrivals(); len(secrets) > 0 {
		t.Errorf("keys of others were taken: %+v", secrets)
	}
}

func TestAListOfSomethingElseIsNoneAndMayNotTakeForEver(t *testing.T) {
	p := newPretender(t)
	p.answer = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		if limit := r.URL.Query().Get("timeout"); r.URL.Query().Get("watch") == "" && limit != "1m0s" {
			t.Errorf("a list may take %s", limit)
		}
		if r.URL.Query().Get("watch") != "" {
			p.refusal.Store(http.StatusUnprocessableEntity)
			return false
		}
		fmt.Fprint(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[null]}`)
		return true
	}
	w := watch(t, p.api())
	w.awaitLog("the answer is no ") // of LLMs or of Secrets: whichever is first to fail
	if w.store.Load().Ready {
		t.Error("nothing was told, and it is ready")
	}
}

func TestNoPauseThatTheAPIServerAsksForIsLong(t *testing.T) {
	f := &feed{kindOfFeed: &providerFeed, changed: func() {}}
	f.fail(t.Context(), apierrors.NewTooManyRequests("", 86400))
	if f.pause != maxAgain {
		t.Errorf("it is asked again after %s", f.pause)
	}
	f.fail(t.Context(), apierrors.NewTooManyRequests("", 2))
	if f.pause != 2*time.Second {
		t.Errorf("it is asked again after %s", f.pause)
	}
}

func TestAQuestionThatGetsNoAnswerIsAskedAgain(t *testing.T) {
	p := newPretender(t)
	p.first["llmproviders"] = []string{toldOf("ADDED", "LLMProvider", "team", "a", "1", specOf("a.example"))}
	var asked atomic.Int32
	p.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if asked.Add(1) > 3 {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	a := p.api()
	a.Config.Timeout = time.Second
	w := watch(t, a)
	w.has(w.awaitReady(), "host a.example")
}

func TestAnAPIServerWithoutATimeLimitIsGivenOne(t *testing.T) {
	a := newPretender(t).api()
	a.Store = snapshot.NewStore()
	if err := a.Load(); err != nil {
		t.Fatal(err)
	}
	if got := a.feeds[0].client.(*rest.RESTClient).Client.Timeout; got != longTime {
		t.Errorf("it may take %s", got)
	}
}

// endless is an answer that does not end.
type endless struct{}

func (endless) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusInternalServerError, Body: io.NopCloser(zeros{}), Request: r}, nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestAnAnswerWithoutEndIsCut(t *testing.T) {
	for _, query := range []string{"", "?watch=true"} {
		r := httptest.NewRequest(http.MethodGet, "/"+query, nil)
		res, err := transport{endless{}}.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, io.LimitReader(res.Body, 2*maxSize))
		if tooLong := new(http.MaxBytesError); n > maxSize || !errors.As(err, &tooLong) {
			t.Errorf("%q: %d bytes, %v", query, n, err)
		}
	}
}

func TestAnEqualVersionIsNoProofOfEqualContent(t *testing.T) {
	// As after etcd was restored from a backup.
	first := arrive(&providerFeed, wireProvider(t, "7", "", keyedSpec), nil)
	name := types.NamespacedName{Namespace: "team", Name: "a"}
	f := &feed{kindOfFeed: &providerFeed, namespace: "team", changed: func() {}, objects: map[types.NamespacedName]*arrival{name: first}}
	if err := f.Update(wireProvider(t, "7", "", `{"host":"b.example"}`)); err != nil {
		t.Fatal(err)
	}
	if got := f.objects[name].docs[0].provider.Spec.Host; got != "b.example" {
		t.Errorf("the host is still %s", got)
	}
}

func TestWhatIsOnDiskDoesNotOutliveTheRightToReadIt(t *testing.T) {
	p := newPretender(t)
	a := p.api()
	a.LastGood = filepath.Join(t.TempDir(), "own", "last.json")
	if err := prepare(a.LastGood); err != nil {
		t.Fatal(err)
	}
	kept := running(t)
	kept.candidates = kept.candidates[:1] // without the Secret
	if err := newSaved("team", kept, nil).write(a.LastGood); err != nil {
		t.Fatal(err)
	}
	p.refusal.Store(http.StatusServiceUnavailable)
	w := watch(t, a)
	w.has(w.awaitReady(), "host a.example", "has no s_k for key k of Secret s: add it")
	p.refusal.Store(http.StatusForbidden)
	s := w.await("the end of it", func(s *snapshot.Snapshot) bool { return !s.Ready })
	w.hasNot(s, "a.example")
	w.has(s, "until then, all calls are refused")
	if !s.Table.Incomplete() {
		t.Error("calls are passed on")
	}
	p.refusal.Store(0)
	s = w.await("what the API server says", func(s *snapshot.Snapshot) bool { return s.Ready })
	w.has(s, "host a.example\n  refused HostRetired")
	w.hasNot(s, "https://a.example")
}
