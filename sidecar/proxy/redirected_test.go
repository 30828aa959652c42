package proxy_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

func TestARedirectedRequestForAnOwnedHostIsServed(t *testing.T) {
	for _, address := range []string{"", world6, nowhere} {
		t.Run(address, func(t *testing.T) {
			r := newRig(t, providers)
			r.redirect()
			if address == "" {
				address = r.world
			}
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
			if address == "" {
				address = r.world
			}
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
	f("HTTP", "", "POST /x?y HTTP/1.1\r\nhost:  foreign.example.com \r\nX-odd:  1\r\nContent-Length: 4\r\n\r\nbody", answer)
	f("HTTP over IPv6", world6, "GET / HTTP/1.1\r\nHost: [2001:db8::80]\r\n\r\n", answer)
	f("HTTP/1.0 without a host", "", "GET / HTTP/1.0\r\n\r\n", answer)
	f("HTTP/0.9", "", "GET /\r\n", "text")
	f("TLS", "", "\x16\x03\x01\x00\x05hello", "\x16\x03\x03\x00\x02ok")
	f("HTTP/2 with prior knowledge", "", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	f("CONNECT", "", "CONNECT foreign.example.com:443 HTTP/1.1\r\nHost: foreign.example.com:443\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n")
	f("lines", "", "EHLO there\r\n", "250 ok\r\n")
	f("zeros", "", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "N")
}

func TestAServerThatSpeaksFirstIsHeard(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	remote(t, r.world, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "SSH-2.0-server\r\n")
		_, _ = io.Copy(c, c)
	})
	c := app(t, r.world)
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
	remote(t, r.world, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 hello\r\n")
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("these bytes left in plain text: %q", b)
		}
	})
	c := app(t, r.world)
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
	f := func(name string, how func(t *testing.T, r *rig) (called <-chan struct{})) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, providers)
			r.redirect()
			called := how(t, r)
			c := app(t, r.world)
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
	listening := func(do func(c *net.TCPConn)) func(t *testing.T, r *rig) <-chan struct{} {
		return func(t *testing.T, r *rig) <-chan struct{} {
			t.Helper()
			called := make(chan struct{})
			remote(t, r.world, func(c *net.TCPConn) {
				do(c)
				close(called)
				if b, _ := io.ReadAll(c); len(b) > 0 {
					t.Errorf("these bytes left in plain text: %q", b)
				}
			})
			return called
		}
	}
	f("to a silent server", listening(func(*net.TCPConn) {}))
	f("to a server that has closed", listening(func(c *net.TCPConn) { _ = c.Close() }))
	f("to a server that has reset", listening(func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }))
	f("to nobody", func(*testing.T, *rig) <-chan struct{} { return after(400 * time.Millisecond) })
	f("to where packets are lost", func(_ *testing.T, r *rig) <-chan struct{} {
		r.world = nowhere
		return after(400 * time.Millisecond)
	})
}

func TestALateForeignRequestReachesItsServer(t *testing.T) {
	for name, leaves := range map[string]bool{"that waited": false, "that had closed": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, providers)
			r.redirect()
			called := make(chan struct{}, 2)
			var first atomic.Bool
			first.Store(true)
			remote(t, r.world, func(c *net.TCPConn) {
				if first.Swap(false) && leaves {
					_ = c.Close()
					called <- struct{}{}
					return
				}
				called <- struct{}{}
				_, _ = io.Copy(c, c)
			})
			c := app(t, r.world)
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
	untouched(t, r.world)
	c := app(t, r.world)
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
	untouched(t, r.world)
	c := app(t, r.world)
	say(t, c, "GET / HTTP/1.1\r\nHost: foreign.exam")
	_ = c.CloseWrite()
	if got := answered(t, bufio.NewReader(c)); got.status != 400 {
		t.Errorf("got %+v", got)
	}
}

func TestAHeadThatIsTooLargeIsRefused(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	untouched(t, r.world)
	c := app(t, r.world)
	go func() {
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nX-Long: "+strings.Repeat("x", 20<<10)+"\r\nHost: foreign.example.com\r\n\r\n")
	}()
	answered(t, bufio.NewReader(c)).wantError(t, 400, routing.InvalidRequest, "16 KiB")
}

func TestWhatIsAmbiguousIsRefused(t *testing.T) {
	r := newRig(t, providers)
	r.redirect()
	untouched(t, r.world)
	f := func(text string, statuses ...int) {
		t.Helper()
		c := app(t, r.world)
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
			c := app(t, r.world)
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
	c := app(t, r.world)
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
		c := app(t, r.world)
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
	c := app(t, "127.0.0.1:"+redirectPort)
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
	untouched(t, r.world)
	for name, s := range map[string]*snapshot.Snapshot{"none": snapshot.NewStore().Load(), "some": {Table: incomplete(t), Ready: true}} {
		t.Run(name, func(t *testing.T) {
			r.store.Publish(s)
			for _, text := range []string{
				"GET / HTTP/1.1\r\nHost: foreign.example.com\r\n\r\n", "CONNECT foreign.example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
			} {
				c := app(t, r.world)
				say(t, c, text)
				answered(t, bufio.NewReader(c)).wantError(t, 503, routing.ConfigurationUnread)
			}
			for _, text := range []string{"\x16\x03\x01\x00\x05hello", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "EHLO there\r\n"} {
				c := app(t, r.world)
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
