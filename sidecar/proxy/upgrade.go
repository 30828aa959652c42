package proxy

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // what RFC 6455 asks for: it is no secret
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

const (
	headerProtocols = "Sec-Websocket-Protocol" // as the server normalises it
	headerAccept    = "Sec-Websocket-Accept"
	headerNonce     = "Sec-Websocket-Key"
	websocket       = "websocket"
	// partingTime is how long a side may be silent once the other has finished.
	partingTime = 30 * time.Second
)

// keyProtocol begins the WebSocket protocol in which browsers, which cannot set headers, send a key to OpenAI.
var keyProtocol = []byte("openai-insecure-api-key.")

// asksForWebSocket tells whether a request is to become a WebSocket. Other upgrades are none of ours: HTTP lets
// a server go on as if it had not been asked, and some clients ask for h2c each time.
func asksForWebSocket(h *fasthttp.RequestHeader) bool {
	return h.IsGet() && h.IsHTTP11() && nominated(h.Peek(fasthttp.HeaderUpgrade), []byte(websocket)) && nominated(connectionOf(h), []byte("upgrade"))
}

// upgrade finds out whether the connection is to become a WebSocket, and whether that can be.
func (c *call) upgrade(body io.Reader) *failure {
	h := &c.ctx.Request.Header
	c.websocket = asksForWebSocket(h)
	switch operated := c.operation != nil && !c.plain; {
	case operated && c.operation.Upgrade && !c.websocket:
		return fail(routing.UpgradeRequired, "%s is a WebSocket: connect with one (ws://, Upgrade: websocket)", c.path)
	case !c.websocket:
		return nil
	case operated && !c.operation.Upgrade:
		return fail(routing.InvalidRequest, "%s is no WebSocket: call it without Upgrade, or connect to /v1/realtime", c.path)
	case body != nil && h.ContentLength() != 0:
		return fail(routing.InvalidRequest, "the request for a WebSocket has a body: leave it out")
	}
	return nil
}

// queryModel gives the model that a query names. A query that names two is not one to route by: providers could
// see the other.
func queryModel(query []byte) ([]byte, *failure) {
	values, err := url.ParseQuery(string(query))
	switch all := values["model"]; {
	case err != nil:
		return nil, fail(routing.InvalidRequest, "the query is not name=value&…: correct the client")
	case len(all) > 1:
		return nil, fail(routing.DuplicateKey, `the query has "model" twice: send it once`)
	case len(all) == 1:
		return []byte(all[0]), nil
	}
	return nil, nil
}

