package sdk_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
)

func TestTheGoSDKSeesTheSameThroughTheSidecar(t *testing.T) {
	t.Parallel()
	compare(t, "go", func(w way, plan plan) (map[string]map[string]any, error) {
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		if w.trusting {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(provider.CAPEM())
			transport.TLSClientConfig = &tls.Config{RootCAs: pool}
		}
		if plan.Proxy != "" {
			proxy, err := url.Parse(plan.Proxy)
			if err != nil {
				return nil, err
			}
			transport.Proxy = http.ProxyURL(proxy)
		}
		all := map[string]map[string]any{}
		for _, p := range plan.Calls {
			s := &session{planned: p, client: openai.NewClient(p.options(transport)...)}
			call, ok := calls[p.Call]
			if !ok {
				return nil, fmt.Errorf("no call %q", p.Call)
			}
			s.saw.note(call(s))
			generic, err := s.saw.generic()
			if err != nil {
				return nil, err
			}
			all[p.Name] = generic
		}
		return all, nil
	})
}

func (p *planned) options(transport *http.Transport) []option.RequestOption {
	all := []option.RequestOption{
		option.WithBaseURL(p.BaseURL), option.WithAPIKey(p.Key), option.WithMaxRetries(p.Retries),
		option.WithHTTPClient(&http.Client{Transport: transport}),
		option.WithRequestTimeout(time.Duration(p.TimeoutMS) * time.Millisecond),
	}
	for name, value := range p.Header {
		all = append(all, option.WithHeader(name, value))
	}
	return all
}

// session is one call and what the SDK saw of it.
type session struct {
	planned
	client openai.Client
	saw    saw
}

// saw is the Go side of what node/saw.mjs prints.
type saw struct {
	Status  int               `json:"status,omitempty"`
	Header  map[string]string `json:"header,omitempty"`
	Chunks  []json.RawMessage `json:"chunks,omitempty"`
	Data    any               `json:"data,omitempty"`
	Parsed  any               `json:"parsed,omitempty"`
	Error   map[string]any    `json:"error,omitempty"`
	EndedAt int64             `json:"endedAt"` // Unix milliseconds
}

func (s *saw) generic() (map[string]any, error) {
	var all map[string]any
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(b, &all)
}

func (s *saw) head(r *http.Response) {
	if r == nil {
		return
	}
	s.Status, s.Header = r.StatusCode, map[string]string{}
	for name := range r.Header {
		s.Header[name] = r.Header.Get(name)
	}
}

// note takes in how a call ended.
func (s *saw) note(err error) {
	if s.EndedAt == 0 {
		s.EndedAt = time.Now().UnixMilli()
	}
	if err == nil {
		return
	}
	var refused *openai.Error
	var broken *ssestream.StreamError
	switch {
	case errors.As(err, &refused):
		s.head(refused.Response)
		s.Error = map[string]any{
			"class": fmt.Sprintf("%T", refused), "status": refused.StatusCode, "code": refused.Code, "type": refused.Type,
			"param": refused.Param, "message": refused.Message, "raw": refused.RawJSON(),
		}
	case errors.As(err, &broken):
		s.Error = map[string]any{"class": fmt.Sprintf("%T", broken), "message": broken.Message, "data": string(broken.Event.Data)}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF):
		// Their texts name the URL, which is another one through the sidecar.
		s.Error = map[string]any{"class": fmt.Sprintf("%T", err), "is": reason(err).Error()}
	default:
		s.Error = map[string]any{"class": fmt.Sprintf("%T", err), "message": err.Error()}
	}
}

func reason(err error) error {
	for _, r := range []error{context.Canceled, context.DeadlineExceeded, io.ErrUnexpectedEOF} {
		if errors.Is(err, r) {
			return r
		}
	}
	return err
}

// answered is what every answer of the SDK can do.
type answered interface{ RawJSON() string }

// whole runs a call whose answer comes at once.
func whole[A answered](s *session, call func(...option.RequestOption) (A, error)) (A, error) {
	var r *http.Response
	a, err := call(option.WithResponseInto(&r))
	s.saw.head(r)
	if err == nil {
		s.saw.Data = json.RawMessage(a.RawJSON())
	}
	return a, err
}

// events reads a stream while more wants it.
func events[E answered](s *session, open func(...option.RequestOption) *ssestream.Stream[E], more func() bool) error {
	var r *http.Response
	stream := open(option.WithResponseInto(&r))
	defer stream.Close()
	s.saw.head(r)
	for stream.Next() {
		s.saw.Chunks = append(s.saw.Chunks, json.RawMessage(stream.Current().RawJSON()))
		if !more() {
			break
		}
	}
	return stream.Err()
}

func always() bool { return true }
