package proxy

import (
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// upload is a body that is passed on as it arrives. It goes on while the answer comes, until it ends or the
// answer does.
type upload struct {
	proxy  *Proxy
	client *clientConn
	conn   *upConn
	body   io.Reader
	left   int64         // of a body whose length is announced; -1: it is in chunks
	rule   *routing.Rule // whose limit holds for one in chunks; nil: no limit
	most   int64

	done     chan struct{} // closed when nothing runs any more; what follows can be read then
	failure  *failure      // of the app
	complete bool
	ended    time.Time // of a complete one

	got atomic.Int64 // bytes that came from the app

	taken    atomic.Bool // all of the body has come from the app, whose connection is free for the next request
	stopped  atomic.Bool
	mu       sync.Mutex
	answered bool          // the head of the answer is here
	within   time.Duration // after the end of the body, for the beginning of the answer; 0: no limit
}

const uploadPiece = 16 << 10

// uploads are their buffers, with room for what frames a chunk: the size before it, and the line ends.
var uploads = sync.Pool{New: func() any { return new([10 + uploadPiece + 2]byte) }}

// frame fits the head and body of a request to a body that is sent as it arrives.
func (c *call) frame(out *outgoing, body *segments) {
	out.websocket = c.websocket
	if c.rest == nil {
		return
	}
	out.length = c.ctx.Request.Header.ContentLength()
	if out.length < 0 && len(c.body) > 0 {
		*body = segments{}
		body.add(append(strconv.AppendInt(nil, int64(len(c.body)), 16), "\r\n"...))
		body.add(c.body)
		body.add([]byte("\r\n"))
	}
}

// deliver sends a request and reads the head of its answer, which may come before the body has been sent.
// firstBy is when the answer has to begin; it is later where the body takes long.
func (c *call) deliver(conn *upConn, body *segments, firstBy *time.Time) error {
	err := send(conn, &c.head, body)
	if c.rest == nil {
		return c.finish(conn, err)
	}
	if err != nil {
		c.keepApart()
		return c.finish(conn, err)
	}
	h := &c.ctx.Request.Header
	u := &upload{proxy: c.proxy, client: c.client, conn: conn, body: c.rest, left: -1, done: make(chan struct{})}
	if length := h.ContentLength(); length >= 0 {
		u.left = int64(length - len(c.body))
	}
	if rule := c.rule; rule != nil {
		u.within = rule.Timeouts.FirstToken
		if u.left < 0 {
			u.most, u.rule = rule.MaxBody-int64(len(c.body)), rule
		}
	}
	c.forget()
	conn.endBy(c.deadline) // the other begins with the end of the body
	c.upload = u
	go u.run()
	err = c.finish(conn, nil)
	if err != nil {
		if f := c.stopUpload(); f != nil {
			return f
		}
		c.trial.hurried = c.trial.hurried || !u.complete // the app may have had the time
		return err
	}
	u.mu.Lock()
	u.answered = true
	_ = conn.SetReadDeadline(c.deadline)
	u.mu.Unlock()
	if u.within > 0 {
		*firstBy = time.Now().Add(u.within)
	}
	if c.read = u.taken.Load(); !c.read {
		c.keepApart()
	}
	return nil
}

// keepApart ends the app's connection with the answer: what is still to come of the body would be taken for a request.
func (c *call) keepApart() {
	c.closing = true
	c.client.lingering.Store(true)
}

// stopUpload ends the upload, if there is one, and says why it failed, if it was the app's fault.
func (c *call) stopUpload() *failure {
	if c.upload == nil {
		return nil
	}
	u := c.upload
	u.stop()
	c.upload = nil
	c.rec.uploaded(u)
	c.read = c.read || u.complete
	return u.failure
}

// blame says why an upload ended the request, if it did.
func (u *upload) blame() *failure {
	if u == nil {
		return nil
	}
	select {
	case <-u.done:
		return u.failure
	default:
		return nil
	}
}

// stop ends the upload and waits for its end.
func (u *upload) stop() {
	if u == nil {
		return
	}
	select {
	case <-u.done:
	default:
		past := time.Unix(1, 0)
		u.stopped.Store(true)
		_, _ = u.client.SetReadDeadline(past), u.conn.SetWriteDeadline(past)
		<-u.done
		_, _ = u.client.SetReadDeadline(time.Time{}), u.conn.SetWriteDeadline(u.conn.deadline)
	}
	if !u.complete {
		u.conn.spent = true // nothing can follow on it
	}
}

// run passes the body on.
func (u *upload) run() {
	defer close(u.done)
	buf := uploads.Get().(*[10 + uploadPiece + 2]byte)
	defer uploads.Put(buf)
	for u.left != 0 {
		_ = u.client.SetReadDeadline(time.Now().Add(u.proxy.patience))
		if u.stopped.Load() {
			return
		}
		n, err := u.body.Read(buf[10 : 10+uploadPiece])
		u.got.Add(int64(n))
		if u.left < 0 && err == io.EOF {
			u.taken.Store(true)
			break
		}
		if err != nil && (err != io.EOF || int64(n) < u.left) {
			if !u.stopped.Load() {
				u.fail(u.proxy.incomplete(u.client, err))
			}
			return
		}
		if u.rule != nil {
			if u.most -= int64(n); u.most < 0 {
				u.fail(tooLarge(0, u.rule.MaxBody, limitOf(u.rule)))
				return
			}
		}
		if int64(n) == u.left {
			u.taken.Store(true)
		}
		if !u.write(buf, n) {
			return
		}
		if u.left > 0 {
			u.left -= int64(n)
		}
	}
	if u.left < 0 && !u.send([]byte("0\r\n\r\n")) {
		return
	}
	u.complete, u.ended = true, time.Now()
	_ = u.conn.SetWriteDeadline(time.Time{})
	u.answerWithin(u.within)
}

// answerWithin bounds the wait for the answer, if there is none yet.
func (u *upload) answerWithin(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if d > 0 && !u.answered {
		_ = u.conn.SetReadDeadline(earlier(time.Now().Add(d), u.conn.deadline))
	}
}

// fail ends the request, for which the connection to the provider has to end.
func (u *upload) fail(f *failure) {
	u.failure = f
	u.conn.abort()
}

func (u *upload) write(buf *[10 + uploadPiece + 2]byte, n int) bool {
	if n == 0 {
		return true
	}
	if u.left >= 0 {
		return u.send(buf[10 : 10+n])
	}
	size := strconv.AppendInt(nil, int64(n), 16)
	begin := 10 - len(size) - 2
	copy(buf[begin:], size)
	copy(buf[8:], "\r\n")
	copy(buf[10+n:], "\r\n")
	return u.send(buf[begin : 10+n+2])
}

// send is false where the provider takes no more: its answer, or the end of the connection, says why.
func (u *upload) send(b []byte) bool {
	_ = u.conn.SetWriteDeadline(time.Now().Add(u.proxy.patience))
	if u.stopped.Load() {
		return false
	}
	_, err := u.conn.Write(b)
	if err != nil && !u.stopped.Load() {
		u.answerWithin(lingerTime)
	}
	return err == nil
}

// refuseLength applies the limit of the rule, once it is known.
func (c *call) refuseLength() *failure {
	length := int64(len(c.body))
	if c.rest != nil {
		length = max(length, int64(c.ctx.Request.Header.ContentLength()))
	}
	if length > c.rule.MaxBody {
		return tooLarge(length, c.rule.MaxBody, limitOf(c.rule))
	}
	return nil
}
