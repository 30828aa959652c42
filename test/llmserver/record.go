package llmserver

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Request is one request as the server received it.
type Request struct {
	Time       time.Time // when its body was complete, or its client gone
	SNI        string    // the server name of the TLS handshake, empty without TLS
	Client     string    // the name in the client's certificate, empty without one
	TLS        bool
	Connection int // which connection it came on, counted from 1: equal numbers mean that one was reused
	RemoteAddr string

	Host     string // the Host header, as sent
	Method   string
	Path     string // as sent: escaped, without the query
	RawQuery string
	Proto    string

	Header    http.Header // without Host
	RawHeader []string    // the lines as sent and in their order: "Name: value"
	Body      []byte      // of an upload, the first MiB
	Upload    *Upload     // nil where the body is no multipart/form-data

	// Ended is when the answer was complete, or broken off; zero while it is being given.
	Ended time.Time
	// Aborted says that the client left before its answer was complete. (A scripted fault that breaks off is no abort.)
	Aborted bool
	// Status of the answer; 0 where not even that was sent.
	Status int
}

// record holds what was received. Its lock also guards the requests' last three fields.
type record struct {
	mu       sync.Mutex
	changed  *sync.Cond
	requests []*Request
	received int
	aborted  int
}

func (r *record) init() { r.changed = sync.NewCond(&r.mu) }

// Requests returns copies of all requests since the start or the last Reset, in the order in which they were complete.
func (s *Server) Requests() []Request {
	s.record.mu.Lock()
	defer s.record.mu.Unlock()
	return s.record.copies()
}

// Reset forgets the requests, also those whose answer is still being given, and sets Received, Aborted and each Tally to zero.
// Scripted faults stay.
func (s *Server) Reset() {
	s.record.mu.Lock()
	defer s.record.mu.Unlock()
	s.record.requests, s.record.received, s.record.aborted = nil, 0, 0
	s.tallies.reset()
}

// Received counts the requests since the start or the last Reset, also where Options.Quiet keeps no more than that.
func (s *Server) Received() int {
	s.record.mu.Lock()
	defer s.record.mu.Unlock()
	return s.record.received
}

// Aborted counts the requests whose client left before its answer was complete.
func (s *Server) Aborted() int {
	s.record.mu.Lock()
	defer s.record.mu.Unlock()
	return s.record.aborted
}

// Await returns the requests once there are at least n. Its error is that of the context. It is of no use with
// Options.Quiet.
func (s *Server) Await(ctx context.Context, n int) ([]Request, error) {
	r := &s.record
	err := r.wait(ctx, func() bool { return len(r.requests) >= n })
	defer r.mu.Unlock()
	return r.copies(), err
}

// AwaitEnded returns the requests once there are at least n whose answers have ended.
func (s *Server) AwaitEnded(ctx context.Context, n int) ([]Request, error) {
	r := &s.record
	err := r.wait(ctx, func() bool {
		ended := 0
		for _, q := range r.requests {
			if !q.Ended.IsZero() {
				ended++
			}
		}
		return ended >= n
	})
	defer r.mu.Unlock()
	return r.copies(), err
}

// AwaitAborted returns the first request whose client left before its answer was complete.
func (s *Server) AwaitAborted(ctx context.Context) (Request, error) {
	r := &s.record
	var found *Request
	err := r.wait(ctx, func() bool {
		i := slices.IndexFunc(r.requests, func(q *Request) bool { return q.Aborted })
		if i >= 0 {
			found = r.requests[i]
		}
		return i >= 0
	})
	defer r.mu.Unlock()
	if err != nil {
		return Request{}, err
	}
	return found.copy(), nil
}

// wait returns with the lock held, once the condition holds or the context has ended.
func (r *record) wait(ctx context.Context, condition func() bool) error {
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changed.Broadcast()
	})
	defer stop()
	r.mu.Lock()
	for !condition() {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.changed.Wait()
	}
	return nil
}

// begin takes in a request whose answer is about to be given. Quiet only counts it.
func (s *Server) begin(q *Request) {
	r := &s.record
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received++
	if !s.options.Quiet {
		r.requests = append(r.requests, q)
		r.changed.Broadcast()
	}
}

func (s *Server) end(q *Request, o outcome) {
	r := &s.record
	r.mu.Lock()
	q.Ended, q.Status, q.Aborted = time.Now(), o.status, o.aborted
	if o.aborted {
		r.aborted++
	}
	r.changed.Broadcast()
	r.mu.Unlock()
	if s.options.Told != nil {
		s.options.Told(q.copy()) // nobody changes it any more
	}
}

func (r *record) copies() []Request {
	all := make([]Request, len(r.requests))
	for i, q := range r.requests {
		all[i] = q.copy()
	}
	return all
}

func (q *Request) copy() Request {
	c := *q
	c.Header = q.Header.Clone()
	c.RawHeader = slices.Clone(q.RawHeader)
	c.Body = slices.Clone(q.Body)
	return c
}
