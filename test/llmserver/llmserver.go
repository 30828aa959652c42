// Package llmserver is a fake LLM provider for tests, the demo and benchmarks. It speaks the OpenAI API under many host
// names behind one TLS listener, is strict where a real provider is strict (an answer of 200 from a lenient fake proves
// nothing about the proxy in front of it), answers the same to the same request, misbehaves on request, and remembers
// what it received to the letter.
//
// It reads and writes HTTP/1.1 by itself: a server that helps would not let a test see header names as they were
// sent, cut an event in its middle, or reset a connection.
package llmserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a server. The zero value listens with TLS on a free port of 127.0.0.1 as localhost, and demands no key.
type Options struct {
	Addr      string // host:port of the TLS listener; default 127.0.0.1:0
	PlainAddr string // host:port of a listener without TLS; default none

	// Hosts are the names (or IP addresses) that the server is. TLS to another name is refused with the alert
	// unrecognized_name, a Host header with another name with 421; "*" is any name. Default: localhost.
	Hosts []string
	// Name is told in the header NameHeader of every answer, where there are several servers. Default: nothing is told.
	Name string
	// Keys holds the API key that a host demands, and demands once and nowhere else. A host without one takes any request.
	Keys map[string]string
	// KeyHeaders names the header in which a host wants its key, and nothing but the key, such as api-key. Default: as a
	// bearer token, in Authorization.
	KeyHeaders map[string]string
	// Revoked tells of the headers of a request whether its key is good no more. Default: all keys stay good.
	Revoked func(http.Header) bool
	// Queries are the parameters of the query that a host demands, each of them once, such as api-version=2024-10-21.
	// Default: none.
	Queries map[string]string

	// Certificate is shown for each host. Default: one for each, of an authority of this server (see CAPEM).
	Certificate *tls.Certificate

	// MutualHosts are those of Hosts that demand a client certificate, of which IssueClient makes the only good ones.
	MutualHosts []string

	ChunkDelay time.Duration // between two events of a stream; default none

	// Told is called with each request when its answer has ended, on the goroutine of its connection. Default: nobody is told.
	Told func(Request)

	// Quiet is for benchmarks: nothing is recorded but the counters, and answers are remembered by request body.
	Quiet bool
}

// NameHeader is the header of an answer that has Options.Name.
const NameHeader = "X-Served-By"

// Server is a running fake provider. Its methods may be called at any time and from any goroutine.
type Server struct {
	options   Options
	hosts     map[string]bool
	demands   map[string]demand // by the names of hosts
	authority *authority
	encrypted net.Listener
	plain     net.Listener // nil without Options.PlainAddr
	tls       *tls.Config
	running   sync.WaitGroup

	record  record
	scripts scripts
	tallies tallies
	cache   cache

	mu     sync.Mutex
	open   map[net.Conn]*atomic.Bool // whether the connection has, or awaits, its first request, or is in the middle of one; nil once closed
	served int

	ending atomic.Bool
}

// Start listens and serves until Close. It fails when an address cannot be listened on.
func Start(options Options) (*Server, error) {
	if options.Addr == "" {
		options.Addr = "127.0.0.1:0"
	}
	if len(options.Hosts) == 0 {
		options.Hosts = []string{"localhost"}
	}
	s := &Server{options: options, hosts: map[string]bool{}, open: map[net.Conn]*atomic.Bool{}}
	for _, h := range options.Hosts {
		s.hosts[hostname(h)] = true
	}
	named := slices.AppendSeq(slices.Clone(options.MutualHosts), maps.Keys(options.Keys))
	named = slices.AppendSeq(slices.AppendSeq(named, maps.Keys(options.KeyHeaders)), maps.Keys(options.Queries))
	for _, h := range named {
		if !s.hosts[hostname(h)] {
			return nil, fmt.Errorf("llmserver: %s demands something, and is none of the hosts %q", h, options.Hosts)
		}
	}
	s.record.init()
	var err error
	if s.demands, err = demandsOf(options); err != nil {
		return nil, err
	}
	if s.authority, err = newAuthority(); err != nil {
		return nil, fmt.Errorf("llmserver: make a certificate authority: %w", err)
	}
	s.tls = s.tlsConfig()
	if s.encrypted, err = net.Listen("tcp", options.Addr); err != nil {
		return nil, fmt.Errorf("llmserver: %w", err)
	}
	if options.PlainAddr != "" {
		if s.plain, err = net.Listen("tcp", options.PlainAddr); err != nil {
			return nil, fmt.Errorf("llmserver: %w", errors.Join(err, s.encrypted.Close()))
		}
		s.running.Go(func() { s.accept(s.plain) })
	}
	s.running.Go(func() { s.accept(s.encrypted) })
	return s, nil
}

// URL is https://, the first of the hosts, and the port: without a slash at the end.
func (s *Server) URL() string {
	_, port, _ := net.SplitHostPort(s.Addr())
	return "https://" + net.JoinHostPort(s.options.Hosts[0], port)
}

// Addr is the address of the TLS listener, IP:port.
func (s *Server) Addr() string { return s.encrypted.Addr().String() }

// PlainAddr is the address of the listener without TLS, IP:port, or empty where there is none.
func (s *Server) PlainAddr() string {
	if s.plain == nil {
		return ""
	}
	return s.plain.Addr().String()
}

// CAPEM is the certificate of the authority that signs for this server, in PEM. Every server has its own.
func (s *Server) CAPEM() []byte { return s.authority.pem }

// WriteCA writes CAPEM to a file, for programs that take a path.
func (s *Server) WriteCA(path string) error { return os.WriteFile(path, s.authority.pem, 0o644) }

// Client trusts the server and connects every host name to it, so that no name has to resolve. It follows no redirect.
// Its idle connections end with Server.Close.
func (s *Server) Client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				to := s.Addr()
				if s.plain != nil && addr == s.PlainAddr() {
					to = addr
				}
				return new(net.Dialer).DialContext(ctx, network, to)
			},
			TLSClientConfig:    &tls.Config{RootCAs: s.authority.pool()},
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Connections counts the connections so far that got as far as HTTP: after a TLS handshake, or without TLS at once.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

// Close stops listening, cuts all connections and returns when the last goroutine has ended.
func (s *Server) Close() {
	s.encrypted.Close()
	if s.plain != nil {
		s.plain.Close()
	}
	s.mu.Lock()
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for conn := range open {
		conn.Close()
	}
	s.running.Wait()
}

func (s *Server) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, say: the client whose turn it is will notice
			time.Sleep(time.Millisecond)
			continue
		}
		s.mu.Lock()
		closed := s.open == nil
		busy := new(atomic.Bool)
		busy.Store(true)
		if !closed {
			s.open[conn] = busy
		}
		s.mu.Unlock()
		if closed {
			conn.Close()
			return
		}
		s.running.Go(func() {
			s.serve(conn, busy, listener == s.encrypted)
			conn.Close()
			s.mu.Lock()
			delete(s.open, conn)
			s.mu.Unlock()
		})
	}
}

// serve speaks HTTP on one connection until either side has had enough.
func (s *Server) serve(conn net.Conn, busy *atomic.Bool, encrypted bool) {
	c := newConnection(s, conn, busy)
	if encrypted {
		if err := c.handshake(s.tls); err != nil {
			return
		}
	}
	s.mu.Lock()
	s.served++
	c.number = s.served
	s.mu.Unlock()
	c.serve()
}
