package proxy

import (
	"bufio"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/usage"
)

// stream brings an answer to the app. It owns the connection to the provider until it is closed.
type stream struct {
	proxy    *Proxy
	client   *clientConn
	conn     *upConn
	answer   answer
	events   bool // the answer is a stream of events
	reusable bool // the connection, once the answer is complete
	begun    bool // something of the body has come
	counted  bool // the answer tells how many tokens it took
	complete bool // nothing of it follows
	firstBy  time.Time
	deadline time.Time
	idle     time.Duration
	armed    time.Time // when the idle limit was last set
	host     string
	trial    trial
	upload   *upload // of the request, where that has not ended yet
	out      []byte
	whole    int   // of out: so much is whole events
	read     int   // of out: so much the meter has read, of an answer that is no stream of events
	early    error // what ended the answer before the server asked for it
	torn     bool
	mask     mask // of the key that was sent
	form     usage.Form
	meter    usage.Meter
	calls    *metrics.Calls // nil as long as nothing can have reached the app
	input    int64          // estimate of the request's tokens
	promise  promise        // of tokens, that the server was chosen by
	op       *routing.Operation
	target   *routing.Target // nil: a host that no configuration names
	key      *namedKey       // nil: the target has none
	status   int
	rec      *recording // nil: nobody wants to know
	waited   bool       // for the provider, since something was passed on
}

var streams = sync.Pool{New: func() any { return new(stream) }}

// newStream takes over a connection whose answer's head has been read. What is here as a whole, or has
// no body, is answered at once: then there is no stream.
func (c *call) newStream(conn *upConn, firstBy time.Time) *stream {
	resp := &c.ctx.Response
	h := &resp.Header
	length := h.ContentLength()
	status := h.StatusCode()
	empty := c.ctx.IsHead() || status == fasthttp.StatusNoContent || status == fasthttp.StatusNotModified
	reusable := persists(h) && (empty || length != -2)
	strip(h)
	if empty || length >= 0 && length <= conn.br.Buffered() {
		if !empty {
			b, _ := conn.br.Peek(length) // it is buffered
			b = c.countWhole(b)
			c.mask.over(b)
			c.rec.answered(b)
			resp.SetBody(b)
			_, _ = conn.br.Discard(length)
		} else if calls := c.account(); calls != nil {
			calls.Requests.Inc()
		}
		c.proxy.answered(c.target, c.key.of, conn, status, true)
		_ = c.stopUpload() // the app is told by the answer
		c.client.attach(nil)
		if reusable && conn.br.Buffered() == 0 {
			conn.release()
		} else {
			conn.discard()
		}
		return nil
	}
	form, counted := c.form()
	s := streams.Get().(*stream)
	*s = stream{
		proxy: c.proxy, client: c.client, conn: conn, out: s.out[:0], firstBy: firstBy, deadline: c.deadline,
		answer:   answer{br: conn.br, chunked: length == -1, left: int64(max(length, 0))},
		events:   c.operation != nil && (length < 0 || form == usage.AskedEvents) && isEvents(h) && !isEncoded(h),
		reusable: reusable, host: conn.pool.address, form: form, counted: counted, op: c.operation,
		upload: c.upload, mask: c.mask, target: c.target, key: c.key.of, status: status,
	}
	if s.events && !counted {
		s.form = usage.Events
	}
	c.upload = nil
	s.meter.Begin(s.form)
	if length == -2 {
		s.answer.left = -1
	}
	if c.rule != nil {
		s.idle = c.rule.Timeouts.Idle
	}
	return s
}

// start hands the stream to the server, which runs it when the handler has returned.
func (s *stream) start(c *call) {
	resp := &c.ctx.Response
	size := -1
	if !s.answer.chunked && s.answer.left >= 0 && s.form != usage.AskedEvents {
		size = len(s.out) + int(s.answer.left)
	}
	if s.calls = c.account(); s.calls != nil {
		s.calls.Requests.Inc()
		if s.counted {
			s.input = c.estimateInput()
		}
	}
	// An event that came with the head goes out with the head. One that is not here as a whole is held back; the head
	// must not be.
	if s.events && len(s.out) == 0 && s.answer.ready() {
		s.early = s.fill()
	}
	resp.ImmediateHeaderFlush = s.events && s.whole == 0 || !s.events && !s.answer.ready()
	if size < 0 && !c.ctx.Request.Header.IsHTTP11() {
		// HTTP/1.0 knows no chunks: the end of the connection ends the answer. For the server this is a
		// body of length 0 that grows, which it notices at its end, and closes the connection.
		resp.SetBodyStream(s, 0)
		resp.Header.Del(fasthttp.HeaderContentLength)
		c.closing = true
		return
	}
	resp.SetBodyStream(s, size)
}

// SupportsBodyWriteTo says that the server may hand over its writer.
func (s *stream) SupportsBodyWriteTo() bool { return true }

// Read is there because a body stream has to be a reader; the server calls WriteTo.
func (s *stream) Read([]byte) (int, error) { return 0, io.ErrNoProgress }

