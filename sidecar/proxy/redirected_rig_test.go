package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/proxy"
)

// Addresses that apps call in these tests. Connections to them are turned to the proxy by a real iptables rule, for
// sockets that carry appMark; the proxy's own carry none, as they have a user of their own in a pod.
const (
	world6  = "[2001:db8::80]:80" // there, a test may listen
	nowhere = "198.51.100.9:80"   // packets to it are lost
	appMark = 14
)

var places atomic.Uint32

// place gives an address where a test may listen, and no test just before did. After a reset, the kernel remembers for
// ten seconds where a connection had been turned to; another one between the same ports would be turned there too.
func place() string { return fmt.Sprintf("192.0.2.%d:80", places.Add(1)%250+1) }

const redirectPort = "14001"

// redirect turns the app's connections to port 80 to the rig's proxy.
func (r *rig) redirect() {
	r.t.Helper()
	redirectTo(r.t, r.proxy)
	r.world = place()
}

func redirectTo(tb testing.TB, p *proxy.Proxy) {
	tb.Helper()
	if err := furnished(); err != nil {
		tb.Fatal(err)
	}
	for host, tables := range map[string]string{"127.0.0.1": "iptables", "::1": "ip6tables"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, redirectPort))
		if err != nil {
			tb.Fatal(err)
		}
		go func() { _ = p.Serve(l) }() // until the proxy ends
		turn(tb, tables, "--dport 80 -m mark --mark "+strconv.Itoa(appMark))
	}
}

// turn adds a rule for the length of a test.
func turn(tb testing.TB, tables, which string) {
	tb.Helper()
	rule := strings.Fields("OUTPUT -t nat -p tcp " + which + " -j REDIRECT --to-ports " + redirectPort)
	command(tb, tables, append([]string{"-w", "-A"}, rule...)...)
	tb.Cleanup(func() { command(tb, tables, append([]string{"-w", "-D"}, rule...)...) })
}

func command(tb testing.TB, name string, args ...string) {
	tb.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// furnished gives the namespace a world: addresses where tests listen, and a way to where nobody is.
var furnished = sync.OnceValue(func() error {
	for _, line := range []string{
		"addr add 192.0.2.1/24 dev lo",
		"addr add 2001:db8::80/128 dev lo nodad",
		"link add outward type veth peer name far",
		"addr add 198.51.100.1/24 dev outward",
		"link set outward up",
		"link set far up",
		"neigh add 198.51.100.9 lladdr 02:00:00:00:00:09 dev outward",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return errors.New("ip " + line + ": " + string(out))
		}
	}
	return nil
})

// appDialer makes connections as the app in the pod does.
var appDialer = net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
	var err error
	if ctlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, appMark) }); ctlErr != nil {
		return ctlErr
	}
	return err
}}

// app connects to an address of the world.
func app(tb testing.TB, address string) *net.TCPConn {
	tb.Helper()
	c, err := appDialer.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// remote listens at an address of the world, and does with each connection what f does.
func remote(tb testing.TB, address string, f func(c *net.TCPConn)) {
	tb.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			}()
		}
	}()
}

// untouched is a remote that must not get a single byte.
func untouched(t *testing.T, address string) {
	t.Helper()
	remote(t, address, func(c *net.TCPConn) {
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("these bytes left in plain text: %q", b)
		}
	})
}

func say(tb testing.TB, c io.Writer, text string) {
	tb.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		tb.Fatal(err)
	}
}

func hear(tb testing.TB, in io.Reader, want string) {
	tb.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(in, got); err != nil || string(got) != want {
		tb.Fatalf("got %q (%v), want %q", got[:n], err, want)
	}
}

// answered reads one answer.
func answered(tb testing.TB, in *bufio.Reader) reply {
	tb.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func chat(host string) string {
	return "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: application/json\r\n" + lengthOf(prompt) + "\r\n" + prompt
}

// wantReset asserts that the app met what it meets where nobody listens, and not an orderly end.
func wantReset(tb testing.TB, c net.Conn) {
	tb.Helper()
	b, err := io.ReadAll(c)
	if !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		tb.Errorf("got %q and %v, want a reset", b, err)
	}
}
