package llmserver_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"remora.dev/remora/test/llmserver"
)

const realtime = "wss://" + qwen + "/v1/realtime?model=gpt-realtime"

// converse opens a WebSocket with a client that others wrote.
func converse(t *testing.T, s *llmserver.Server, headers ...string) (*websocket.Conn, error) {
	t.Helper()
	config, err := websocket.NewConfig(realtime, "https://"+qwen)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		config.Header.Set(name, value)
	}
	pool := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	conn, err := tls.Dial("tcp", s.Addr(), &tls.Config{ServerName: qwen, RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(limit))
	return websocket.NewClient(config, conn)
}

func TestEventsComeBackOverAWebSocket(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.Keys = map[string]string{qwen: "sk-q"} })
	if _, err := converse(t, s); err == nil {
		t.Error("no key is demanded")
	}
	for fault, frames := range map[string]int{"times=1": 1, "split": 2} {
		conn, err := converse(t, s, "Authorization: Bearer sk-q", llmserver.FaultHeader+": "+fault)
		if err != nil {
			t.Fatal(err)
		}
		var created map[string]any
		if err := websocket.JSON.Receive(conn, &created); err != nil || at(t, created, "session", "model") != "gpt-realtime" {
			t.Fatalf("%v %v", created, err)
		}
		for _, text := range []string{`{"type":"a"}`, `{"type":"` + strings.Repeat("b", 200) + `"}`, `{"type":"` + strings.Repeat("c", 1<<17) + `"}`} {
			if err := websocket.Message.Send(conn, text); err != nil {
				t.Fatal(err)
			}
			if got := heard(t, conn, frames); got != text {
				t.Errorf("sent %.40s, got %.40s", text, got)
			}
		}
		if err := websocket.Message.Send(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if got := heard(t, conn, frames); !strings.Contains(got, `"type":"error"`) {
			t.Errorf("the answer to no event is %s", got)
		}
		if err := conn.WriteClose(1000); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.AwaitEnded(limited(t), 3)
	if err != nil || all[0].Status != 401 || all[1].Status != 101 || s.Aborted() != 0 {
		t.Errorf("%v, %d aborted, %+v", err, s.Aborted(), all)
	}
}

// heard is one event, which the client gives frame by frame.
func heard(t *testing.T, conn *websocket.Conn, frames int) string {
	t.Helper()
	var whole, part string
	for range frames {
		if err := websocket.Message.Receive(conn, &part); err != nil {
			t.Fatal(err)
		}
		whole += part
	}
	return whole
}

func TestAWebSocketThatIsDroppedIsAborted(t *testing.T) {
	s := start(t, func(o *llmserver.Options) { o.PlainAddr = "127.0.0.1:0" })
	conn, err := net.Dial("tcp", s.PlainAddr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, rightHandshake); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if got, err := s.AwaitAborted(limited(t)); err != nil || got.Status != 101 {
		t.Errorf("%v %+v", err, got)
	}
}

const rightHandshake = "GET /v1/realtime?model=m HTTP/1.1\r\nHost: " + qwen +
	"\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

func rawRealtime(t *testing.T, text string) (*http.Response, *bufio.Reader, net.Conn) {
	t.Helper()
	s := start(t, func(o *llmserver.Options) { o.PlainAddr = "127.0.0.1:0" })
	conn, err := net.Dial("tcp", s.PlainAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	a, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a, in, conn
}

func TestAHandshakeMustBeRight(t *testing.T) {
	f := func(old, new string, status int) {
		t.Helper()
		if !strings.Contains(rightHandshake, old) {
			t.Fatalf("there is no %q", old)
		}
		a, _, _ := rawRealtime(t, strings.Replace(rightHandshake, old, new, 1))
		if a.StatusCode != status {
			t.Errorf("%q for %q: %d, want %d", new, old, a.StatusCode, status)
		}
		// The example of RFC 6455, section 1.3.
		if got := a.Header.Get("Sec-Websocket-Accept"); status == 101 && got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Errorf("Sec-WebSocket-Accept: %s", got)
		}
	}
	f("keep-alive, Upgrade", "upgrade", 101)
	f("Upgrade: websocket", "Upgrade: WebSocket", 101)
	f("keep-alive, Upgrade", "keep-alive", 400)
	f("Upgrade: websocket\r\n", "", 400)
	f("Upgrade: websocket", "Upgrade: h2c", 400)
	f("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 426)
	f("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400)
	f("Sec-WebSocket-Key: d", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: d", 400)
	f("dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 400)
	f("?model=m", "", 400)
	f("?model=m", "?model=m&model=n", 400)
	f("HTTP/1.1", "HTTP/1.0", 400)
}

// masked is a client's frame.
func masked(first byte, payload string) string {
	mask := []byte{1, 2, 3, 4}
	b := []byte{first, 0x80 | byte(len(payload))}
	b = append(b, mask...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return string(b)
}

func TestAWrongFrameEndsTheWebSocketWithItsCode(t *testing.T) {
	f := func(frames string, want ...string) {
		t.Helper()
		_, in, conn := rawRealtime(t, rightHandshake)
		if _, err := io.WriteString(conn, frames); err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(in)
		if err != nil {
			t.Errorf("%q: %v", frames, err)
		}
		raw = raw[4+binary.BigEndian.Uint16(raw[2:]):] // the first event
		var got []string
		for len(raw) > 0 {
			payload := raw[2 : 2+raw[1]]
			if said := fmt.Sprintf("%x %s", raw[0], payload); raw[0] != 0x88 {
				got = append(got, said)
			} else {
				got = append(got, fmt.Sprintf("88 %d", binary.BigEndian.Uint16(payload)))
			}
			raw = raw[2+raw[1]:]
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: %q, want %q", frames, got, want)
		}
	}
	normal := masked(0x88, "\x03\xe8")
	f(normal, "88 1000")
	f(masked(0x89, "hi")+normal, "8a hi", "88 1000")
	f(masked(0x01, `{"type"`)+masked(0x89, "in between")+masked(0x80, `:"a"}`)+normal, "8a in between", `81 {"type":"a"}`, "88 1000")
	f("\x81\x02{}", "88 1002")       // not masked
	f(masked(0xC1, "{}"), "88 1002") // compressed
	f(masked(0x83, "{}"), "88 1002") // no such opcode
	f(masked(0x80, "{}"), "88 1002") // goes on with nothing
	f(masked(0x01, "{")+masked(0x81, "}"), "88 1002")
	f(masked(0x09, "a ping in fragments"), "88 1002")
	f("\x81\xfe\x00\x02\x00\x00\x00\x00{}", "88 1002") // a length that is not in its shortest form
	f("\x89\xfe\x00\x80"+strings.Repeat("x", 132), "88 1002")
	f(masked(0x82, "{}"), "88 1003")
	f(masked(0x81, "\xff\xfe"), "88 1007")
	f(masked(0x88, "\x03\xee"), "88 1002") // 1006 is never sent
	f("\x81\xff"+string(binary.BigEndian.AppendUint64(nil, 1<<30)), "88 1009")
}

func TestAWebSocketCanBeCutAndCanStall(t *testing.T) {
	s := start(t)
	receive := func(fault string) (int, error) {
		conn, err := converse(t, s, llmserver.FaultHeader+": "+fault)
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; ; n++ {
			var got []byte
			if err := websocket.Message.Receive(conn, &got); err != nil {
				return n, err
			}
			if n == 3 {
				return n, nil
			}
			if n == 2 && strings.HasPrefix(fault, "stall") {
				return n, conn.SetDeadline(time.Now()) // two answers came; the next would not
			}
			if err := websocket.Message.Send(conn, `{"type":"x"}`); err != nil {
				return n, err
			}
		}
	}
	if n, err := receive("cut-after=2"); n != 3 || err == nil {
		t.Errorf("cut: %d events, %v", n, err)
	}
	if n, err := receive("stall-after=2"); n != 2 || err != nil {
		t.Errorf("stall: %d events, %v", n, err)
	}
}
