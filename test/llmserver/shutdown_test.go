package llmserver_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
)

func TestAServerThatIsShutDownCompletesItsAnswersAndTakesNoMore(t *testing.T) {
	s := start(t, func(o *llmserver.Options) {
		o.Hosts, o.Name, o.ChunkDelay = []string{"*"}, "one of three", 20*time.Millisecond
	})
	client := s.Client()
	begin := func(body string) (*http.Response, error) {
		r, err := newPost("whatever.example.com", "/v1/chat/completions", body)
		if err != nil {
			return nil, err
		}
		return client.Do(r.WithContext(limited(t)))
	}
	idle, err := begin(`{"model":"m","messages":[{"role":"user","content":"hi"}]}`) // its connection waits for another
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, idle.Body)
	idle.Body.Close()
	if got := idle.Header.Get(llmserver.NameHeader); idle.StatusCode != 200 || got != "one of three" {
		t.Fatalf("status %d of %q", idle.StatusCode, got)
	}
	stream, err := begin(`{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	ended := make(chan struct{})
	go func() {
		s.Shutdown(limited(t))
		close(ended)
	}()
	all, err := io.ReadAll(stream.Body)
	if err != nil || !strings.HasSuffix(string(all), "data: [DONE]\n\n") {
		t.Errorf("the stream ended with %v: %q", err, all)
	}
	<-ended
	if a, err := begin(`{}`); err == nil {
		a.Body.Close()
		t.Error("it still answers")
	}
}

func TestAShutdownDoesNotWaitForEver(t *testing.T) {
	s := start(t)
	go func() {
		if a, err := post(t, s, "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`, llmserver.FaultHeader+": delay=1h"); err == nil {
			a.Body.Close()
		}
	}()
	if _, err := s.Await(limited(t), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Shutdown(ctx)
}
