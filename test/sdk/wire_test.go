package sdk_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
)

// exchange is an answer as it came over the wire, before an SDK read anything into it.
type exchange struct {
	Status int               `json:"status"`
	Header map[string]string `json:"header"` // lower-case names
	Body   []byte            `json:"body"`
	Broken string            `json:"broken"` // why the body did not come to its end
}

// recording is what node/recording.mjs is for Node: a client beneath an SDK that notes what comes.
type recording struct {
	transport *http.Transport
	header    map[string]string // to add to each request, for an SDK that has no way to
	leaves    bool              // the SDK goes before the end of the answer; else it is read to the end in any case

	mu   sync.Mutex
	wire []*exchange
}

func (r *recording) RoundTrip(request *http.Request) (*http.Response, error) {
	if len(r.header) > 0 {
		request = request.Clone(request.Context())
		for name, value := range r.header {
			request.Header.Set(name, value)
		}
	}
	answer, err := r.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	e := &exchange{Status: answer.StatusCode, Header: map[string]string{}}
	for name, values := range answer.Header {
		e.Header[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	r.mu.Lock()
	r.wire = append(r.wire, e)
	r.mu.Unlock()
	answer.Body = &recordedBody{recording: r, exchange: e, body: answer.Body}
	return answer, nil
}

// seen are the answers so far.
func (r *recording) seen() []exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []exchange
	for _, e := range r.wire {
		all = append(all, *e)
	}
	return all
}

type recordedBody struct {
	*recording
	exchange *exchange
	body     io.ReadCloser
}

func (b *recordedBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.exchange.Body = append(b.exchange.Body, p[:n]...)
	if err != nil && !errors.Is(err, io.EOF) && b.exchange.Broken == "" {
		b.exchange.Broken = reason(err)
	}
	return n, err
}

func (b *recordedBody) Close() error {
	if !b.leaves {
		_, _ = io.Copy(io.Discard, b) // an error is noted
	}
	return b.body.Close()
}
