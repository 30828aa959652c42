package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/llmserver"
)

// restricted is a configuration in which only the user 4711 may use qwen.
var restricted = strings.Replace(providers, "  host: "+qwen+"\n", "  host: "+qwen+"\n  allowedUIDs: [4711]\n", 1)

// as connects as the process of a user does, from a port if that is not 0.
func as(t *testing.T, uid int, address string, control func(fd int) error) net.Conn {
	t.Helper()
	runtime.LockOSThread() // of which the user is a property
	defer runtime.UnlockOSThread()
	d := net.Dialer{Timeout: time.Minute, Control: func(network, _ string, c syscall.RawConn) error {
		err := appDialer.Control(network, address, c)
		if err == nil && control != nil {
			err = c.Control(func(fd uintptr) { err = control(int(fd)) })
		}
		return err
	}}
	_ = unix.Setfsuid(uid)
	c, err := d.Dial("tcp", address)
	_ = unix.Setfsuid(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// mapped connects to an address of IPv4 by a socket of IPv6.
func mapped(t *testing.T, uid int, address string) net.Conn {
	t.Helper()
	to := netip.MustParseAddrPort(address)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Setfsuid(uid)
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	_ = unix.Setfsuid(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, appMark); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), address)
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// asked calls by a connection of its own, and once more where the kernel cannot tell whose it is, since its port has been in
// use: an app is told to do so, too.
func asked(t *testing.T, dial func() net.Conn) reply {
	t.Helper()
	for {
		c := dial()
		say(t, c, chat(qwen))
		if got := answered(t, bufio.NewReader(c)); got.header.Get("Retry-After") == "" {
			return got
		}
	}
}

func wantAdmitted(t *testing.T, dial func() net.Conn) {
	t.Helper()
	if got := asked(t, dial); got.status != http.StatusOK {
		t.Errorf("answered %+v", got)
	}
}

func wantRefused(t *testing.T, dial func() net.Conn, who string) {
	t.Helper()
	asked(t, dial).wantError(t, http.StatusForbidden, routing.CallerNotAllowed, "LLMProvider default/qwen", who, "spec.allowedUIDs")
}

// wantUnknown is for callers of whom nothing helps to know them.
func wantUnknown(t *testing.T, c net.Conn) {
	t.Helper()
	say(t, c, chat(qwen))
	got := answered(t, bufio.NewReader(c))
	got.wantError(t, http.StatusForbidden, routing.CallerNotAllowed, "LLMProvider default/qwen", "cannot be told")
	if got.header.Get("X-Should-Retry") != "true" || got.header.Get("Retry-After") != "1" {
		t.Errorf("the app is not told to try again: %v", got.header)
	}
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection goes on: %d, %v", n, err)
	}
}

func TestAProviderServesTheUsersThatItNames(t *testing.T) {
	r := newRig(t, restricted)
	r.redirect()
	for _, address := range []string{r.world, world6, r.addr} {
		for range 2 { // also on a connection to the provider that is used again
			wantAdmitted(t, func() net.Conn { return as(t, 4711, address, nil) })
		}
		before := len(r.provider.Requests())
		for _, uid := range []int{0, 1, 4710, 4712, 65534} {
			wantRefused(t, func() net.Conn { return as(t, uid, address, nil) }, fmt.Sprintf("user %d:", uid))
		}
		if after := len(r.provider.Requests()); after != before {
			t.Errorf("%d calls of others reached the provider", after-before)
		}
	}
	wantAdmitted(t, func() net.Conn { return mapped(t, 4711, r.world) })
	wantRefused(t, func() net.Conn { return mapped(t, 4712, r.world) }, "user 4712:")
	if got := r.do("POST", "http://"+moonshot+"/", prompt); got.status != http.StatusOK {
		t.Errorf("a provider that names no users: %+v", got)
	}
}

