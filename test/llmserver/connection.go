package llmserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"time"
)

const (
	handshakeLimit = 10 * time.Second
	headLimit      = 1 << 20 // bytes of request line and headers
)

// connection is one client, served by one goroutine; a second one watches for its departure while an answer is given.
type connection struct {
	server *Server
	number int
	tcp    net.Conn
	wire   net.Conn // what HTTP is spoken over: tcp, or TLS over it
	sni    string
	client string // the name in its certificate
	tls    bool
	busy   *atomic.Bool // there is a request, or may be one
	reader *bufio.Reader

	// Kept between requests to save allocations.
	head       []byte
	headReader *bufio.Reader
	body       []byte
	out        []byte
}

func newConnection(s *Server, tcp net.Conn, busy *atomic.Bool) *connection {
	return &connection{
		server: s, tcp: tcp, wire: tcp, busy: busy,
		reader:     bufio.NewReaderSize(tcp, 16<<10),
		headReader: bufio.NewReader(nil),
	}
}

func (c *connection) handshake(config *tls.Config) error {
	wire := tls.Server(c.tcp, config)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeLimit)
	defer cancel()
	if err := wire.HandshakeContext(ctx); err != nil {
		return err
	}
	state := wire.ConnectionState()
	c.wire, c.tls, c.sni = wire, true, state.ServerName
	if len(state.PeerCertificates) > 0 {
		c.client = state.PeerCertificates[0].Subject.CommonName
	}
	c.reader.Reset(wire)
	return nil
}

func (c *connection) serve() {
	defer c.wire.Close()
	for {
		request, close, err := c.receive()
		if err != nil {
			c.refuse(request, err)
			return
		}
		c.server.begin(request)
		w := c.watch()
		o := c.answer(request, w, close || c.server.ending.Load())
		c.server.end(request, o)
		c.busy.Store(false)
		if !o.reusable || close || c.server.ending.Load() || !<-w.more {
			return
		}
		c.busy.Store(true)
	}
}

// refuse answers what is no proper request, if it was enough to deserve an answer, and records what there is of it.
func (c *connection) refuse(request *Request, err error) {
	if request != nil {
		c.server.begin(request)
	}
	o := outcome{aborted: true}
	if bad := (*badRequest)(nil); errors.As(err, &bad) {
		o = c.send(plan{answer: failure(http.StatusBadRequest, bad.Error(), "bad_request"), close: true}, nil)
	}
	if request != nil {
		c.server.end(request, o)
	}
}

// badRequest is something that is not an HTTP request.
type badRequest struct{ error }

// receive reads one request. With an error, the request is what was received of it, nil if less than its headers.
func (c *connection) receive() (request *Request, close bool, err error) {
	if err := c.readHead(); err != nil {
		return nil, false, err
	}
	c.headReader.Reset(bytes.NewReader(c.head))
	// This parses the head only: it knows nothing of the body behind it.
	parsed, err := http.ReadRequest(c.headReader)
	if err != nil {
		return nil, false, &badRequest{err}
	}
	request = &Request{
		SNI: c.sni, Client: c.client, TLS: c.tls, Connection: c.number, RemoteAddr: c.tcp.RemoteAddr().String(),
		Time: time.Now(), Host: parsed.Host, Method: parsed.Method, Proto: parsed.Proto, Header: parsed.Header,
	}
	request.Path, request.RawQuery, _ = strings.Cut(parsed.RequestURI, "?")
	if !c.server.options.Quiet {
		lines := strings.Split(strings.TrimRight(string(c.head), "\r\n"), "\n")
		for _, line := range lines[1:] {
			request.RawHeader = append(request.RawHeader, strings.TrimSuffix(line, "\r"))
		}
	}
	if err := framing(c.head); err != nil {
		return request, false, &badRequest{err}
	}
	if strings.EqualFold(parsed.Header.Get("Expect"), "100-continue") {
		if _, err := io.WriteString(c.wire, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return request, false, err
		}
	}
	err = c.readBody(request, parsed)
	request.Time = time.Now()
	return request, parsed.Close, err
}

// framing refuses what a strict server refuses, because two servers could disagree on where such a request ends.
func framing(head []byte) error {
	var lengths, encodings, hosts int
	for line := range bytes.Lines(head) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			lengths++
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			encodings++
		case bytes.EqualFold(name, []byte("Host")):
			hosts++
		}
	}
	if lengths+encodings > 1 {
		return fmt.Errorf("%d Content-Length and %d Transfer-Encoding headers", lengths, encodings)
	}
	if hosts > 1 {
		return fmt.Errorf("%d Host headers", hosts)
	}
	return nil
}

// readHead reads up to and with the empty line into c.head.
func (c *connection) readHead() error {
	c.head = c.head[:0]
	lineStart := 0
	for {
		part, err := c.reader.ReadSlice('\n')
		c.head = append(c.head, part...)
		switch {
		case len(c.head) > headLimit:
			return &badRequest{errors.New("the headers are too long")}
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return err
		}
		line := bytes.TrimRight(c.head[lineStart:], "\r\n")
		switch {
		case len(line) == 0 && lineStart == 0:
			c.head = c.head[:0] // an empty line before a request is allowed
		case len(line) == 0:
			return nil
		default:
			lineStart = len(c.head)
		}
	}
}

func (c *connection) readBody(request *Request, parsed *http.Request) error {
	if !c.server.options.Quiet {
		c.body = nil // it now belongs to the request before
	}
	chunked := len(parsed.TransferEncoding) > 0
	from := io.LimitReader(c.reader, max(parsed.ContentLength, 0))
	if chunked {
		from = httputil.NewChunkedReader(c.reader)
	}
	body := bytes.NewBuffer(c.body[:0])
	var n int64
	var err error
	if boundary, ok := formBoundary(parsed.Header); ok {
		request.Upload, n, err = readUpload(from, boundary, body)
	} else {
		n, err = body.ReadFrom(from)
	}
	c.body = body.Bytes()
	request.Body = c.body
	switch {
	case err != nil:
		return err
	case chunked:
		return c.skipTrailers()
	case n < parsed.ContentLength:
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (c *connection) skipTrailers() error {
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return nil
		}
	}
}

// watcher tells what the client does while, and after, it is answered.
type watcher struct {
	gone chan struct{} // closed when the client has left, or has closed its side only: it will say nothing more
	more chan bool     // whether another request begins
}

func (c *connection) watch() *watcher {
	w := &watcher{gone: make(chan struct{}), more: make(chan bool, 1)}
	c.server.running.Go(func() {
		_, err := c.reader.Peek(1)
		if err != nil {
			close(w.gone)
		}
		w.more <- err == nil
	})
	return w
}

// pause waits and says whether the client is still there.
func (w *watcher) pause(d time.Duration) bool {
	if d <= 0 {
		select {
		case <-w.gone:
			return false
		default:
			return true
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.gone:
		return false
	case <-timer.C:
		return true
	}
}
