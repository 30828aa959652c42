package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/balance"
	"remora.dev/remora/sidecar/routing"
)

// send writes a request. What is small goes out in one piece: one TLS record, one system call.
func send(conn *upConn, head *[]byte, body *segments) error {
	pieces := body.pieces()
	first := *head
	for len(pieces) > 0 && len(first)+len(pieces[0]) <= 16<<10 {
		first = append(first, pieces[0]...)
		pieces = pieces[1:]
	}
	*head = first[:len(*head)] // grown, for the next request, but the head only: this one may have to be sent again
	if len(pieces) > 0 && conn.below != nil {
		conn.below.cork()
		err := write(conn, first, pieces)
		if failed := conn.below.uncork(); err == nil {
			err = failed
		}
		return err
	}
	return write(conn, first, pieces)
}

func write(conn *upConn, first []byte, pieces [][]byte) error {
	if _, err := conn.Write(first); err != nil {
		return err
	}
	for _, piece := range pieces {
		if _, err := conn.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// maxInterim is how many 1xx answers may come before the real one.
const maxInterim = 8

var errSwitching = errors.New("the provider switched protocols unasked")

// finish reads the head of the answer to a request that has been sent. Where sending failed, the
// provider may have refused it before it had all of it, and its answer says why.
func (c *call) finish(conn *upConn, sendErr error) error {
	if sendErr == nil {
		return c.readHead(conn)
	}
	conn.spent = true
	if isTimeout(sendErr) || c.readHead(conn) != nil {
		return sendErr
	}
	return nil
}

func (c *call) readHead(conn *upConn) error {
	h := &c.ctx.Response.Header
	for range maxInterim {
		err := h.Read(conn.br)
		if err != nil && tooSmall(err) && conn.br.Size() < maxHead {
			conn.enlarge(maxHead)
			err = h.Read(conn.br)
		}
		if err != nil {
			return err
		}
		switch status := h.StatusCode(); {
		case status == fasthttp.StatusSwitchingProtocols && !c.websocket:
			return errSwitching
		case status == fasthttp.StatusSwitchingProtocols, status >= 200:
			c.mask.head(h)
			return nil
		}
		conn.reused = false // the provider has seen the request: it must not get it again
	}
	return fmt.Errorf("more than %d interim answers", maxInterim)
}

// tooSmall tells whether headers did not fit into the buffer.
func tooSmall(err error) bool {
	var small *fasthttp.ErrSmallBuffer
	return errors.As(err, &small)
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout() || errors.Is(err, fasthttp.ErrTimeout)
}

// lost words what ended an exchange before the head of the answer was there.
func (c *call) lost(conn *upConn, err error) *failure {
	who := conn.pool.address
	var said *failure
	if errors.As(err, &said) { // the app's fault
		return said
	}
	if conn.revoked.Load() && !c.client.left() {
		return keyRevoked(c.key.of)
	}
	if conn.ended != nil && errors.Is(err, io.EOF) {
		err = conn.ended // which says more
	}
	if f := conn.pool.refusedCertificate(conn.ended); f != nil && !c.client.left() {
		return f
	}
	var opErr *net.OpError
	switch {
	case c.client.left():
		return fail(routing.ClientGone, "the app has left")
	case isTimeout(err) && c.late():
		return c.overdue()
	case isTimeout(err):
		return fail(routing.FirstTokenTimeout, "%s did not begin to answer in time: raise timeouts.firstToken if it needs longer, or have another provider tried (retryOn: first-token)", who)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &opErr):
		return fail(routing.UpstreamReset, "%s ended the connection before it answered: if it always does, check its port and tls.mode", who).because(err)
	}
	if tooSmall(err) {
		return fail(routing.UpstreamInvalid, "the headers of %s's answer are larger than %d KiB: have the provider send less", who, maxHead>>10)
	}
	// The error is not logged: it may quote what the provider sent, and that what it was sent.
	return fail(routing.UpstreamInvalid, "the answer of %s is not HTTP/1.1: check its port and tls.mode", who)
}

// judge tells the ejections what ended an answer in its middle.
func (s *stream) judge(f *failure) {
	switch f.code {
	case routing.UpstreamReset, routing.UpstreamInvalid, routing.FirstTokenTimeout, routing.IdleTimeout:
		s.proxy.ejections.failed(&s.trial, balance.Failing)
	case routing.DeadlineExceeded:
		if !s.begun && !s.trial.hurried {
			s.proxy.ejections.failed(&s.trial, balance.Failing)
		}
	default:
	}
}

// acquit ends the trial of a backend that did not fail: what there was of the answer was good.
func (s *stream) acquit() {
	if s.begun || s.answer.done {
		s.proxy.ejections.completed(&s.trial)
	}
	s.proxy.ejections.abandon(&s.trial)
}
