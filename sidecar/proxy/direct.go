package proxy

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// directTimeout is how long a client that is refused anyway may take for its request line.
const directTimeout = 5 * time.Second

// isDirect tells whether a connection is not to be served because it was not turned here: its client knows the listener's
// address, as other containers of the pod do and whoever comes by kubectl port-forward.
func (p *Proxy) isDirect(to netip.AddrPort, redirected bool) bool {
	return p.redirectedOnly && (!redirected || p.listensOn(to))
}

// turnAway refuses a connection that was made to the listener itself. A request of HTTP/1 hears why; its request line is all
// that is read of it.
func (p *Proxy) turnAway(client *net.TCPConn) {
	if !p.redirects.hold() {
		_ = client.Close()
		return
	}
	go func() {
		defer p.redirects.release()
		c, err := p.departures.watch(client)
		if err != nil {
			return
		}
		defer c.Close()
		f := fail(routing.DirectConnection, "the sidecar takes no calls on its own port: call the provider's own name, in plain HTTP on port 80, and the connection is brought here")
		p.metrics.Failures(string(f.code)).Inc()
		p.logCaller("connection refused", c, f.code, routing.Ref{}, "code", f.code, "message", f.message)
		_ = c.SetReadDeadline(time.Now().Add(directTimeout))
		if !beginsRequest(bufio.NewReader(c)) {
			return
		}
		c.refuse(f)
	}()
}

// beginsRequest tells whether a request line of HTTP/1 comes.
func beginsRequest(in *bufio.Reader) bool {
	first, err := in.Peek(1)
	if err != nil || !isToken(first[0]) {
		return false // without waiting for a line that may never end
	}
	line, err := in.ReadSlice('\n')
	if err != nil {
		return false
	}
	words := bytes.Fields(line)
	return len(words) == 3 && bytes.HasPrefix(words[2], []byte("HTTP/1."))
}
