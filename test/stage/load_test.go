package stage

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
)

func TestALoadCountsAnswersByPodAndSeesEachFailure(t *testing.T) {
	s, err := llmserver.Start(llmserver.Options{Hosts: []string{"*"}, Name: "this one", PlainAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := Caller{Host: APIHost, Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.PlainAddr())
	}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	load := c.Begin(ctx, 3, 0)
	if err := load.Until(ctx, func(t Tally) bool { return t.Shares["this one"] >= 10 }); err != nil {
		t.Fatal(err)
	}
	s.Script("", llmserver.Fault{Status: 503}, llmserver.Fault{Chunked: true, CutAfter: new(int)})
	if err := load.Until(ctx, func(t Tally) bool { return len(t.Failed) == 2 }); err != nil {
		t.Fatal(err)
	}
	load.Mark()
	if err := load.Until(ctx, func(t Tally) bool { return t.Answered() >= 5 }); err != nil {
		t.Fatal(err)
	}
	if end := load.Stop(); len(end.Failed) != 2 || end.Calls != s.Received() {
		t.Errorf("%v; the server received %d", end, s.Received())
	}
	c.Change = func(n int, r *http.Request) {
		if n == 3 {
			r.Header.Set(llmserver.FaultHeader, "status=500")
		}
	}
	answers := c.Calls(ctx, 6, 2)
	if shares, failed := Shares(answers); shares["this one"] != 5 || len(failed) != 1 || answers[3].Status != 500 {
		t.Errorf("shares %v, failed %v", shares, failed)
	}
}
