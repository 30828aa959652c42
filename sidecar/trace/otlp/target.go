package otlp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"remora.dev/remora/sidecar/telemetry"
)

// The limits of talking with a collector.
const (
	connectTime   = 5 * time.Second
	handshakeTime = 5 * time.Second
	idleTime      = 30 * time.Second // of a connection that nothing is sent on
	maxHead       = 16 << 10         // of its answer
)

// tracesPath is appended to an endpoint.
const tracesPath = "/v1/traces"

// errSettings says that the settings cannot be used.
var errSettings = errors.New("settings of traces")

// target is a collector, with the connections to it.
type target struct {
	settings  *telemetry.Settings // the last that were found to say the same
	of        telemetry.Traces
	transport *http.Transport

	prepare sync.Once
	url     *url.URL
	err     error
}

// newTarget makes one without a look at what the settings say: it is called while requests wait.
func newTarget(s *telemetry.Settings, dial func(ctx context.Context, network, address string) (net.Conn, error)) *target {
	return &target{settings: s, of: s.Traces, transport: &http.Transport{
		// No Proxy: those that the environment may name lead out of the cluster.
		DialContext: dial, TLSHandshakeTimeout: handshakeTime,
		MaxConnsPerHost: 1, MaxIdleConns: 1, IdleConnTimeout: idleTime,
		MaxResponseHeaderBytes: maxHead, DisableCompression: true,
	}}
}

// is tells whether settings mean this target. It is called by one goroutine at a time.
func (t *target) is(s *telemetry.Settings) bool {
	if t.settings == s {
		return true
	}
	if t.of.Endpoint != s.Traces.Endpoint || t.of.CABundle != s.Traces.CABundle || !maps.Equal(t.of.Headers, s.Traces.Headers) {
		return false
	}
	t.settings = s
	return true
}

// ready reads the settings, once, and gives what is wrong with them.
func (t *target) ready() error {
	t.prepare.Do(func() {
		if t.url, t.err = address(t.of.Endpoint); t.err != nil || t.url.Scheme != "https" {
			return
		}
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if t.of.CABundle != "" {
			var err error
			if config.RootCAs, err = x509.SystemCertPool(); err != nil {
				config.RootCAs = x509.NewCertPool() // a machine without authorities of its own
			}
			if !config.RootCAs.AppendCertsFromPEM([]byte(t.of.CABundle)) {
				t.err = fmt.Errorf("%w: there is no certificate in caBundle", errSettings)
			}
		}
		t.transport.TLSClientConfig = config
	})
	return t.err
}

// address gives where spans are sent.
func address(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: endpoint is no http:// or https:// URL of a collector", errSettings)
	}
	// JoinPath would resolve what is in the path already.
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+tracesPath, ""
	return u, nil
}

// host is how the log calls a target.
func (t *target) host() string {
	if t.url == nil {
		return ""
	}
	return t.url.Scheme + "://" + t.url.Host
}
