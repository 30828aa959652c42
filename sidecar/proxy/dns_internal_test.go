package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/routing"
)

// nameServer is the DNS server of the tests' namespace. A name that it does not know does not exist.
type nameServer struct {
	mu     sync.Mutex
	names  map[string][]string // addresses by names with their last dot
	code   dnsmessage.RCode    // where it is not success, that of every answer
	silent bool
	asked  []string
}

func newNameServer(t *testing.T, names map[string][]string) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:53") // where the namespace's resolv.conf points
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{names: names}
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := s.answer(buf[:n]); answer != nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		running.Wait()
	})
	return s
}

func (s *nameServer) answer(query []byte) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := m.Questions[0]
	name := q.Name.String()
	s.asked = append(s.asked, name)
	if s.silent {
		return nil
	}
	m.Response, m.RecursionAvailable, m.RCode, m.Additionals = true, true, s.code, nil
	addrs, known := s.names[name]
	if s.code == dnsmessage.RCodeSuccess && !known {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		addr := netip.MustParseAddr(a)
		header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
		switch {
		case s.code != dnsmessage.RCodeSuccess:
		case addr.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
		case addr.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

func (s *nameServer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// questions gives the names that were asked for since it was last called, each once, in their order.
func (s *nameServer) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return slices.Compact(asked)
}

// listening takes connections at an address.
func listening(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

var patient = routing.TrafficPolicy{MaxConnections: 10, MaxPending: 10, ConnectTimeout: 20 * time.Second}

// dialTo makes a connection, and tells where it ended.
func dialTo(p *pool, limits routing.TrafficPolicy) (string, *failure) {
	c, f := p.get(&clientConn{}, true, time.Time{}, &limits)
	if f != nil {
		return "", f
	}
	defer c.discard()
	return c.raw.RemoteAddr().(*net.TCPAddr).IP.String(), nil
}

func named(host string, port net.Listener, log logr.Logger) *pool {
	return newPool(routing.Endpoint{Host: host, Port: uint16(port.Addr().(*net.TCPAddr).Port)}, &upstreams{log: log, trusted: &authorities{}})
}

func TestAHostIsReachedByTheAddressThatAnswersInWhicheverFamily(t *testing.T) {
	newNameServer(t, map[string][]string{
		"twice.example.com.": {"::1", "127.0.0.1"},
		"many.example.com.":  {"127.0.0.21", "127.0.0.22", "127.0.0.23", "127.0.0.1", "::1"},
		"old.example.com.":   {"127.0.0.1"},
		"new.example.com.":   {"::1"},
	})
	for _, c := range []struct{ host, at string }{
		{"twice.example.com", "127.0.0.1"}, {"twice.example.com", "::1"},
		{"many.example.com", "127.0.0.1"}, {"many.example.com", "127.0.0.23"}, {"many.example.com", "::1"},
		{"old.example.com", "127.0.0.1"}, {"new.example.com", "::1"}, {"127.0.0.1", "127.0.0.1"}, {"::1", "::1"},
	} {
		l := listening(t, net.JoinHostPort(c.at, "0"))
		if got, f := dialTo(named(c.host, l, logr.Discard()), patient); f != nil || got != c.at {
			t.Errorf("%s, which listens at %s, is reached at %q: %v", c.host, c.at, got, f)
		}
		_ = l.Close()
	}
	l := listening(t, "127.0.0.1:0")
	_ = l.Close()
	if _, f := dialTo(named("many.example.com", l, logr.Discard()), patient); f == nil || f.code != routing.ConnectFailure || isTimeout(f.cause) || f.cause == nil {
		t.Errorf("where nobody listens: %v", f)
	}
}

// An address that does not answer at all must not take the time of those that do. No listener's queue is long enough.
func TestAnAddressThatSaysNothingDoesNotHoldUpTheNext(t *testing.T) {
	newNameServer(t, map[string][]string{"half.example.com.": {"127.0.0.31", "127.0.0.32"}})
	for _, dead := range []string{"127.0.0.31", "127.0.0.32"} {
		l := listening(t, "127.0.0.31:0")
		other, err := net.Listen("tcp", "127.0.0.32:"+fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
		if err != nil {
			t.Fatal(err)
		}
		full := l
		if dead == "127.0.0.32" {
			full = other
		}
		fill(t, full)
		got, f := dialTo(named("half.example.com", l, logr.Discard()), patient)
		if f != nil || got == dead {
			t.Errorf("with %s silent, %q was reached: %v", dead, got, f)
		}
		_, _ = l.Close(), other.Close()
	}
}

// fill makes connections that nobody accepts, until the kernel answers no more.
func fill(t *testing.T, l net.Listener) {
	t.Helper()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Listen(int(fd), 0) }) // the shortest queue that there is
	for {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 200*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

func TestEachConnectionAsksWhereTheHostIs(t *testing.T) {
	s := newNameServer(t, map[string][]string{"moves.example.com.": {"127.0.0.1"}})
	l := listening(t, ":0")
	p := named("moves.example.com", l, logr.Discard())
	for _, at := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		s.set(func() { s.names["moves.example.com."] = []string{at} })
		if got, f := dialTo(p, patient); f != nil || got != at {
			t.Errorf("at %s, it is reached at %q: %v", at, got, f)
		}
	}
}

func TestWhileDNSFailsTheAddressesThatWorkedLastAreUsed(t *testing.T) {
	for name, fails := range map[string]func(*nameServer){
		"it cannot tell": func(s *nameServer) { s.code = dnsmessage.RCodeServerFailure },
		"it refuses":     func(s *nameServer) { s.code = dnsmessage.RCodeRefused },
		"it is silent":   func(s *nameServer) { s.silent = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newNameServer(t, map[string][]string{"known.example.com.": {"127.0.0.4"}})
			l := listening(t, "127.0.0.4:0")
			var mu sync.Mutex
			var log []string
			p := named("known.example.com", l, funcr.New(func(_, args string) {
				mu.Lock()
				defer mu.Unlock()
				log = append(log, args)
			}, funcr.Options{}))
			s.set(func() { fails(s) })
			if _, f := dialTo(p, patient); f == nil || !strings.Contains(f.message, "check that the DNS server answers") {
				t.Errorf("while no address is known: %v", f)
			}
			s.set(func() { s.code, s.silent = dnsmessage.RCodeSuccess, false })
			if _, f := dialTo(p, patient); f != nil {
				t.Fatal(f)
			}
			s.set(func() { fails(s) })
			s.questions()
			for range 3 {
				if got, f := dialTo(p, patient); f != nil || got != "127.0.0.4" {
					t.Errorf("%q %v", got, f)
				}
			}
			if q := s.questions(); len(q) == 0 {
				t.Error("nothing was asked")
			}
			p.names.mu.Lock()
			p.names.failed = time.Now().Add(-lookupPause)
			p.names.mu.Unlock()
			s.set(func() {
				s.code, s.silent, s.names["known.example.com."] = dnsmessage.RCodeSuccess, false, []string{"127.0.0.5"}
			})
			if _, f := dialTo(p, patient); f == nil {
				t.Error("what DNS says is not followed once it answers again")
			}
			p.names.mu.Lock()
			p.names.asked = time.Now().Add(-staleAddresses - time.Second)
			p.names.mu.Unlock()
			s.set(func() { fails(s) })
			if _, f := dialTo(p, patient); f == nil {
				t.Error("addresses count for ever")
			}
			mu.Lock()
			defer mu.Unlock()
			if len(log) != 2 || !strings.Contains(log[0], "DNS fails") || !strings.Contains(log[1], "DNS answers again") {
				t.Errorf("the log says %q", log)
			}
		})
	}
}

func TestANameThatIsGoneIsGone(t *testing.T) {
	s := newNameServer(t, map[string][]string{"gone.example.com.": {"127.0.0.4"}})
	p := named("gone.example.com", listening(t, "127.0.0.4:0"), logr.Discard())
	if _, f := dialTo(p, patient); f != nil {
		t.Fatal(f)
	}
	s.set(func() { clear(s.names) })
	if _, f := dialTo(p, patient); f == nil || !strings.Contains(f.message, "does not resolve") {
		t.Errorf("%v", f)
	}
}

func TestADepartureEndsALookup(t *testing.T) {
	s := newNameServer(t, nil)
	s.set(func() { s.silent = true })
	client := &clientConn{}
	got := make(chan *failure)
	go func() {
		_, f := named("silent.example.com", listening(t, "127.0.0.4:0"), logr.Discard()).get(client, false, time.Time{}, &patient)
		got <- f
	}()
	for len(s.questions()) == 0 {
		<-time.After(time.Millisecond)
	}
	client.depart()
	if f := <-got; f == nil || f.code != routing.ClientGone {
		t.Errorf("%v", f)
	}
}

// In a pod, resolv.conf has search domains, and says that a name with less than five dots is looked for in those first.
func TestANameIsNotLookedForWhereItCannotBe(t *testing.T) {
	const outside = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"
	if is, err := os.ReadFile("/etc/resolv.conf"); err != nil || string(is) != outside {
		t.Fatalf("this is not the file of a namespace: %s %v", is, err)
	}
	write := func(text string) {
		if err := os.WriteFile("/etc/resolv.conf", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := newNameServer(t, map[string][]string{
		"api.openai.com.":                 {"127.0.0.4"},
		"llm.team.svc.cluster.local.":     {"127.0.0.5"},
		"p-0.llm.team.svc.cluster.local.": {"127.0.0.6"},
		"llm.pods.svc.cluster.local.":     {"127.0.0.7"},
		"llm.team.":                       {"127.0.0.66"}, // somebody else's
	})
	// Go's resolver looks at the file every five seconds.
	await := func(want bool) {
		for end := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
			_, _ = resolver.LookupNetIP(t.Context(), "ip", "settle")
			if slices.Contains(s.questions(), "settle.svc.cluster.local.") == want {
				return
			}
			if time.Now().After(end) {
				t.Fatal("resolv.conf is not read again")
			}
		}
	}
	write("search pods.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n" + outside)
	defer func() {
		write(outside)
		await(false)
	}()
	await(true)
	const inPods, inSvc, inCluster = ".pods.svc.cluster.local.", ".svc.cluster.local.", ".cluster.local."
	for _, c := range []struct {
		host      string
		encrypted bool
		at        string
		asked     []string
	}{
		{"api.openai.com", true, "127.0.0.4", []string{"api.openai.com."}},
		{"api.openai.com.", true, "127.0.0.4", []string{"api.openai.com."}},
		{"api.openai.com", false, "127.0.0.4", []string{"api.openai.com" + inPods, "api.openai.com" + inSvc, "api.openai.com" + inCluster, "api.openai.com."}},
		{"llm.team.svc.cluster.local", false, "127.0.0.5", []string{"llm.team.svc.cluster.local."}},
		{"llm.team.svc", true, "127.0.0.5", []string{"llm.team.svc" + inPods, "llm.team.svc" + inSvc, "llm.team.svc" + inCluster}},
		{"llm.team.svc", false, "127.0.0.5", []string{"llm.team.svc" + inPods, "llm.team.svc" + inSvc, "llm.team.svc" + inCluster}},
		{"llm.team", true, "127.0.0.5", []string{"llm.team" + inPods, "llm.team" + inSvc}},
		{"llm.team", false, "127.0.0.5", []string{"llm.team" + inPods, "llm.team" + inSvc}},
		{"llm", true, "127.0.0.7", []string{"llm" + inPods}},
		{"p-0.llm.team", false, "127.0.0.6", []string{"p-0.llm.team" + inPods, "p-0.llm.team" + inSvc}},
		{"p-0.llm.team", true, "127.0.0.6", []string{"p-0.llm.team.", "p-0.llm.team" + inPods, "p-0.llm.team" + inSvc}},
	} {
		s.questions()
		l := &lookup{host: c.host, queries: queries(c.host, c.encrypted)}
		got, _, err := l.find(context.Background())
		if want := []netip.Addr{netip.MustParseAddr(c.at)}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%s is at %v: %v", c.host, got, err)
		}
		if asked := s.questions(); !slices.Equal(asked, c.asked) {
			t.Errorf("for %s (TLS %t), %v were asked for, want %v", c.host, c.encrypted, asked, c.asked)
		}
	}
	l := &lookup{host: "nowhere.example.com", queries: queries("nowhere.example.com", true)}
	var dns *net.DNSError
	if _, _, err := l.find(context.Background()); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("what does not exist: %v", err)
	}
}
