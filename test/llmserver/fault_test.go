package llmserver_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
)

func TestAFaultIsTheSameInItsTextForm(t *testing.T) {
	f := func(text string, want llmserver.Fault) {
		t.Helper()
		got, err := llmserver.ParseFault(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			return
		}
		if got.String() != text || want.String() != text {
			t.Errorf("%q is parsed to %q; the fault meant is %q", text, got, want)
		}
	}
	f("", llmserver.Fault{})
	f("status=503 retry-after=1 body={\"a\": 1} x", llmserver.Fault{Status: 503, RetryAfter: "1", Body: `{"a": 1} x`})
	f("redirect=https://x/?a=1,2", llmserver.Fault{Redirect: "https://x/?a=1,2"})
	f("delay=1s first-token=500ms headers=early keepalive-comments", llmserver.Fault{
		Delay: time.Second, FirstToken: 500 * time.Millisecond, HeadersEarly: true, KeepaliveComments: true,
	})
	f("hold-until=told", llmserver.Fault{HoldUntil: "told"})
	f("stall-after=0 times=-1", llmserver.Fault{StallAfter: new(0), Times: -1})
	f("cut-after=2 mid-event", llmserver.Fault{CutAfter: new(2), MidEvent: true})
	f("error-after=3", llmserver.Fault{ErrorAfter: new(3)})
	f("chunks=5 chunk-delay=20ms split chunked", llmserver.Fault{Chunks: 5, ChunkDelay: 20 * time.Millisecond, Split: true, Chunked: true})
	f("status=401 reflect", llmserver.Fault{Status: 401, Reflect: true})
	f("reset close garbage early-close", llmserver.Fault{Reset: true, Close: true, Garbage: true, EarlyClose: true})
	if got, err := llmserver.ParseFault("mid-event=true"); err != nil || !got.MidEvent {
		t.Errorf("mid-event=true: %v %v", got, err)
	}
}

func TestABadFaultIsNamed(t *testing.T) {
	s := start(t)
	for _, text := range []string{"statsu=503", "status", "status=five", "status=503,retry-after=1", "delay=5", "split=no"} {
		message, _ := at(t, answered(t, s, 400, "/v1/chat/completions", hello, llmserver.FaultHeader+": "+text), "error", "message").(string)
		if !strings.Contains(message, text) {
			t.Errorf("%s: %q", text, message)
		}
	}
}

func TestScriptedFaultsAreUsedInTheirOrder(t *testing.T) {
	s := start(t)
	s.Script(qwen, llmserver.Fault{Status: 503}, llmserver.Fault{Status: 429, RetryAfter: "2", Times: 2})
	s.Script("", llmserver.Fault{Status: 500, Times: -1})
	for _, want := range []int{503, 429, 429, 500, 500} {
		answered(t, s, want, "/v1/chat/completions", hello)
	}
	answered(t, s, 418, "/v1/chat/completions", hello, llmserver.FaultHeader+": status=418")
	s.Unscript()
	answered(t, s, 200, "/v1/chat/completions", hello)
}

func TestAnAnswerCanBeChangedByAFault(t *testing.T) {
	s := start(t)
	f := func(fault string, want func(a *http.Response, body []byte) bool) {
		t.Helper()
		a, err := post(t, s, "/v1/chat/completions", hello, llmserver.FaultHeader+": "+fault)
		if err != nil {
			t.Errorf("%s: %v", fault, err)
			return
		}
		defer a.Body.Close()
		body, err := io.ReadAll(a.Body)
		if err != nil || !want(a, body) {
			t.Errorf("%s: %v, %d %v %.200s", fault, err, a.StatusCode, a.Header, body)
		}
	}
	f("status=429 retry-after=7", func(a *http.Response, body []byte) bool {
		return a.StatusCode == 429 && a.Header.Get("Retry-After") == "7" && bytes.Contains(body, []byte(`"code":"rate_limit_exceeded"`))
	})
	f("status=500 body=Internal error, sorry", func(a *http.Response, body []byte) bool {
		return a.StatusCode == 500 && string(body) == "Internal error, sorry"
	})
	f("redirect=https://elsewhere.example/x", func(a *http.Response, _ []byte) bool {
		return a.StatusCode == 307 && a.Header.Get("Location") == "https://elsewhere.example/x"
	})
	f("huge=100000", func(a *http.Response, body []byte) bool { return len(body) == 100000 && a.ContentLength == 100000 })
	f("huge=100000 chunked", func(a *http.Response, body []byte) bool { return len(body) == 100000 && a.ContentLength == -1 })
	f("chunked", func(a *http.Response, body []byte) bool {
		return a.ContentLength == -1 && bytes.Contains(body, []byte("hello there"))
	})
	f("chunks=3", func(_ *http.Response, body []byte) bool { return bytes.Contains(body, []byte(`"word1 word2 word3"`)) })
}

func TestAStreamCanBeChangedByAFault(t *testing.T) {
	s := start(t)
	plain, err := post(t, s, "/v1/chat/completions", streaming(""))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Body.Close()
	good, err := io.ReadAll(plain.Body)
	if err != nil {
		t.Fatal(err)
	}
	f := func(fault, want string) {
		t.Helper()
		a, err := post(t, s, "/v1/chat/completions", streaming(""), llmserver.FaultHeader+": "+fault)
		if err != nil {
			t.Errorf("%s: %v", fault, err)
			return
		}
		defer a.Body.Close()
		if got, err := io.ReadAll(a.Body); err != nil || string(got) != want {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", fault, err, got, want)
		}
	}
	f("split", string(good))
	f("keepalive-comments", strings.Repeat(": ping\n\n", 3)+string(good))
	f("first-token=1ms headers=early", string(good))
}

