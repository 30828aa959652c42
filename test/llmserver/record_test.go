package llmserver_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
)

func TestANameThatIsNotServedIsRefused(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.PlainAddr = "127.0.0.1:0" })
	_, err := s.Client().Get("https://api.openai.com/v1/models")
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("TLS with another name: %v, want the alert", err)
	}
	r, err := http.NewRequestWithContext(limited(t), http.MethodGet, "http://"+s.PlainAddr()+"/v1/models", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "api.openai.com"
	a, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("a Host header with another name: %d, want 421", a.StatusCode)
	}
}

func TestAMutualHostDemandsACertificateOfItsOwnMaking(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.MutualHosts = []string{moonshot} })
	other := start(t)
	f := func(host string, by *llmserver.Server, wantErr string) {
		t.Helper()
		client := s.Client()
		if by != nil {
			certificate, key, err := by.IssueClient("sidecar of " + host)
			if err != nil {
				t.Fatal(err)
			}
			pair, err := tls.X509KeyPair(certificate, key)
			if err != nil {
				t.Fatal(err)
			}
			// Whatever the server says it accepts, this is what it gets.
			client.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &pair, nil
			}
		}
		a, err := client.Get("https://" + host + "/v1/models")
		if err == nil {
			a.Body.Close()
		}
		if got := fmt.Sprint(err); wantErr == "" && err != nil || !strings.Contains(got, wantErr) {
			t.Errorf("%s: %v, want %q", host, err, wantErr)
		}
	}
	f(qwen, nil, "")
	f(moonshot, nil, "certificate required")
	f(moonshot, other, "certificate")
	f(moonshot, s, "")
	if all := s.Requests(); len(all) != 2 || all[0].Client != "" || all[1].Client != "sidecar of "+moonshot {
		t.Errorf("received %+v", all)
	}
}

func TestWhatWasReceivedIsKeptToTheLetter(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.PlainAddr = "127.0.0.1:0" })
	conn, err := net.Dial("tcp", s.PlainAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const sent = "POST /a%2fb/chat/completions?x=1&x HTTP/1.1\r\nhost: " + qwen + "\r\nX-b: 2\r\nx-A:1\r\n" +
		"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n" +
		"DELETE /v1/models/m HTTP/1.1\r\nHost: " + qwen + "\r\n\r\n"
	if _, err := io.WriteString(conn, sent); err != nil {
		t.Fatal(err)
	}
	all, err := s.AwaitEnded(limited(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	got := all[0]
	if got.Path != "/a%2fb/chat/completions" || got.RawQuery != "x=1&x" || got.Host != qwen || got.TLS || string(got.Body) != "abcde" {
		t.Errorf("got %+v", got)
	}
	if lines := strings.Join(got.RawHeader, "|"); lines != "host: "+qwen+"|X-b: 2|x-A:1|transfer-encoding: chunked" {
		t.Errorf("raw headers %s", lines)
	}
	if all[1].Method != "DELETE" || all[1].Status != 404 || all[1].Connection != got.Connection {
		t.Errorf("the second request: %+v", all[1])
	}
	if s.Reset(); len(s.Requests()) != 0 {
		t.Error("Reset keeps requests")
	}
}

func TestAnAbortBeforeTheFirstByteIsRecorded(t *testing.T) {
	for _, fault := range []string{"delay=1h", "first-token=1h"} {
		s := start(t)
		ctx, cancel := context.WithCancel(limited(t))
		defer cancel()
		failed := make(chan error)
		go func() {
			a, err := postTo(ctx, s, qwen, "/v1/chat/completions", streaming(""), llmserver.FaultHeader+": "+fault)
			if err == nil {
				a.Body.Close()
			}
			failed <- err
		}()
		if _, err := s.Await(limited(t), 1); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", fault, err)
		}
		got, err := s.AwaitAborted(limited(t))
		if err != nil || got.Ended.IsZero() || got.Status != 0 {
			t.Errorf("%s: %v, aborted request %+v", fault, err, got)
		}
	}
}

func TestAnAbortWithinAnAnswerIsRecorded(t *testing.T) {
	for _, fault := range []string{"stall-after=0", "stall-after=2", "stall-after=1000", "chunk-delay=1h", "hold-until=never"} {
		s := start(t)
		a, err := post(t, s, "/v1/chat/completions", streaming(""), llmserver.FaultHeader+": "+fault)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		got, err := s.AwaitAborted(limited(t))
		if err != nil || got.Ended.IsZero() || got.Status != 200 {
			t.Errorf("%s: %v, aborted request %+v", fault, err, got)
		}
	}
}

func TestAStreamIsHeldUntilAWordIsSaid(t *testing.T) {
	s := start(t)
	a, err := post(t, s, "/v1/chat/completions", streaming(""), llmserver.FaultHeader+": chunks=8 hold-until=go-on")
	if err != nil {
		t.Fatal(err)
	}
	in, events := bufio.NewScanner(a.Body), 0
	for ; events < 3 && in.Scan(); events += strings.Count(in.Text(), "data: ") {
	}
	if got := s.Requests(); len(got) != 1 || !got[0].Ended.IsZero() {
		t.Errorf("it is not held: %+v", got)
	}
	other, err := post(t, s, "/v1/chat/completions", streaming(`,"user":"go-on"`))
	if err != nil {
		t.Fatal(err)
	}
	other.Body.Close()
	for in.Scan() {
		events += strings.Count(in.Text(), "data: ")
	}
	if in.Err() != nil || events < 9 {
		t.Errorf("%v after %d events", in.Err(), events)
	}
}

func TestAHalfClosedConnectionCountsAsAbort(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.PlainAddr = "127.0.0.1:0" })
	conn, err := net.Dial("tcp", s.PlainAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v1/models HTTP/1.1\r\nHost: "+qwen+"\r\n"+llmserver.FaultHeader+": delay=1h\r\n\r\n")
	if _, err := s.Await(limited(t), 1); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AwaitAborted(limited(t)); err != nil {
		t.Error(err)
	}
}

func TestACompleteAnswerIsNoAbortAndItsConnectionIsReused(t *testing.T) {
	s := start(t)
	client := s.Client()
	for range 3 {
		a, err := client.Get("https://" + qwen + "/v1/models")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, a.Body); err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
	}
	client.CloseIdleConnections()
	all, err := s.AwaitEnded(limited(t), 3)
	if err != nil || s.Aborted() != 0 || s.Connections() != 1 || all[2].SNI != qwen || !all[2].TLS {
		t.Errorf("%v, %d aborted, %d connections, %+v", err, s.Aborted(), s.Connections(), all)
	}
}

func TestQuietKeepsNothingButCounters(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.Quiet = true })
	first := answered(t, s, 200, "/v1/chat/completions", hello)
	second := answered(t, s, 200, "/v1/chat/completions", hello)
	if at(t, first, "id") != at(t, second, "id") {
		t.Error("equal requests have unequal answers")
	}
	answered(t, s, 400, "/v1/chat/completions", `{}`)
	if len(s.Requests()) != 0 || s.Received() != 3 {
		t.Errorf("%d requests kept, %d counted", len(s.Requests()), s.Received())
	}
}
