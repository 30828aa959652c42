package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// laneServer answers when a request has arrived as a whole, behind what the real server has in front of it.
func laneServer(t *testing.T, patience time.Duration) (*httptest.Server, *lanes) {
	t.Helper()
	l := newLanes(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	l.patience = patience
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests"}, []string{"code"})
	s := httptest.NewServer(promhttp.InstrumentHandlerCounter(counter, l))
	t.Cleanup(s.Close)
	return s, l
}

// begin sends the head of a request, and not its body.
func begin(t *testing.T, s *httptest.Server, length string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: webhook\r\nContent-Length: "+length+"\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	return c
}

func post(ctx context.Context, t *testing.T, s *httptest.Server, size int) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, strings.NewReader(strings.Repeat("x", size)))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}

func TestLargeRequestsDoNotKeepSmallOnesWaiting(t *testing.T) {
	s, l := laneServer(t, time.Minute)
	first := begin(t, s, "1000000")
	begin(t, s, "1000000")
	for len(l.large) < largeAtOnce {
		if t.Context().Err() != nil {
			t.Fatal("they are not under way")
		}
	}
	if code, err := post(t.Context(), t, s, 1000); code != http.StatusOK {
		t.Errorf("a small one: %d %v", code, err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if code, err := post(impatient, t, s, 1000000); err == nil {
		t.Errorf("a third large one was answered with %d while two are under way", code)
	}
	_ = first.Close()
	if code, err := post(t.Context(), t, s, 1000000); code != http.StatusOK {
		t.Errorf("when one of them is gone: %d %v", code, err)
	}
}

// An API server asks about hundreds of pods of one user at once, and memory is not for as many of 128 KiB.
func TestOnlySomeMediumRequestsAreUnderWayAtOnce(t *testing.T) {
	s, l := laneServer(t, time.Minute)
	for range mediumAtOnce {
		begin(t, s, "100000")
	}
	for len(l.medium) < mediumAtOnce {
		if t.Context().Err() != nil {
			t.Fatal("they are not under way")
		}
	}
	for what, size := range map[string]int{"a small one": 1000, "a large one": 1000000} {
		if code, err := post(t.Context(), t, s, size); code != http.StatusOK {
			t.Errorf("%s: %d %v", what, code, err)
		}
	}
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if code, err := post(impatient, t, s, 100000); err == nil {
		t.Errorf("one more was answered with %d", code)
	}
}

func TestARequestThatNeverEndsIsEnded(t *testing.T) {
	s, _ := laneServer(t, 100*time.Millisecond)
	for _, length := range []string{"10", "100000", "1000000"} {
		c := begin(t, s, length)
		if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
			t.Errorf("of %s bytes: %v %q", length, err, answer)
		}
	}
}
