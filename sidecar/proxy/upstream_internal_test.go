package proxy

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
)

// Whether a request may be sent again depends on how its connection ended; here each end is a real one.
func TestARequestIsSentAgainOnlyWhereNothingCanHaveComeOfIt(t *testing.T) {
	chat, upload := &routing.Operation{JSON: true}, &routing.Operation{Form: true}
	const request = 256 << 10 // more than the provider's side takes in unread, less than ours holds
	for name, c := range map[string]struct {
		end           func(*net.TCPConn) error // of the provider, once the request was sent
		ago           time.Duration
		chat, certain bool // whether it may be: inference, and what else there is
	}{
		"in order, before all of it was there": {func(c *net.TCPConn) error { return c.CloseWrite() }, time.Hour, true, true},
		"in order, after it was read": {func(c *net.TCPConn) error {
			_, err := io.ReadFull(c, make([]byte, request))
			return errors.Join(err, c.Close())
		}, time.Hour, false, false},
		"in order, at once, after it was read": {func(c *net.TCPConn) error {
			_, err := io.ReadFull(c, make([]byte, request))
			return errors.Join(err, c.Close())
		}, 0, true, false},
		"by a reset": {func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }, time.Hour, false, false},
		"by a reset, after it was read": {func(c *net.TCPConn) error {
			_, err := io.ReadFull(c, make([]byte, request))
			return errors.Join(err, c.SetLinger(0), c.Close())
		}, time.Hour, false, false},
		"by a reset, at once": {func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }, 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := listening(t, "127.0.0.1:0")
			raw, err := l.(*net.TCPListener).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var set error
			err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
			if err := errors.Join(err, set); err != nil {
				t.Fatal(err)
			}
			dialled, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer dialled.Close()
			there, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer there.Close()
			conn := newUpConn(&pool{}, dialled.(*net.TCPConn), dialled)
			_ = conn.raw.SetWriteBuffer(4 * request)
			if _, err := conn.Write(make([]byte, request)); err != nil {
				t.Fatal(err)
			}
			if err := c.end(there.(*net.TCPConn)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.br.ReadByte(); err == nil {
				t.Fatal("there is an answer")
			}
			conn.asked = time.Now().Add(-c.ago)
			if got := conn.unserved(upload); got != c.certain {
				t.Errorf("an upload may be sent again: %t, with %v and %d bytes that have not arrived", got, conn.ended, conn.unacknowledged())
			}
			if got := conn.unserved(nil); got != c.certain {
				t.Errorf("what is nothing known may be sent again: %t", got)
			}
			if c.ago == 0 {
				conn.asked = time.Now() // however long this took
			}
			if got := conn.unserved(chat); got != c.chat {
				t.Errorf("inference may be sent again: %t", got)
			}
			conn.spent = true
			if !conn.unserved(upload) {
				t.Error("what did not go out as a whole may not be sent again")
			}
		})
	}
}