func TestTunnelsAndWebSocketsAreForTheUsersThatAProviderNames(t *testing.T) {
	r := newRig(t, restricted)
	for _, uid := range []int{4711, 4712} {
		want := map[int]int{4711: http.StatusOK, 4712: http.StatusForbidden}[uid]
		c := as(t, uid, r.addr, nil)
		say(t, c, "CONNECT "+qwen+":80 HTTP/1.1\r\nHost: "+qwen+":80\r\n\r\n")
		in := bufio.NewReader(c)
		resp, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("CONNECT is answered %v, %v", resp, err)
		}
		say(t, c, chat(qwen))
		if got := answered(t, in); got.status != want {
			t.Errorf("in a tunnel of user %d: %+v", uid, got)
		}
		c = as(t, uid, r.addr, nil)
		say(t, c, "GET /v1/realtime?model=m HTTP/1.1\r\nHost: "+qwen+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		resp, err = http.ReadResponse(bufio.NewReader(c), nil)
		if uid == 4711 {
			want = http.StatusSwitchingProtocols
		}
		if err != nil || resp.StatusCode != want {
			t.Errorf("a WebSocket of user %d: %v, %v", uid, resp, err)
		}
	}
}

func TestACallerWhoseSocketCannotBeToldApartIsRefused(t *testing.T) {
	r := newRig(t, restricted)
	r.redirect()
	t.Run("bound to a device", func(t *testing.T) {
		wantUnknown(t, as(t, 4711, r.addr, func(fd int) error { return unix.BindToDevice(fd, "lo") }))
	})
	t.Run("its port is in use for another destination", func(t *testing.T) {
		from := func(port *int) func(fd int) error {
			return func(fd int) error {
				if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
					return err
				}
				return unix.Bind(fd, &unix.SockaddrInet4{Port: *port, Addr: [4]byte{192, 0, 2, 1}})
			}
		}
		port := 0
		first := as(t, 4711, place(), from(&port))
		port = first.LocalAddr().(*net.TCPAddr).Port
		wantAdmitted(t, func() net.Conn { return first })
		second := as(t, 4711, place(), from(&port))
		wantUnknown(t, second)
		third := as(t, 4712, place(), from(&port))
		wantUnknown(t, third)
	})
}

func TestAnotherAttemptGoesToNoProviderThatDoesNotAdmitTheCaller(t *testing.T) {
	r := newRig(t, restricted+route("chat", `  - backendRefs:
    - {providerHost: api.moonshot.cn, priority: 0}
    - {providerHost: dashscope.aliyuncs.com, priority: 1}
    retries: {attempts: 2, retryOn: [5xx]}`))
	for uid, want := range map[int]int{4711: http.StatusOK, 4712: http.StatusInternalServerError} {
		r.provider.Unscript()
		r.provider.Script(moonshot, llmserver.Fault{Status: http.StatusInternalServerError, Times: 3})
		c := as(t, uid, r.addr, nil)
		say(t, c, chat("chat"))
		if got := answered(t, bufio.NewReader(c)); got.status != want {
			t.Errorf("user %d is answered %+v", uid, got)
		}
	}
}

func TestALoopOfCallersIsRefusedAndDoesNotFillTheLog(t *testing.T) {
	r := newRig(t, restricted)
	r.redirect()
	const calls = 1000
	world := place() // its own, since so many connections leave ports behind
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range calls / 8 {
				c := as(t, 4712, world, nil)
				_, _ = io.WriteString(c, chat(qwen))
				if i%2 == 0 {
					_ = c.(*net.TCPConn).SetLinger(0)
				}
				_ = c.Close() // at once
			}
		})
	}
	all.Wait()
	wantRefused(t, func() net.Conn { return as(t, 4712, world, nil) }, "is not for processes of")
	wantAdmitted(t, func() net.Conn { return as(t, 4711, world, nil) })
	if n := len(r.provider.Requests()); n != 1 {
		t.Errorf("%d calls reached the provider", n)
	}
	if n := r.log.count("CallerNotAllowed"); n == 0 || n > calls/5 {
		t.Errorf("%d lines in the log", n)
	}
}
