package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// Addresses that apps call in these tests. Connections to them are turned to the proxy by a real iptables rule, for
// sockets that carry appMark; the proxy's own carry none, as they have a user of their own in a pod.
const (
	world   = "192.0.2.80:80" // there, a test may listen
	world6  = "[2001:db8::80]:80"
	nowhere = "198.51.100.9:80" // packets to it are lost
	appMark = 14
)

// redirect turns the app's connections to port 80 to the rig's proxy.
func (r *rig) redirect() {
	r.t.Helper()
	_, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "[::1]:"+port)
	if err != nil {
		r.t.Fatal(err)
	}
	go func() { _ = r.proxy.Serve(l) }()
	for _, tables := range []string{"iptables", "ip6tables"} {
		rule := strings.Fields("OUTPUT -t nat -p tcp --dport 80 -m mark --mark " + strconv.Itoa(appMark) + " -j REDIRECT --to-ports " + port)
		command(r.t, tables, append([]string{"-w", "-A"}, rule...)...)
		r.t.Cleanup(func() { command(r.t, tables, append([]string{"-w", "-D"}, rule...)...) })
	}
}

func command(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// furnish gives the namespace a world: addresses where tests listen, and a way to where nobody is.
func furnish() error {
	for _, line := range []string{
		"addr add 192.0.2.80/32 dev lo",
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
}

// appDialer makes connections as the app in the pod does.
var appDialer = net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
	var err error
	if ctlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, appMark) }); ctlErr != nil {
		return ctlErr
	}
	return err
}}

// app connects to an address of the world.
func app(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	c, err := appDialer.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// remote listens at an address of the world, and does with each connection what f does.
func remote(t testing.TB, address string, f func(c *net.TCPConn)) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
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

func say(t testing.TB, c io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t testing.TB, in io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(in, got); err != nil || string(got) != want {
		t.Fatalf("got %q (%v), want %q", got[:n], err, want)
	}
}

// answered reads one answer.
func answered(t testing.TB, in *bufio.Reader) reply {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

func chat(host string) string {
	return "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: application/json\r\n" + lengthOf(prompt) + "\r\n" + prompt
}

// wantReset asserts that the app met what it meets where nobody listens, and not an orderly end.
func wantReset(t testing.TB, c net.Conn) {
	t.Helper()
	b, err := io.ReadAll(c)
	if !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		t.Errorf("got %q and %v, want a reset", b, err)
	}
}

func TestARedirectedRequestForAnOwnedHostIsServed(t *testing.T) {
	for _, address := range []string{world, world6, nowhere} {
		t.Run(address, func(t *testing.T) {
			r := newRig(t, providers)
			r.redirect()
			if address != nowhere {
				untouched(t, address)
			}
			c := app(t, address)
			in := bufio.NewReader(c)
			for range 3 {
				say(t, c, chat(qwen))
				if got := answered(t, in); got.status != 200 {
					t.Fatalf("got %+v", got)
				}
				if q := r.last(); !q.TLS || q.Header.Get("Authorization") != "Bearer sk-qwen-0123456789" || q.Path != "/compatible-mode/v1/chat/completions" {
					t.Errorf("the provider got %+v", q)
				}
			}
		})
	}
}

func TestForeignBytesPassUnchanged(t *testing.T) {
	f := func(name, address, sent, answer string) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, providers)
			r.redirect()
			got := make(chan string, 1)
			remote(t, address, func(c *net.TCPConn) {
				b := make([]byte, len(sent))
				n, _ := io.ReadFull(c, b)
				got <- string(b[:n])
				_, _ = io.WriteString(c, answer)
			})
			c := app(t, address)
			say(t, c, sent)
			if g := <-got; g != sent {
				t.Errorf("the remote got %q, want %q", g, sent)
			}
			if b, err := io.ReadAll(c); err != nil || string(b) != answer {
				t.Errorf("the app got %q (%v), want %q", b, err, answer)
			}
		})
	}
	answer := "HTTP/1.1 200 OK\r\nserver: odd\r\nContent-Length: 2\r\n\r\nok"
	f("HTTP", world, "POST /x?y HTTP/1.1\r\nhost:  foreign.example.com \r\nX-odd:  1\r\nContent-Length: 4\r\n\r\nbody", answer)
	f("HTTP over IPv6", world6, "GET / HTTP/1.1\r\nHost: [2001:db8::80]\r\n\r\n", answer)
	f("HTTP/1.0 without a host", world, "GET / HTTP/1.0\r\n\r\n", answer)
	f("HTTP/0.9", world, "GET /\r\n", "text")
	f("TLS", world, "\x16\x03\x01\x00\x05hello", "\x16\x03\x03\x00\x02ok")
	f("HTTP/2 with prior knowledge", world, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	f("CONNECT", world, "CONNECT foreign.example.com:443 HTTP/1.1\r\nHost: foreign.example.com:443\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n")
	f("lines", world, "EHLO there\r\n", "250 ok\r\n")
	f("zeros", world, "\x00\x00\x00\x08\x04\xd2\x16\x2f", "N")
}