// appendProtocols adds the WebSocket protocols that the app offers, without those that are a key.
func appendProtocols(dst, name, value []byte) []byte {
	kept := 0
	for token := range bytes.SplitSeq(value, []byte{','}) {
		token = bytes.TrimSpace(token)
		if len(token) >= len(keyProtocol) && bytes.EqualFold(token[:len(keyProtocol)], keyProtocol) {
			continue
		}
		if kept++; kept == 1 {
			dst = append(append(dst, name...), ": "...)
		} else {
			dst = append(dst, ", "...)
		}
		dst = append(dst, token...)
	}
	if kept > 0 {
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// socket joins an app and a provider that have become a WebSocket.
type socket struct {
	proxy  *Proxy
	client *clientConn
	conn   *upConn
	idle   time.Duration // 0: no limit
	host   string
	mask   mask            // of the key that was sent
	target *routing.Target // nil: a host that no configuration names
	key    *namedKey       // nil: the target has none
	trial  trial           // which has shown what there is to show, and ends with the connection

	touched atomic.Int64 // when something came last, in Unix nanoseconds
	parting atomic.Bool  // one side has finished

	rec         *recording                   // nil: nobody wants to know
	why         atomic.Pointer[routing.Code] // it ends
	told, heard int64                        // bytes that the app has said, and the provider
}

// join makes a WebSocket of the app's connection and the provider's, which has answered 101.
func (c *call) join(conn *upConn) *failure {
	h := &c.ctx.Response.Header
	nonce := c.ctx.Request.Header.Peek(headerNonce)
	sum := sha1.Sum(append(bytes.Clone(nonce), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...)) //nolint:gosec // see above
	proof := base64.StdEncoding.EncodeToString(sum[:])
	if string(h.Peek(headerAccept)) != proof || !nominated(h.Peek(fasthttp.HeaderUpgrade), []byte(websocket)) {
		c.client.attach(nil)
		conn.discard()
		return fail(routing.UpstreamInvalid, "%s switched protocols, but not to the WebSocket that was asked for: check that spec.path leads to the provider's API", conn.pool.address)
	}
	c.client.attach(nil)
	if !c.proxy.redirects.hold() {
		conn.discard()
		return fail(routing.ShuttingDown, "the sidecar is ending: connect again")
	}
	strip(h)
	h.Set(fasthttp.HeaderConnection, "Upgrade")
	h.Set(fasthttp.HeaderUpgrade, websocket)
	conn.endBy(time.Time{})
	s := &socket{proxy: c.proxy, client: c.client, conn: conn, host: conn.pool.address, mask: c.mask, target: c.target, key: c.key.of}
	if c.rule != nil {
		s.idle = c.rule.Timeouts.Idle
	}
	c.stick()
	c.proxy.ejections.completed(&c.trial)
	s.trial, c.trial = c.trial, trial{}
	s.rec = c.handOver()
	c.hijack(bytes.Clone(h.Header()), s.run)
	return nil
}

// hijack takes the app's connection away from the server. head is what is answered first; early is what the app has sent
// already. When f returns, the connection is closed.
func (c *call) hijack(head []byte, f func(early []byte)) {
	client := c.client
	client.hijacks.Add(1)
	c.ctx.HijackSetNoResponse(true)
	c.ctx.Hijack(func(hijacked net.Conn) {
		defer client.hijacks.Done()
		early := buffered(hijacked)
		_ = client.SetReadDeadline(time.Time{})
		if _, err := client.Write(head); err != nil {
			early = nil // f will notice
		}
		f(early)
	})
}

// buffered gives what the server has read of the connection beyond the request.
func buffered(hijacked net.Conn) []byte {
	_ = hijacked.SetReadDeadline(time.Unix(1, 0)) // what has not been read is left where it is
	early, _ := io.ReadAll(hijacked)
	return early
}

// run passes what either side sends to the other, until both have finished or one is gone.
func (s *socket) run(early []byte) {
	defer s.proxy.redirects.release()
	defer s.proxy.ejections.abandon(&s.trial)
	defer s.conn.discard()
	s.touch()
	if s.idle > 0 {
		limit := s.watch(s.idle)
		defer limit.Stop()
	}
	var both sync.WaitGroup
	both.Go(func() { s.down() })
	s.up(early)
	both.Wait()
	if s.conn.revoked.Load() {
		f := keyRevoked(s.key)
		s.proxy.metrics.Failures(string(f.code)).Inc()
		s.proxy.log.Info("answer cut", append(origin(s.target, s.key), "code", f.code, "upstream", s.host, "message", f.message)...)
	}
	s.concluded()
	s.proxy.answered(s.target, s.key, s.conn, fasthttp.StatusSwitchingProtocols, !s.conn.aborted.Load())
}

func (s *socket) touch() { s.touched.Store(time.Now().UnixNano()) }

// watch ends the WebSocket when neither side has sent anything for as long as that.
func (s *socket) watch(idle time.Duration) *time.Timer {
	var t *time.Timer
	var mu sync.Mutex // until t is there
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(idle, func() {
		mu.Lock()
		defer mu.Unlock()
		left := idle - time.Since(time.Unix(0, s.touched.Load()))
		if left > 0 {
			t.Reset(left)
			return
		}
		s.blame(routing.DeadlineExceeded)
		s.proxy.metrics.Failures(string(routing.IdleTimeout)).Inc()
		s.proxy.log.Info("answer cut", "code", routing.IdleTimeout, "upstream", s.host, "message", "nothing was said on a WebSocket for too long (timeouts.idle)")
		s.end()
	})
	return t
}

// end ends both connections at once.
func (s *socket) end() {
	if s.conn.revoked.Load() {
		_ = s.client.SetLinger(0) // the app is to see that it did not end as it should
	}
	s.conn.abort()
	_ = s.client.TCPConn.Close()
}

// part passes the end of one side on to the other, which may still finish what it says.
func (s *socket) part(to closeWriter) {
	if to.CloseWrite() != nil || s.parting.Swap(true) {
		s.blame("")
		s.end()
		return
	}
	until := time.Now().Add(partingTime)
	_, _ = s.client.SetReadDeadline(until), s.conn.SetReadDeadline(until)
}

type closeWriter interface{ CloseWrite() error }

// up passes on what the app says.
func (s *socket) up(early []byte) {
	if len(early) > 0 && !s.tell(early) {
		return
	}
	for {
		// Without anything to read, there is no buffer, but where some may be in TLS already.
		n, err := 1, error(nil)
		if !s.client.public.secured() {
			n, err = await(s.client.TCPConn)
		}
		if n == 0 && err == nil {
			s.part(s.conn.Conn.(closeWriter)) // TCP and TLS both are
			return
		}
		if err == nil {
			piece := pieces.Get().(*[pieceSize]byte)
			n, err = s.client.read(piece[:])
			told := n == 0 || s.tell(piece[:n])
			pieces.Put(piece)
			if !told {
				return
			}
			if errors.Is(err, io.EOF) {
				s.part(s.conn.Conn.(closeWriter))
				return
			}
		}
		if err != nil {
			s.blame(routing.ClientGone)
			s.end()
			return
		}
	}
}

func (s *socket) tell(b []byte) bool {
	s.touch()
	s.told += int64(len(b))
	if _, err := s.conn.Write(b); err != nil {
		s.blame(routing.UpstreamReset)
		s.end()
		return false
	}
	return true
}

// down passes on what the provider says.
func (s *socket) down() {
	in := s.conn.br
	var passing frames
	for held := 0; ; { // bytes that may begin the key
		if _, err := in.Peek(held + 1); err != nil {
			if b, _ := in.Peek(held); errors.Is(err, io.EOF) {
				_, _ = s.client.Write(b) // they do not
				s.part(s.client)
				return
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
				_ = s.client.SetLinger(0) // the app is to see that it did not end as it should
			}
			s.blame(routing.UpstreamReset)
			s.end()
			return
		}
		s.touch()
		b, _ := in.Peek(in.Buffered())
		s.mask.over(b)
		if held = s.mask.open(b); held == in.Size() || passing.after(b) {
			held = 0
		}
		b = b[:len(b)-held]
		s.heard += int64(len(b))
		if _, err := s.client.Write(b); err != nil {
			s.blame(routing.ClientGone)
			s.end()
			return
		}
		passing.end(b)
		_, _ = in.Discard(len(b))
	}
}
