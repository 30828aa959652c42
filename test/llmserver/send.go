package llmserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// outcome is how an answer ended.
type outcome struct {
	status   int  // what was sent, 0 for nothing
	pieces   int  // how many were sent whole
	whole    bool // all of it was sent
	aborted  bool // the client left before the end
	reusable bool // the connection can take another request
}

// plan is how to send an answer.
type plan struct {
	answer
	fault Fault
	delay time.Duration // between events
	close bool          // say Connection: close
	head  bool          // the answer to HEAD: no body
	name  string        // of the server
}

var (
	errLeft   = errors.New("the client left")
	errBroken = errors.New("broken off, as the fault wants it")
)

// sender gives one answer.
type sender struct {
	*connection
	*watcher
	plan
	chunked bool
	status  int // what has been sent
	sent    int // pieces
}

// send gives the answer. Only the goroutine that answers decides whether the client left in time: before each write it
// must still be there; once the last piece is on its way it may leave.
func (c *connection) send(p plan, w *watcher) outcome {
	if w == nil {
		w = &watcher{} // nobody watches a client that sent no proper request
	}
	p.name = c.server.options.Name
	s := sender{connection: c, watcher: w, plan: p}
	err := s.all()
	return outcome{
		status:   s.status,
		pieces:   s.sent,
		whole:    err == nil,
		aborted:  errors.Is(err, errLeft),
		reusable: err == nil && !p.fault.EarlyClose,
	}
}

func (s *sender) all() error {
	stream := s.contentType == eventStream
	s.chunked = stream || s.fault.Chunked
	pieces := s.pieces()
	s.out = s.appendHead(s.out[:0], pieces, s.chunked)
	if s.plan.head {
		pieces, s.chunked = nil, false
	}
	if err := s.start(stream); err != nil {
		return err
	}
	for i, piece := range pieces {
		if err := s.misbehave(i, piece); err != nil {
			return err
		}
		if i > 0 && stream && !s.pause(s.delay) {
			return errLeft
		}
		if err := s.sendPiece(piece); err != nil {
			return err
		}
		s.sent++
	}
	if !s.chunked {
		return s.flush() // the head of an answer without a body
	}
	if err := s.misbehave(len(pieces), nil); err != nil {
		return err
	}
	s.out = append(s.out, "0\r\n\r\n"...)
	if _, err := s.wire.Write(s.out); err != nil {
		return errBroken // the client has all it can want, so it is not said to have left early
	}
	return nil
}

// start sends what comes before the first piece, or leaves the headers to go with it.
func (s *sender) start(stream bool) error {
	f := s.fault
	comments := f.KeepaliveComments && stream
	if f.HeadersEarly || comments || stream && f.FirstToken <= 0 {
		if err := s.flush(); err != nil {
			return err
		}
	}
	if !comments {
		if !s.pause(f.FirstToken) {
			return errLeft
		}
		return nil
	}
	for range 3 {
		s.out = appendPiece(s.out, []byte(": ping\n\n"), true)
		if err := s.flush(); err != nil {
			return err
		}
		if !s.pause(f.FirstToken / 3) {
			return errLeft
		}
	}
	return nil
}

// misbehave stalls or cuts where the fault wants it before piece number i; after the last piece, which is nil, also
// where the answer was shorter than the fault expected.
func (s *sender) misbehave(i int, piece []byte) error {
	f := s.fault
	due := func(after *int) bool { return after != nil && (*after == i || *after > i && piece == nil) }
	if due(f.StallAfter) {
		if err := s.flush(); err != nil {
			return err
		}
		<-s.gone
		return errLeft
	}
	if f.HoldUntil != "" && i == heldAfter {
		if err := s.hold(); err != nil {
			return err
		}
	}
	if !due(f.CutAfter) {
		return nil
	}
	if f.MidEvent && piece != nil {
		whole := appendPiece(nil, piece, s.chunked)
		s.out = append(s.out, whole[:len(whole)/2]...)
	}
	err := s.flush()
	s.tcp.Close() // past TLS, which would have said good-bye
	if err != nil {
		return err
	}
	return errBroken
}

const heldAfter = 3 // events

// hold waits for the request that HoldUntil is about.
func (s *sender) hold() error {
	if err := s.flush(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		select {
		case <-s.gone:
			stop()
		case <-ctx.Done():
		}
	}()
	r, word := &s.server.record, []byte(s.fault.HoldUntil)
	err := r.wait(ctx, func() bool {
		return slices.ContainsFunc(r.requests, func(q *Request) bool { return bytes.Contains(q.Body, word) })
	})
	r.mu.Unlock()
	if err != nil {
		return errLeft
	}
	return nil
}

// sendPiece sends what waits and one piece, in one write or in two.
func (s *sender) sendPiece(piece []byte) error {
	if s.fault.Split && s.chunked && len(piece) > 1 {
		s.out = appendPiece(s.out, piece[:len(piece)/2], true)
		piece = piece[len(piece)/2:]
		if err := s.flush(); err != nil {
			return err
		}
		if !s.pause(time.Millisecond) {
			return errLeft
		}
	}
	s.out = appendPiece(s.out, piece, s.chunked)
	return s.flush()
}

// flush writes what waits, if there is anything, to a client that is still there.
func (s *sender) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	if !s.pause(0) {
		return errLeft
	}
	_, err := s.wire.Write(s.out)
	s.out = s.out[:0]
	if err != nil {
		return errLeft
	}
	s.status = s.plan.status
	return nil
}

// pieces is the body in the pieces in which it is sent.
func (s *sender) pieces() [][]byte {
	switch f := s.fault; {
	case s.events != nil:
		return s.events
	case len(s.plan.body) == 0:
		return nil
	case f.StallAfter != nil || f.CutAfter != nil:
		return slices.Collect(slices.Chunk(s.plan.body, 16))
	case s.chunked:
		return slices.Collect(slices.Chunk(s.plan.body, len(s.plan.body)/3+1))
	}
	return [][]byte{s.plan.body}
}

func appendPiece(out, piece []byte, chunked bool) []byte {
	if !chunked {
		return append(out, piece...)
	}
	out = strconv.AppendInt(out, int64(len(piece)), 16)
	out = append(out, "\r\n"...)
	out = append(out, piece...)
	return append(out, "\r\n"...)
}

func (p *plan) appendHead(out []byte, pieces [][]byte, chunked bool) []byte {
	out = fmt.Appendf(out, "HTTP/1.1 %d %s\r\nDate: ", p.status, http.StatusText(p.status))
	out = time.Now().UTC().AppendFormat(out, http.TimeFormat)
	out = append(out, "\r\nServer: llmserver\r\nContent-Type: "...)
	out = append(out, p.contentType...)
	if p.name != "" {
		out = append(append(out, "\r\n"+NameHeader+": "...), p.name...)
	}
	for _, line := range p.header {
		out = append(out, "\r\n"...)
		out = append(out, line...)
	}
	if p.close {
		out = append(out, "\r\nConnection: close"...)
	}
	if chunked {
		return append(out, "\r\nTransfer-Encoding: chunked\r\n\r\n"...)
	}
	length := 0
	for _, piece := range pieces {
		length += len(piece)
	}
	return fmt.Appendf(out, "\r\nContent-Length: %d\r\n\r\n", length)
}
