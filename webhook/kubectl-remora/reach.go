package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// Where sidecars and gateways answer.
const (
	adminPort  = 14020 // loopback only
	healthPort = 14021
)

// maxAnswer bounds what a pod may answer: far more than a sidecar does.
const maxAnswer = 16 << 20

// tunnel asks the servers of one pod.
type tunnel struct {
	dial  func(ctx context.Context, port int) (net.Conn, error)
	close func()
	once  sync.Once
	http  *http.Client
}

// get asks for a path. What a pod answers is of no more than maxAnswer bytes, and is not followed anywhere.
func (t *tunnel) get(ctx context.Context, port int, path string, query url.Values) ([]byte, error) {
	t.once.Do(func() {
		t.http = &http.Client{
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
					_, port, _ := net.SplitHostPort(address)
					n, err := strconv.Atoi(port)
					if err != nil {
						return nil, err
					}
					return t.dial(ctx, n)
				},
				DisableCompression: true, MaxConnsPerHost: 1, MaxResponseHeaderBytes: 64 << 10,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	})
	at := url.URL{Scheme: "http", Host: "localhost:" + strconv.Itoa(port), Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := t.http.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		if said := kubeletError(""); errors.As(err, &said) {
			err = said // without what the client was at when it heard of it
		}
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s is more than %d MiB, which no sidecar answers: it is something else that listens on port %d", path, maxAnswer>>20, port)
	case answer.StatusCode != http.StatusOK:
		return nil, &statusError{path, answer.StatusCode, strings.TrimSpace(string(body[:min(len(body), 500)]))}
	}
	return body, nil
}

// statusError is an answer other than 200.
type statusError struct {
	path   string
	status int
	text   string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s was answered with %d: %s", e.path, e.status, e.text)
}

// forward opens a tunnel through the API server, as kubectl port-forward does, but listens on no port of this machine: nobody else can use it.
func (a *app) forward(ctx context.Context, pod podID) (*tunnel, error) {
	config, err := a.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	at := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	dialer, err := dialerFor(config, at)
	if err != nil {
		return nil, err
	}
	connection, err := within(ctx, func() (httpstream.Connection, error) {
		c, protocol, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		if err == nil && protocol != portforward.PortForwardProtocolV1Name {
			_ = c.Close()
			return nil, fmt.Errorf("the API server speaks %q instead of %q", protocol, portforward.PortForwardProtocolV1Name)
		}
		return c, err
	}, func(c httpstream.Connection) { _ = c.Close() })
	if err != nil {
		return nil, explained(err, "it cannot be reached", "to create pods/portforward")
	}
	var requests atomic.Int64
	return &tunnel{
		dial: func(ctx context.Context, port int) (net.Conn, error) {
			return within(ctx, func() (net.Conn, error) { return newStreamConn(connection, port, requests.Add(1)) }, func(c net.Conn) { _ = c.Close() })
		},
		close: func() { _ = connection.Close() },
	}, nil
}

// dialerFor prefers WebSocket, as kubectl does, and takes SPDY where a proxy or an older API server does not know it.
func dialerFor(config *rest.Config, at *url.URL) (httpstream.Dialer, error) {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	older := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, at)
	newer, err := portforward.NewSPDYOverWebsocketDialerForStreaming(at, config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialerForStreaming(newer, older, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// within awaits what has no context itself. What comes too late is thrown away.
func within[T any](ctx context.Context, do func() (T, error), drop func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := do()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				drop(r.value)
			}
		}()
		var zero T
		return zero, ctx.Err()
	}
}

// kubeletError is what the kubelet says of a port that cannot be reached.
type kubeletError string

func (e kubeletError) Error() string { return "the kubelet says: " + string(e) }

// streamConn is a connection to a port of a pod: two streams of a tunnel, of which one only says what went wrong.
type streamConn struct {
	httpstream.Stream
	tunnel httpstream.Connection
	faults httpstream.Stream
	fault  chan error // what the kubelet says; closed when it has said all
}

func newStreamConn(tunnel httpstream.Connection, port int, request int64) (net.Conn, error) {
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, strconv.FormatInt(request, 10))
	faults, err := tunnel.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	_ = faults.Close() // for writing
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := tunnel.CreateStream(headers)
	if err != nil {
		tunnel.RemoveStreams(faults)
		return nil, err
	}
	c := &streamConn{Stream: data, tunnel: tunnel, faults: faults, fault: make(chan error, 1)}
	go func() {
		defer close(c.fault)
		if text, _ := io.ReadAll(io.LimitReader(faults, 4096)); len(text) > 0 {
			c.fault <- kubeletError(strings.TrimSpace(string(text)))
			_ = data.Reset() // no answer comes
		}
	}()
	return c, nil
}

// Read gives what the pod sent. Where that has ended since the port could not be reached, the error says so.
func (c *streamConn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	if err != nil && n == 0 {
		select {
		case fault, said := <-c.fault:
			if said {
				return 0, fault
			}
		default:
		}
	}
	return n, err
}

// Close ends both streams.
func (c *streamConn) Close() error {
	err := c.Reset()
	_ = c.faults.Reset()
	c.tunnel.RemoveStreams(c.Stream, c.faults)
	return err
}

// LocalAddr and RemoteAddr are those of no network.
func (c *streamConn) LocalAddr() net.Addr { return &net.UnixAddr{} }

// RemoteAddr is LocalAddr.
func (c *streamConn) RemoteAddr() net.Addr { return &net.UnixAddr{} }

// SetDeadline does nothing: http.Transport closes the connection of a request whose context has ended.
func (c *streamConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is SetDeadline.
func (c *streamConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is SetDeadline.
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }
