package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

const (
	formHead   = 1 << 20  // of a form, in which its model is looked for; what is longer is streamed
	plainHead  = 64 << 10 // of a body that nobody looks into: what is longer is streamed
	prefetched = 8 << 10  // of a body, before the call begins
	keepBody   = 1 << 20  // the largest body buffer that is kept for another request
)

// buffers are those of bodies that are too large to be kept with a call.
var buffers sync.Pool // *buffer

type buffer struct{ b []byte }

// intake takes in what has to be seen of a body before the request can go out: all of a JSON object, the
// beginning of a form, and of anything else what is so short that it may as well be sent again. c.rest is
// what comes after that.
func (c *call) intake(in io.Reader, host *routing.Host) *failure {
	length := c.ctx.Request.Header.ContentLength()
	if in == nil || length == 0 {
		return nil
	}
	limit := host.MaxBody
	if int64(length) > limit {
		return tooLarge(int64(length), limit, limitAt(host))
	}
	if host.Plain {
		return c.intakePlain(in, length, host)
	}
	switch o := c.operation; {
	case o != nil && o.JSON:
		if f := c.takeIn(in, length, limit+1); f != nil {
			return f
		}
		if c.rest != nil {
			return tooLarge(0, limit, limitAt(host))
		}
		return c.decode(limit, host)
	case o != nil && o.Form:
		return c.takeIn(in, length, min(limit, formHead))
	case length > plainHead, length < 0 && c.passes(host):
		c.rest = in
		return nil
	}
	return c.takeIn(in, length, min(limit, plainHead))
}

// passes tells whether a request that nobody looks into can go anywhere. What cannot is read, where it is
// short, so that the app's connection survives the refusal.
func (c *call) passes(host *routing.Host) bool {
	if c.operation != nil {
		return true
	}
	rule := host.Match(matchable{c}, nil)
	if rule == nil {
		return false
	}
	for i := range rule.Levels {
		if slices.ContainsFunc(rule.Levels[i].Backends, func(b routing.Backend) bool { return b.Target != nil && !b.Target.Keyed() }) {
			return true
		}
	}
	return false
}

// takeIn reads up to most bytes of the body. Where there is more, or may be, c.rest is set.
func (c *call) takeIn(in io.Reader, length int, most int64) *failure {
	if length > 0 {
		// All of it at once: see memory.
		if f := c.room(int(min(int64(length), most))); f != nil {
			return f
		}
	}
	var late *trailers
	if length < 0 {
		late = keepFromTrailers(&c.ctx.Request.Header)
		defer late.drop()
	}
	if len(c.body) == 0 && (length < 0 || length > prefetched) { // it may have to be waited for
		c.rec.own()
		defer c.rec.idle()
	}
	defer c.rec.took(c)
	m := c.proxy.memory
	m.receive(&c.share, c.client)
	defer m.arrived(&c.share)
	for {
		if int64(len(c.body)) >= most && int64(length) != most {
			c.rest = in
			return nil
		}
		if len(c.body) == cap(c.body) {
			if f := c.grow(most); f != nil {
				return f
			}
			m.receive(&c.share, c.client)
		}
		if len(c.body) > prefetched || length < 0 { // the first 8 KiB are here already
			_ = c.client.SetReadDeadline(time.Now().Add(c.proxy.patience))
		}
		if c.share.evicted.Load() {
			return tooSlow()
		}
		n, err := in.Read(c.body[len(c.body):min(cap(c.body), int(most))])
		c.body = c.body[:len(c.body)+n]
		c.share.got.Add(int64(n))
		switch {
		case err == io.EOF && len(c.body) >= length:
			c.read = true
			return nil
		case err != nil && c.share.evicted.Load():
			return tooSlow()
		case err != nil:
			return c.proxy.incomplete(c.client, err)
		}
	}
}

// room makes the body's buffer at least size bytes large.
func (c *call) room(size int) *failure {
	if size <= cap(c.body) {
		return nil
	}
	if size <= freeBody {
		c.body = append(make([]byte, 0, smallBody(size)), c.body...)
		return nil
	}
	b, _ := buffers.Get().(*buffer)
	if b == nil || cap(b.b) < size || cap(b.b) > 2*size {
		b = &buffer{}
		size = (size + freeBody - 1) &^ (freeBody - 1)
	} else {
		size = cap(b.b)
	}
	if f := c.proxy.memory.take(&c.share, int64(size), c.client); f != nil {
		recycle(b)
		return f
	}
	if b.b == nil {
		b.b = make([]byte, 0, size)
	}
	old, charged := c.buffer, c.charged()
	c.body, c.buffer = append(b.b[:0], c.body...), b
	recycle(old)
	c.proxy.memory.give(&c.share, charged)
	return nil
}

