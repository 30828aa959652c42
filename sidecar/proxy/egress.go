package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/net/http/httpproxy"

	"remora.dev/remora/sidecar/routing"
)

// Egress is an HTTP proxy that leads out of the network, to providers with TLS. Plain ones are in the same network, or
// should be, and are reached directly. Make it with NewEgress.
type Egress struct {
	host, address string
	port          uint16
	encrypted     bool
	credentials   routing.Key // of Proxy-Authorization; zero: none
	choose        func(*url.URL) (*url.URL, error)
	names         *lookup
	sessions      tls.ClientSessionCache
}

// NewEgress makes an Egress of the URL of a proxy, with its port, and of what is not reached through it, in the form of
// NO_PROXY: hosts, domains with a dot before them, addresses and networks, separated by commas.
func NewEgress(proxy *url.URL, except string, log logr.Logger) (*Egress, error) {
	port, err := strconv.ParseUint(proxy.Port(), 10, 16)
	if err != nil {
		return nil, errors.New("the URL of the proxy has no port")
	}
	e := &Egress{
		host: proxy.Hostname(), address: proxy.Host, port: uint16(port), encrypted: proxy.Scheme == "https",
		sessions: tls.NewLRUClientSessionCache(8),
	}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		e.credentials = routing.NewKey("Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	e.choose = (&httpproxy.Config{HTTPSProxy: e.String(), NoProxy: except}).ProxyFunc()
	e.names = &lookup{host: e.host, queries: queries(e.host, e.encrypted), log: log}
	return e, nil
}

// String is the proxy's URL, without credentials.
func (e *Egress) String() string {
	if e.encrypted {
		return "https://" + e.address
	}
	return "http://" + e.address
}

// leadsTo tells whether a provider with TLS is reached through the proxy: what NO_PROXY names is not, nor is this machine.
func (e *Egress) leadsTo(host string, port uint16) bool {
	if e == nil {
		return false
	}
	to, err := e.choose(&url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))})
	return err == nil && to != nil
}

// maxProxyHead is the largest head of a proxy's answer.
const maxProxyHead = 16 << 10

var errProxyAnswer = errors.New("the answer to CONNECT is not that of a proxy")

// tunnel has the proxy at the other end of a connection connect to the endpoint. What comes back speaks with that.
func (e *Egress) tunnel(ctx context.Context, raw *net.TCPConn, p *pool) (net.Conn, *failure) {
	conn := net.Conn(raw)
	if e.encrypted {
		// Its certificate counts as a provider's without a caBundle does.
		secured := tls.Client(raw, &tls.Config{
			ServerName: e.host, RootCAs: p.all.trusted.with(p.endpoint.TrustedCAs), NextProtos: []string{"http/1.1"},
			ClientSessionCache: e.sessions, MinVersion: tls.VersionTLS12,
		})
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, e.handshakeFailure(err)
		}
		conn = secured
	}
	// The context ends reads and writes that wait.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	status, err := e.ask(conn, p.address)
	if !stop() {
		err = ctx.Err()
	}
	switch {
	case errors.Is(err, errProxyAnswer):
		return nil, fail(routing.ConnectFailure, "%s does not answer as an HTTP proxy: check host, port and scheme in HTTPS_PROXY", e)
	case err != nil && isTimeout(err):
		return nil, fail(routing.ConnectFailure, "the proxy %s did not answer in time (connectionPool.tcp.connectTimeout): check HTTPS_PROXY, and the proxy", e).because(err)
	case err != nil:
		return nil, fail(routing.ConnectFailure, "the proxy %s ended the connection before it answered: check host, port and scheme in HTTPS_PROXY", e).because(err)
	case status/100 != 2:
		return nil, e.refusal(status, p.address)
	}
	return conn, nil
}

// ask sends CONNECT and reads the head of the answer.
func (e *Egress) ask(conn net.Conn, to string) (status int, err error) {
	head := "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n"
	if !e.credentials.IsZero() {
		head += "Proxy-Authorization: " + e.credentials.Reveal() + "\r\n"
	}
	if _, err := conn.Write([]byte(head + "\r\n")); err != nil {
		return 0, err
	}
	in := bufio.NewReaderSize(conn, maxProxyHead)
	for left := maxProxyHead; ; {
		line, err := in.ReadSlice('\n')
		left -= len(line)
		switch {
		case errors.Is(err, bufio.ErrBufferFull), left < 0:
			return 0, errProxyAnswer
		case err != nil:
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if status == 0 {
			if status = statusOf(line); status == 0 {
				return 0, errProxyAnswer
			}
			continue
		}
		switch {
		case len(line) > 0:
		case status < 200:
			status = 0 // an interim answer: the real one follows
		case status < 300 && in.Buffered() > 0:
			return 0, errProxyAnswer // in TLS, the provider does not speak first
		default:
			return status, nil
		}
	}
}

// statusOf reads the first line of an answer; 0 is that it is none.
func statusOf(line []byte) int {
	rest, found := bytes.CutPrefix(line, []byte("HTTP/1."))
	if !found || len(rest) < 5 || rest[1] != ' ' || len(rest) > 5 && rest[5] != ' ' {
		return 0
	}
	n, err := strconv.ParseUint(string(rest[2:5]), 10, 16)
	if err != nil || n < 100 || n > 599 || n == 101 {
		return 0
	}
	return int(n)
}

// refusal words why the proxy does not connect.
func (e *Egress) refusal(status int, to string) *failure {
	switch status {
	case 407:
		if e.credentials.IsZero() {
			return fail(routing.ConnectFailure, "the proxy %s demands credentials (407): put USER:PASSWORD@ before its host in HTTPS_PROXY", e)
		}
		return fail(routing.ConnectFailure, "the proxy %s does not accept the credentials in HTTPS_PROXY (407): correct them, special characters as %%XX", e)
	case 401, 403, 405:
		return fail(routing.ConnectFailure, "the proxy %s does not allow connections to %s (%d): have it allow them, or name the host in NO_PROXY if it can be reached directly", e, to, status)
	case 502, 503, 504:
		return fail(routing.ConnectFailure, "the proxy %s does not reach %s (%d): check host and port of the LLMProvider, and the proxy's log", e, to, status)
	}
	return fail(routing.ConnectFailure, "the proxy %s refuses to connect to %s (%d): see the proxy's log", e, to, status)
}

func (e *Egress) handshakeFailure(err error) *failure {
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return fail(routing.UntrustedCertificate, "the certificate of the proxy %s is not trusted: trust its issuer with the installation's trusted CAs or --trusted-ca, or correct HTTPS_PROXY", e).because(err)
	}
	return fail(routing.ConnectFailure, "TLS with the proxy %s failed: check that it is not one of http:// in HTTPS_PROXY", e).because(err)
}