func TestAServerThatSpeaksFirstIsHeard(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	remote(t, world, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "SSH-2.0-server\r\n")
		_, _ = io.Copy(c, c)
	})
	c := app(t, world)
	hear(t, c, "SSH-2.0-server\r\n")
	say(t, c, "SSH-2.0-app\r\n")
	hear(t, c, "SSH-2.0-app\r\n")
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("got %q (%v)", b, err)
	}
}

func TestAnOwnedRequestNeverFollowsAForeignGreeting(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	remote(t, world, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 hello\r\n")
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("these bytes left in plain text: %q", b)
		}
	})
	c := app(t, world)
	hear(t, c, "220 hello\r\n")
	say(t, c, chat(qwen))
	if b, _ := io.ReadAll(c); len(b) > 0 {
		t.Errorf("got %q", b)
	}
	if r.provider.Received() != 0 {
		t.Error("the provider got the request")
	}
}

// Apps open connections before they need them. Meanwhile, the original destination is called in case it has a greeting.
func TestAClientThatSpeaksLateIsServed(t *testing.T) {
	f := func(name, address string, how func(t *testing.T) (called <-chan struct{})) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, providers)
			r.redirect()
			called := how(t)
			c := app(t, address)
			<-called
			say(t, c, chat(qwen))
			if got := answered(t, bufio.NewReader(c)); got.status != 200 || r.provider.Received() != 1 {
				t.Errorf("got %+v", got)
			}
		})
	}
	after := func(d time.Duration) <-chan struct{} {
		c := make(chan struct{})
		time.AfterFunc(d, func() { close(c) })
		return c
	}
	listening := func(do func(c *net.TCPConn)) func(t *testing.T) <-chan struct{} {
		return func(t *testing.T) <-chan struct{} {
			called := make(chan struct{})
			remote(t, world, func(c *net.TCPConn) {
				do(c)
				close(called)
				if b, _ := io.ReadAll(c); len(b) > 0 {
					t.Errorf("these bytes left in plain text: %q", b)
				}
			})
			return called
		}
	}
	f("to a silent server", world, listening(func(*net.TCPConn) {}))
	f("to a server that has closed", world, listening(func(c *net.TCPConn) { _ = c.Close() }))
	f("to a server that has reset", world, listening(func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }))
	f("to nobody", world, func(*testing.T) <-chan struct{} { return after(400 * time.Millisecond) })
	f("to where packets are lost", nowhere, func(*testing.T) <-chan struct{} { return after(400 * time.Millisecond) })
}

func TestALateForeignRequestReachesItsServer(t *testing.T) {
	for name, leaves := range map[string]bool{"that waited": false, "that had closed": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, providers)
			r.redirect()
			called := make(chan struct{}, 2)
			first := true
			remote(t, world, func(c *net.TCPConn) {
				if first && leaves {
					first = false
					_ = c.Close()
					called <- struct{}{}
					return
				}
				called <- struct{}{}
				_, _ = io.Copy(c, c)
			})
			c := app(t, world)
			<-called
			text := "GET / HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n"
			say(t, c, text)
			hear(t, c, text)
		})
	}
}

func TestAHeadThatComesInPiecesIsJudgedAsAWhole(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	untouched(t, world)
	c := app(t, world)
	text := chat(qwen)
	for _, piece := range []string{text[:1], text[1:9], text[9:30], text[30:55], text[55:]} {
		say(t, c, piece)
		<-time.After(60 * time.Millisecond) // pieces of their own; together longer than the silence that is waited for
	}
	if got := answered(t, bufio.NewReader(c)); got.status != 200 {
		t.Errorf("got %+v", got)
	}
}