// smallBody is how large a buffer is that is kept with a call, so that most requests find one that is large enough.
func smallBody(size int) int {
	if size <= freeBody/4 {
		return freeBody / 4
	}
	return freeBody
}

// charged is what the body's buffer has of the memory.
func (c *call) charged() int64 {
	if c.buffer == nil {
		return 0
	}
	return int64(cap(c.body))
}

// grow makes room for more of a body whose length is not known. While it is copied, both buffers count.
func (c *call) grow(most int64) *failure {
	had := cap(c.body)
	size := max(4096, 2*had)
	if size > freeBody {
		free := c.proxy.memory.total - c.charged()
		size = int(max(min(int64(size), most, free), int64(had)+freeBody))
	}
	return c.room(size)
}

// forget lets go of the body: nobody needs it any more.
func (c *call) forget() {
	if c.buffer != nil {
		recycle(c.buffer)
		c.buffer, c.body = nil, nil
	}
	c.document = document{}
	c.proxy.memory.give(&c.share, c.share.size)
}

func recycle(b *buffer) {
	if b != nil && b.b != nil && cap(b.b) <= keepBody {
		buffers.Put(b)
	}
}

// trailers keep the headers of a request as they were before its body: the server puts what follows a body in chunks among
// them, where rules and providers would see it.
type trailers struct {
	h      *fasthttp.RequestHeader
	before fasthttp.RequestHeader
	count  int
}

var lateHeaders = sync.Pool{New: func() any { return new(trailers) }}

func keepFromTrailers(h *fasthttp.RequestHeader) *trailers {
	t := lateHeaders.Get().(*trailers)
	h.CopyTo(&t.before)
	t.h, t.count = h, h.Len()
	return t
}

// drop removes the trailers that have come.
func (t *trailers) drop() {
	if t.h.Len() != t.count {
		// What the call has taken from the headers stays what it is: the same text comes to the same place.
		t.before.CopyTo(t.h)
	}
	t.before.Reset()
	t.h = nil
	lateHeaders.Put(t)
}

// tooLarge refuses a body over a limit, which is set where it says; length is 0 where it is not known.
func tooLarge(length, limit int64, where string) *failure {
	is := "the body is larger than that"
	if length > 0 {
		is = fmt.Sprintf("the body has %d bytes", length)
	}
	return fail(routing.RequestTooLarge, "at most %d bytes are taken (%s), and %s: send less, or raise the limit", limit, where, is)
}

// limitAt says where the limit of a host is set. In the end it is that of a rule, which depends on what is in the
// body where there are several.
func limitAt(host *routing.Host) string {
	if len(host.Rules) == 1 {
		return limitOf(host.Rules[0])
	}
	return "the largest limits.requestBody of the rules of the LLMRoute for " + host.Name
}

// limitOf says where the limit of a rule is set, or can be.
func limitOf(r *routing.Rule) string {
	switch {
	case r.Owner.Kind == "LLMProvider":
		return "the default; limits.requestBody in a rule of an LLMRoute for the host is another"
	case r.Name == "":
		return fmt.Sprintf("limits.requestBody of a rule of %s", r.Owner)
	}
	return fmt.Sprintf("limits.requestBody of rule %s of %s", r.Name, r.Owner)
}

// incomplete says why the rest of a request did not come. What does come could be anything.
func (p *Proxy) incomplete(client *clientConn, err error) *failure {
	var netErr net.Error
	switch {
	case errors.As(err, &netErr) && netErr.Timeout(), errors.Is(err, fasthttp.ErrTimeout):
		return fail(routing.RequestTimeout, "nothing of the body arrived for %s", p.patience)
	case client.left(), errors.Is(err, io.EOF):
		return fail(routing.ClientGone, "the app left in the middle of its request").because(err)
	}
	return fail(routing.InvalidRequest, "the body is not framed as HTTP/1.1 asks: check its length or chunks")
}
