package proxy_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAnEventThatCameWithTheHeadGoesOutWithIt(t *testing.T) {
	f := func(name, rule, sent, want string) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rawConfig(rule))
			done := make(chan struct{})
			serve(t, func(_ int, c *net.TCPConn, _ *http.Request) bool {
				_, _ = c.Write([]byte(eventsHead + sent))
				<-done
				return false
			})
			defer close(done)
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			say(t, c, "POST / HTTP/1.1\r\nHost: raw\r\nContent-Type: application/json\r\n"+lengthOf(streamed)+"\r\n"+streamed)
			first := make([]byte, 16<<10)
			n, err := c.Read(first)
			if got := string(first[:n]); err != nil || !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, want) {
				t.Errorf("the first read gives %q (%v)", got, err)
			}
			if segments := arrivedIn(t, c.(*net.TCPConn)); segments != 1 {
				t.Errorf("it took %d segments", segments)
			}
		})
	}
	f("an event", "", chunkOf("data: a\n\n"), "\r\n\r\n9\r\ndata: a\n\n\r\n")
	f("an event that was awaited", "\n    retries: {attempts: 2, retryOn: [first-token]}", chunkOf("data: a\n\n"), "\r\n\r\n9\r\ndata: a\n\n\r\n")
	f("an event and a half", "", chunkOf("data: a\n\ndata: half"), "\r\n\r\n9\r\ndata: a\n\n\r\n")
	f("half an event", "", chunkOf("data: half"), "\r\n\r\n")
}

// arrivedIn counts the segments in which data has come: what is written at once is one, on loopback.
func arrivedIn(t *testing.T, c *net.TCPConn) uint32 {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if ctlErr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); ctlErr != nil || err != nil {
		t.Fatal(ctlErr, err)
	}
	return info.Data_segs_in
}

func TestAnAnswerThatBreaksWithItsFirstEventEndsInAnError(t *testing.T) {
	r := newRig(t, rawConfig(""))
	serve(t, always(eventsHead+chunkOf("data: a\n\n")+"zz\r\nno size", false))
	if got := r.do("POST", "http://raw", streamed); !strings.HasPrefix(got.body, "data: a\n\n") || strings.Count(got.body, "UpstreamInvalid") != 1 || strings.Contains(got.body, "no size") {
		t.Errorf("got %q", got.body)
	}
}