func TestHalfAHeadIsForwardedToNobody(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	untouched(t, world)
	c := app(t, world)
	say(t, c, "GET / HTTP/1.1\r\nHost: foreign.exam")
	_ = c.CloseWrite()
	if got := answered(t, bufio.NewReader(c)); got.status != 400 {
		t.Errorf("got %+v", got)
	}
}

func TestAHeadThatIsTooLargeIsRefused(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	untouched(t, world)
	c := app(t, world)
	go func() {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nX-Long: "+strings.Repeat("x", 20<<10)+"\r\nHost: foreign.example.com\r\n\r\n")
	}()
	answered(t, bufio.NewReader(c)).wantError(t, 400, routing.InvalidRequest, "16 KiB")
}

func TestWhatIsAmbiguousIsRefused(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	untouched(t, world)
	f := func(text string, statuses ...int) {
		t.Helper()
		c := app(t, world)
		say(t, c, text)
		got := answered(t, bufio.NewReader(c))
		for _, s := range statuses {
			if got.status == s {
				return
			}
		}
		t.Errorf("%q is answered %+v", text, got)
	}
	f("GET / HTTP/1.1\r\nHost: foreign.example.com\r\nHost: "+qwen+"\r\n\r\n", 400)
	f("GET http://foreign.example.com/ HTTP/1.1\r\nHost: "+qwen+"\r\n\r\n", 421)
	f("GET / HTTP/1.1\r\nHost : "+qwen+"\r\n\r\n", 400)
	f("GET / HTTP/1.1\r\nX: 1\rHost: "+qwen+"\r\n\r\n", 400)
	f("GET / HTTP/1.1\r\nHost: a@"+qwen+"\r\n\r\n", 400)
	f("GET / HTTP/1.1\r\nHost: foreign.example.com\r\n "+qwen+"\r\n\r\n", 400)
	f("CONNECT "+qwen+":443 HTTP/1.1\r\nHost: "+qwen+":443\r\n\r\n", 405)
	if r.provider.Received() != 0 {
		t.Error("the provider got one of them")
	}
}

func TestALaterRequestForAForeignHostIsMisdirected(t *testing.T) {
	for _, second := range []string{
		"GET / HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n",
		"GET http://foreign.example.com/ HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n",
		"CONNECT foreign.example.com:80 HTTP/1.1\r\nHost: foreign.example.com:80\r\n\r\n",
	} {
		t.Run(second[:20], func(t *testing.T) {
			r := newRig(t, providers)
			r.redirect()
			c := app(t, world)
			in := bufio.NewReader(c)
			say(t, c, chat(qwen))
			if got := answered(t, in); got.status != 200 {
				t.Fatalf("got %+v", got)
			}
			say(t, c, second)
			answered(t, in).wantError(t, 421, routing.MisdirectedRequest, "foreign.example.com", "open another")
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("the connection goes on: %v", err)
			}
			if r.provider.Received() != 1 {
				t.Errorf("the provider got %d requests", r.provider.Received())
			}
		})
	}
}

func TestAProviderThatIsDeletedLeavesItsConnections(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	c := app(t, world)
	in := bufio.NewReader(c)
	say(t, c, chat(moonshot))
	if got := answered(t, in); got.status != 200 {
		t.Fatalf("got %+v", got)
	}
	r.apply(strings.Replace(providers, "host: "+moonshot, "host: other.example.com", 1))
	say(t, c, chat(moonshot))
	answered(t, in).wantError(t, 421, routing.MisdirectedRequest, moonshot)
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection goes on: %v", err)
	}
}

func TestADestinationThatRefusesIsSeenAsOne(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n", "\x16\x03\x01\x00\x05hello"} {
		c := app(t, world)
		say(t, c, text)
		wantReset(t, c)
	}
	if r.log.find(`"code"="ConnectFailure"`) == "" {
		t.Error("the log does not say so")
	}
}

