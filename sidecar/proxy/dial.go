package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// nextAddress is how long one address of a host is tried alone, before the next is tried beside it (RFC 8305, section 8).
const nextAddress = 250 * time.Millisecond

// cancelDial is what a departing app does to a dial.
type cancelDial context.CancelFunc

func (c cancelDial) abort() { c() }

// dial makes a connection, within the time that the policy gives to looking up the name, connecting and TLS together.
func (p *pool) dial(client *clientConn, deadline time.Time, within time.Duration) (*upConn, *failure) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if !deadline.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, deadline)
		defer stop()
	}
	if !client.attach(cancelDial(cancel)) {
		return nil, fail(routing.ClientGone, "the app has left")
	}
	defer client.attach(nil)

	// On a goroutine of its own, which takes with it the stack that a handshake needs: the request's would keep it for as
	// long as the answer lasts.
	var raw *net.TCPConn
	var conn net.Conn
	var f *failure
	var fault any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { fault = recover() }()
		raw, conn, f = p.connect(ctx, within)
	}()
	<-done
	if fault != nil {
		panic(fault)
	}
	switch {
	case f != nil && client.left():
		return nil, fail(routing.ClientGone, "the app has left")
	case f != nil:
		return nil, f
	}
	return newUpConn(p, raw, conn), nil
}

// connect makes the connection, and TLS where the endpoint wants it.
func (p *pool) connect(ctx context.Context, within time.Duration) (*net.TCPConn, net.Conn, *failure) {
	raw, conn, f := p.reach(ctx)
	if f == nil && p.tls != nil {
		secured := tls.Client(&corked{Conn: conn}, p.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			f = p.handshakeFailure(err, within)
		}
		conn = secured
	}
	return raw, conn, f
}

// reach connects to the endpoint, or to the egress proxy and through it.
func (p *pool) reach(ctx context.Context) (*net.TCPConn, net.Conn, *failure) {
	port := p.endpoint.Port
	if p.egress != nil {
		port = p.egress.port
	}
	addrs, stale, err := p.names.find(ctx)
	if err != nil {
		return nil, nil, p.lookupFailure(err)
	}
	raw, err := connect(ctx, addrs, port)
	if err != nil {
		return nil, nil, p.connectFailure(err)
	}
	if !stale {
		p.names.lead(addrs)
	}
	if p.all.forbid != nil && p.all.forbid(raw) {
		_ = raw.Close()
		if p.egress != nil {
			return nil, nil, fail(routing.MisdirectedRequest, "HTTPS_PROXY is this sidecar itself: name the proxy that leads out of the network")
		}
		return nil, nil, fail(routing.MisdirectedRequest, "%s is this sidecar itself: give the host an address of its own", p.endpoint.Host)
	}
	if p.egress == nil {
		return raw, raw, nil
	}
	conn, f := p.egress.tunnel(ctx, raw, p)
	if f != nil {
		_ = raw.Close()
	}
	return raw, conn, f
}

// connect tries the addresses, in both families, until one answers: each by itself for a moment, then the next beside it.
func connect(ctx context.Context, addrs []netip.Addr, port uint16) (*net.TCPConn, error) {
	if len(addrs) == 1 {
		return connectTo(ctx, addrs[0], port)
	}
	addrs = alternate(addrs)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn *net.TCPConn
		err  error
	}
	results := make(chan result)
	begun, ended := 0, 0
	defer func() {
		for range begun - ended { // those that were too late
			go func() {
				if r := <-results; r.conn != nil {
					_ = r.conn.Close()
				}
			}()
		}
	}()
	turn := time.NewTimer(0)
	defer turn.Stop()
	var first error
	for {
		select {
		case <-turn.C:
		case r := <-results:
			ended++
			if r.conn != nil {
				return r.conn, nil
			}
			if first == nil {
				first = r.err
			}
			if ended == len(addrs) {
				return nil, first
			}
			if ended < begun {
				continue // another is on its way, and the next has its time
			}
		}
		if begun < len(addrs) {
			to := addrs[begun]
			begun++
			go func() {
				conn, err := connectTo(ctx, to, port)
				results <- result{conn, err}
			}()
			turn.Reset(nextAddress)
		}
	}
}

// alternate orders addresses so that the families take turns; the first stays the first.
func alternate(addrs []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	all := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(first), len(second)) {
		all = append(all, first[min(i, len(first)):min(i+1, len(first))]...)
		all = append(all, second[min(i, len(second)):min(i+1, len(second))]...)
	}
	return all
}

func connectTo(ctx context.Context, to netip.Addr, port uint16) (*net.TCPConn, error) {
	conn, err := (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext(ctx, "tcp", netip.AddrPortFrom(to, port).String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil // of network tcp, it always is
}

// lookupFailure words why a name has no address.
func (p *pool) lookupFailure(err error) *failure {
	what, remedy := "the name "+p.names.host, ""
	if p.egress != nil {
		what, remedy = "the name "+p.names.host+" in HTTPS_PROXY", " HTTPS_PROXY and"
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return fail(routing.ConnectFailure, "%s does not resolve: check its spelling, and%s the DNS", what, remedy).because(err)
	}
	return fail(routing.ConnectFailure, "%s could not be looked up: check that the DNS server answers", what).because(err)
}

// connectFailure words why an address was not reached.
func (p *pool) connectFailure(err error) *failure {
	switch {
	case isShortage(err):
		f := fail(routing.Overloaded, "the sidecar has too many connections open: try again later, or allow it more file descriptors")
		f.retryAfter = 1
		return f.because(err)
	case p.egress != nil:
		return fail(routing.ConnectFailure, "no connection to the proxy %s could be made: check HTTPS_PROXY, and that the network lets the pod reach it", p.egress.address).because(err)
	}
	return fail(routing.ConnectFailure, "no connection to %s could be made: check that it is up and that the network lets the pod reach it", p.address).because(err)
}

// handshakeFailure words why a connection that was made did not become one of TLS.
func (p *pool) handshakeFailure(err error, within time.Duration) *failure {
	var cert *tls.CertificateVerificationError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &name):
		return fail(routing.UntrustedCertificate, "the certificate of %s is for another name: correct host or tls.sni of the LLMProvider", p.address).because(err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fail(routing.UntrustedCertificate, "the certificate of %s is not valid today: have it renewed, or set the clock of the node right", p.address).because(err)
	case errors.As(err, &cert):
		return fail(routing.UntrustedCertificate, "the certificate of %s is not trusted: trust its issuer with spec.tls.caBundle, the installation's trusted CAs or --trusted-ca", p.address).because(err)
	case isTimeout(err):
		return fail(routing.ConnectFailure, "%s was reached, but TLS with it took longer than %s (connectionPool.tcp.connectTimeout): check port and tls.mode of the LLMProvider", p.address, within).because(err)
	}
	if f := p.refusedCertificate(err); f != nil {
		return f
	}
	_, alert, _ := strings.Cut(err.Error(), remoteAlert)
	switch {
	case alert == "protocol version not supported":
		return fail(routing.ConnectFailure, "%s speaks only what is older than TLS 1.2: have it speak 1.2 or 1.3", p.address).because(err)
	case alert == "handshake failure" && p.endpoint.ClientCert == "":
		return fail(routing.ConnectFailure, "%s refused the handshake of TLS: it may demand a client certificate (tls.mode MUTUAL), or share no cipher of TLS 1.2 or 1.3 with the sidecar", p.address).because(err)
	}
	return fail(routing.ConnectFailure, "%s was reached, but TLS with it failed: check port, tls.mode and tls.sni of the LLMProvider", p.address).because(err)
}
