package sdk_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// session is one call of an SDK for Go, and what the SDK saw of it.
type session struct {
	planned
	http *http.Client // beneath the SDK
	saw  saw
}

// saw is the Go side of what an SDK's module in node/ notes.
type saw struct {
	Chunks  []any          `json:"chunks,omitempty"`
	Data    any            `json:"data,omitempty"`
	Parsed  any            `json:"parsed,omitempty"`
	Error   map[string]any `json:"error,omitempty"`
	endedAt int64          // Unix milliseconds
}

func (s *saw) leave() { s.endedAt = time.Now().UnixMilli() }

func (s *saw) generic() (map[string]any, error) {
	var all map[string]any
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(b, &all)
}

func TestOpenAIGoSeesTheSameThroughTheSidecar(t *testing.T) {
	t.Parallel()
	compare(t, golang("openai-go", nil, openaiGoCalls, describedByOpenAIGo, func(*planned) map[string]string { return nil }))
}

func TestGoOpenAISeesTheSameThroughTheSidecar(t *testing.T) {
	t.Parallel()
	compare(t, golang("go-openai", []string{retries, shouldRetry}, goOpenAICalls, describedByGoOpenAI, func(p *planned) map[string]string { return p.Header }))
}

// golang is an SDK for Go: its calls, what it tells of an error, and the headers for which it has no setting.
func golang(name string, lacks []string, calls map[string]func(*session) error, described func(error) map[string]any, header func(*planned) map[string]string) sdk {
	return sdk{
		name: name, lacks: lacks,
		run: func(w way, p plan) (map[string]experience, error) {
			transport, err := transportFor(w)
			if err != nil {
				return nil, err
			}
			defer transport.CloseIdleConnections()
			all := map[string]experience{}
			for _, c := range p.Calls {
				wire := &recording{transport: transport, header: header(&c), leaves: c.Leaves}
				s := &session{planned: c, http: &http.Client{Transport: wire}}
				call, ok := calls[c.Call]
				if !ok {
					return nil, fmt.Errorf("there is no call %s", c.Call)
				}
				if err := call(s); err != nil {
					s.saw.Error = described(err)
				}
				seen, err := s.saw.generic()
				if err != nil {
					return nil, err
				}
				all[c.Name] = experience{Saw: seen, Wire: wire.seen(), EndedAt: cmp.Or(s.saw.endedAt, time.Now().UnixMilli())}
			}
			return all, nil
		},
	}
}

func transportFor(w way) (*http.Transport, error) {
	transport := &http.Transport{}
	if w.trusting {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(provider.CAPEM())
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	if w.proxy != "" {
		proxy, err := url.Parse(w.proxy)
		if err != nil {
			return nil, err
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	if w.world {
		// Go reads the hosts file by itself, and this process is not in the app's.
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(world, port))
		}
	}
	return transport, nil
}

// timeout is how long the call may take, for an SDK that knows only contexts.
func (s *session) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Duration(s.TimeoutMS)*time.Millisecond)
}

// described is what can be told of an error that is none of an SDK's own.
func described(err error) map[string]any {
	return map[string]any{"class": fmt.Sprintf("%T", err), "message": reason(err)}
}

// reason is the text of an error, or of its cause: those of these causes name the URL, which is another one through the
// sidecar.
func reason(err error) string {
	for _, r := range []error{context.Canceled, context.DeadlineExceeded, io.ErrUnexpectedEOF} {
		if errors.Is(err, r) {
			return r.Error()
		}
	}
	return err.Error()
}