func TestADirectConnectionIsAnExplicitOne(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	c := app(t, r.addr)
	in := bufio.NewReader(c)
	// On a redirected connection, the first would be passed on, and the second misdirected.
	say(t, c, "GET / HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n")
	answered(t, in).wantError(t, 421, routing.MisdirectedRequest, "without the sidecar")
	say(t, c, "GET http://foreign.example.com/ HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n")
	if got := answered(t, in); got.status >= 500 || r.provider.Received() != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestNothingPassesBeforeTheConfigurationIsThere(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	untouched(t, world)
	for name, s := range map[string]*snapshot.Snapshot{"none": snapshot.NewStore().Load(), "some": {Table: incomplete(t), Ready: true}} {
		t.Run(name, func(t *testing.T) {
			r.store.Publish(s)
			for _, text := range []string{
				"GET / HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n", "CONNECT foreign.example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
			} {
				c := app(t, world)
				say(t, c, text)
				answered(t, bufio.NewReader(c)).wantError(t, 503, routing.ConfigurationUnread)
			}
			for _, text := range []string{"\x16\x03\x01\x00\x05hello", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "EHLO there\r\n"} {
				c := app(t, world)
				say(t, c, text)
				if b, _ := io.ReadAll(c); len(b) > 0 {
					t.Errorf("%q is answered %q", text, b)
				}
			}
		})
	}
}

func incomplete(t *testing.T) *routing.Table {
	t.Helper()
	table, _ := routing.Compile(routing.Objects{Incomplete: true}, &routing.Workload{Namespace: "default"})
	return table
}

func TestEachSideMayFinishByItself(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	remote(t, world, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c) // until the app has finished
		_, _ = c.Write(b)
	})
	c := app(t, world)
	text := "POST / HTTP/1.0\r\n\r\nto the end"
	say(t, c, text)
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != text {
		t.Errorf("got %q (%v)", b, err)
	}

	_ = c.Close()
	c = app(t, world)
	_ = c.CloseWrite() // without a word
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("got %q (%v)", b, err)
	}
}

func TestAResetPassesBothWays(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	met := make(chan error, 1)
	remote(t, world, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "hello")
		in := bufio.NewReader(c)
		line, err := in.ReadString('\n')
		if line == "you\n" {
			_ = c.SetLinger(0)
			return
		}
		if err == nil {
			_, err = in.ReadByte()
		}
		met <- err
	})
	c := app(t, world)
	hear(t, c, "hello")
	say(t, c, "you\n")
	wantReset(t, c)

	c = app(t, world)
	hear(t, c, "hello")
	say(t, c, "me\n")
	_ = c.SetLinger(0)
	_ = c.Close()
	if err := <-met; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the remote met %v, want a reset", err)
	}
}

func TestAHundredMegabytesPassBothWaysAtOnce(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	const size = 100 << 20
	remote(t, world, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	c := app(t, world)
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	block := bytes.Repeat([]byte("\x00\x01\x02\xff remora "), 8<<10)
	go func() {
		for sent := 0; sent < size; sent += len(block) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
		_ = c.CloseWrite()
	}()
	got, n := make([]byte, len(block)), 0
	for ; ; n += len(block) {
		if _, err := io.ReadFull(c, got); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, block) {
			t.Fatalf("other bytes after %d", n)
		}
	}
	if n < size {
		t.Errorf("%d bytes came back", n)
	}
}

func TestShutdownEndsRedirectedConnections(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	remote(t, world, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	passing := app(t, world)
	text := "GET / HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n"
	say(t, passing, text)
	hear(t, passing, text)
	silent, half := app(t, nowhere), app(t, world)
	say(t, half, text[:9])
	idle := app(t, world)
	in := bufio.NewReader(idle)
	say(t, idle, chat(qwen))
	if got := answered(t, in); got.status != 200 {
		t.Fatalf("got %+v", got)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- r.proxy.Shutdown(ctx) }()
	for _, c := range []net.Conn{silent, half, idle} {
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("got %q", b)
		}
	}
	if ctx.Err() != nil {
		t.Error("connections without a request were waited for")
	}
	say(t, passing, "more")
	hear(t, passing, "more")
	if _, err := io.ReadAll(passing); errors.Is(err, context.DeadlineExceeded) {
		t.Error("it was not cut")
	}
	if err := <-over; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
}