func TestAProviderCanTellBackWhatItReceived(t *testing.T) {
	s := start(t)
	f := func(body, fault string, told int) {
		t.Helper()
		a, err := post(t, s, "/v1/chat/completions", body, llmserver.FaultHeader+": "+fault, "Api-Key: sk-told-back")
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		got, err := io.ReadAll(a.Body)
		if n := bytes.Count(got, []byte(`"Api-Key: sk-told-back"`)); err != nil || n != told || a.Header.Get("X-Reflected-Api-Key") != "sk-told-back" {
			t.Errorf("%s: %v, %v, %d times in %s", fault, err, a.Header, n, got)
		}
	}
	f(hello, "reflect", 1)
	f(hello, "status=500 reflect", 1)
	f(streaming(""), "reflect", 2)
}

func TestASplitEventComesInTwoChunks(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.PlainAddr = "127.0.0.1:0" })
	f := func(fault string, wantWhole bool) {
		t.Helper()
		conn, err := net.Dial("tcp", s.PlainAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		body := streaming("")
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s: %s\r\nContent-Length: %d\r\n\r\n%s",
			qwen, llmserver.FaultHeader, fault, len(body), body)
		raw, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		whole := regexp.MustCompile(`\r\ndata: .*\n\n\r\n`).Match(raw) // a chunk from the start of an event to its end
		if whole != wantWhole || !bytes.HasSuffix(raw, []byte("\n\n\r\n0\r\n\r\n")) {
			t.Errorf("%q: an event in one chunk: %v\n%s", fault, whole, raw)
		}
	}
	f("", true)
	f("split", false)
}

func TestAnAnswerCanBeCutShort(t *testing.T) {
	s := start(t)
	f := func(body, fault string, want func(got string) bool) {
		t.Helper()
		a, err := post(t, s, "/v1/chat/completions", body, llmserver.FaultHeader+": "+fault)
		if err != nil {
			t.Errorf("%s: %v", fault, err)
			return
		}
		defer a.Body.Close()
		got, err := io.ReadAll(a.Body)
		if !errors.Is(err, io.ErrUnexpectedEOF) || !want(string(got)) {
			t.Errorf("%s: %v, got %s", fault, err, got)
		}
	}
	count := func(n int, end string) func(string) bool {
		return func(got string) bool { return strings.Count(got, "data: ") == n && strings.HasSuffix(got, end) }
	}
	f(streaming(""), "cut-after=0", count(0, ""))
	f(streaming(""), "cut-after=2", count(2, "\n\n"))
	f(streaming(""), "cut-after=2 mid-event", func(got string) bool {
		return strings.Count(got, "data: ") == 3 && !strings.HasSuffix(got, "\n")
	})
	f(streaming(""), "cut-after=1000", func(got string) bool { return strings.HasSuffix(got, "data: [DONE]\n\n") })
	f(hello, "cut-after=2", func(got string) bool { return len(got) == 32 })
	if s.Aborted() != 0 {
		t.Errorf("%d requests count as aborted by the client", s.Aborted())
	}
}

func TestAConnectionCanFailBeforeAnyByte(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.PlainAddr = "127.0.0.1:0" })
	f := func(fault, wantRead string, wantErr error) {
		t.Helper()
		conn, err := net.Dial("tcp", s.PlainAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET /v1/models HTTP/1.1\r\nHost: "+qwen+"\r\n"+llmserver.FaultHeader+": "+fault+"\r\n\r\n")
		got, err := io.ReadAll(conn)
		if strings.Contains(string(got), "Connection:") {
			t.Errorf("%s: the answer speaks of the connection: %s", fault, got)
		}
		if !errors.Is(err, wantErr) || !strings.Contains(string(got), wantRead) || wantRead == "" && len(got) > 0 {
			t.Errorf("%s: read %q and %v, want %q and %v", fault, got, err, wantRead, wantErr)
		}
	}
	f("reset", "", syscall.ECONNRESET)
	f("close", "", nil)
	f("garbage", "not HTTP", nil)
	f("early-close", `"object":"list"`, nil)
}

func TestHeadersWaitForTheFirstTokenUnlessTheyAreEarly(t *testing.T) {
	s := start(t)
	a, err := post(t, s, "/v1/chat/completions", streaming(""), llmserver.FaultHeader+": first-token=1h headers=early")
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	got, err := s.AwaitAborted(limited(t))
	if err != nil || got.Status != 200 {
		t.Errorf("%v, %+v", err, got)
	}
}

func TestAStreamCanTellOfAnErrorAndEnd(t *testing.T) {
	f := func(path, body, want string) {
		t.Helper()
		a, err := post(t, start(t), path, body, llmserver.FaultHeader+": error-after=3")
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		raw, err := io.ReadAll(a.Body)
		if all := events(t, bytes.NewReader(raw)); err != nil || len(all) != 4 || !strings.HasPrefix(all[3], want) {
			t.Errorf("%s: %v %s", path, err, raw)
		}
	}
	f("/v1/chat/completions", streaming(""), `{"error":{"message":"The server had an error`)
	f("/v1/responses", `{"model":"m","input":"hi","stream":true}`, `{"code":"server_error","message":"The server`)
}
