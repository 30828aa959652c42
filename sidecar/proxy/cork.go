package proxy

import (
	"net"
	"sync"
)

// corkSize is how much is held back at most before it goes to the kernel.
const corkSize = 64 << 10

// corked is a connection below TLS on which records can be held back, to go out together. Of themselves, the records of a
// long prompt, 16 KiB each, take a system call and a wakeup of the other side for each: half of what such a request costs.
type corked struct {
	net.Conn
	held *[]byte // nil: nothing is held back
}

var corks = sync.Pool{New: func() any {
	b := make([]byte, 0, corkSize+corkSize/2) // one record more
	return &b
}}

// cork holds back what is written from now on.
func (c *corked) cork() { c.held = corks.Get().(*[]byte) }

// uncork sends what is held back.
func (c *corked) uncork() error {
	held := c.held
	err := c.flush()
	c.held = nil
	corks.Put(held)
	return err
}

func (c *corked) flush() error {
	b := *c.held
	*c.held = b[:0]
	if len(b) == 0 {
		return nil
	}
	_, err := c.Conn.Write(b)
	return err
}

// Write sends b, or holds it back.
func (c *corked) Write(b []byte) (int, error) {
	if c.held == nil {
		return c.Conn.Write(b)
	}
	if *c.held = append(*c.held, b...); len(*c.held) >= corkSize {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