// WriteTo brings the answer to the app, flushing whatever one read from the provider gave. Events are
// not torn apart: one whose end has not come is held back, so that an error can follow the last whole
// one.
func (s *stream) WriteTo(w io.Writer) (int64, error) {
	var written int64
	emit := func(b []byte) error {
		if len(b) == 0 {
			return nil
		}
		n, err := w.Write(b)
		written += int64(n)
		if fixed, ok := w.(*bufio.Writer); ok && err == nil {
			err = fixed.Flush()
		}
		return err
	}
	for first := len(s.out) > 0 || s.early != nil; ; first = false {
		err := s.early
		if !first { // else there is what has been taken in before
			err = s.fill()
		}
		s.complete = errors.Is(err, io.EOF) || err == nil && s.answer.ended()
		cut := s.ready()
		s.mask.over(s.out[:cut])
		if err == nil && !s.complete {
			cut -= s.mask.open(s.out[:cut])
		}
		s.passing(s.out[:cut])
		if s.complete || s.events && s.meter.Said() {
			s.settle() // before the app can know that it has the whole answer
			s.over(cut)
		}
		if werr := emit(s.out[:cut]); werr != nil {
			return written, werr
		}
		s.rec.idle() // it was the app's time
		s.passedOn(cut)
		s.passed(cut)
		if err == nil {
			continue
		}
		if s.complete || s.events && s.meter.Said() { // what comes after [DONE] has no meaning to anyone
			return written, nil
		}
		f := s.failure(err)
		s.proxy.cut(s, f)
		s.settle()
		if !s.events || f.code == routing.ClientGone {
			s.cutOff(f, 0)
			return written, err // the app sees that the answer is not complete
		}
		told := f.cutEvent(s.op, s.meter.Sequence())
		if s.torn {
			told = append([]byte("\n\n"), told...)
		}
		s.cutOff(f, len(told))
		return written, emit(told)
	}
}

// awaitFirst waits for the first event with data of a stream of events, or the first byte of any other answer, and holds
// what has come by then. Nothing has reached the app when it returns, so that the request can still go elsewhere. An answer
// that is complete is no error, and neither are comments without an end: more than maxHeld of them are not awaited.
func (s *stream) awaitFirst() error {
	for !s.begun && len(s.out) <= maxHeld {
		if err := s.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	return nil
}

// fill takes in what has arrived, waiting for something if need be.
func (s *stream) fill() error {
	err := s.receive()
	s.measure()
	s.follow()
	if s.begun {
		s.proxy.ejections.answered(&s.trial)
	}
	return err
}

func (s *stream) receive() error {
	for {
		if !s.answer.ready() {
			s.waited = true
			s.arm()
		}
		b, err := s.answer.next()
		if err != nil {
			return err
		}
		s.out = append(s.out, b...)
		s.answer.skip(len(b))
		if len(s.out) >= readBufferSize || !s.answer.ready() {
			return nil
		}
	}
}

// arm sets the time limit of the next read. The idle limit is set anew only when an eighth of it has
// passed, and is as much longer.
func (s *stream) arm() {
	if !s.begun {
		s.conn.endBy(earlier(s.firstBy, s.deadline))
		return
	}
	if s.idle == 0 {
		s.conn.endBy(s.deadline)
		return
	}
	if now := time.Now(); now.Sub(s.armed) > s.idle/8 {
		s.armed = now
		s.conn.endBy(earlier(now.Add(s.idle+s.idle/8), s.deadline))
	}
}

// failure words what ended an answer in its middle.
func (s *stream) failure(err error) *failure {
	blame := s.upload.blame()
	switch {
	case blame != nil:
		return blame
	case s.client.left():
		return fail(routing.ClientGone, "the app has left")
	case s.conn.revoked.Load():
		return keyRevoked(s.key)
	case isTimeout(err) && !s.deadline.IsZero() && !time.Now().Before(s.deadline):
		return fail(routing.DeadlineExceeded, "the answer was not complete within the time that the rule allows: raise timeouts.request, or ask for less")
	case isTimeout(err) && !s.begun:
		return fail(routing.FirstTokenTimeout, "%s did not begin its answer in time: raise timeouts.firstToken if it needs longer, or have another provider tried (retryOn: first-token)", s.host)
	case isTimeout(err):
		return fail(routing.IdleTimeout, "%s stopped in the middle of its answer: ask again, or raise timeouts.idle if it pauses for so long", s.host)
	case errors.Is(err, errBrokenChunk):
		return fail(routing.UpstreamInvalid, "the answer of %s is not framed as HTTP/1.1 asks: correct the provider, or what is in front of it", s.host).because(err)
	}
	return fail(routing.UpstreamReset, "%s ended the connection in the middle of its answer: ask again, and if it happens often, look into its log", s.host).because(err)
}

// cut logs an answer that did not become complete.
func (p *Proxy) cut(s *stream, f *failure) {
	p.metrics.Failures(string(f.code)).Inc()
	s.judge(f)
	if f.code == routing.ClientGone {
		p.log.V(1).Info("the app left", "code", f.code, "upstream", s.host)
		return
	}
	p.log.Info("answer cut", append(origin(s.target, s.key), "code", f.code, "upstream", s.host, "message", f.message, "cause", text(f.cause))...)
}

// Close gives the connection back when the answer is complete, and ends it when not: that also ends
// the provider's work.
func (s *stream) Close() error {
	s.close()
	s.acquit()
	*s = stream{out: s.out[:0]}
	if cap(s.out) > 2*maxHeld {
		s.out = nil
	}
	streams.Put(s)
	return nil
}

func (s *stream) close() {
	s.upload.stop()
	s.client.attach(nil)
	s.settle()
	s.abandoned()
	s.proxy.answered(s.target, s.key, s.conn, s.status, s.complete)
	if s.answer.done && s.reusable && s.conn.br.Buffered() == 0 {
		s.conn.release()
	} else {
		s.conn.discard()
	}
}
