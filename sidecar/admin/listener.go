package admin

import (
	"container/list"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	maxConns  = 256                   // of one listener
	againTime = 50 * time.Millisecond // until the next try where a connection could not be accepted
)

// newest is a listener whose connections over maxConns close the oldest ones: nobody keeps the probes out
// by opening connections and leaving them.
type newest struct {
	net.Listener

	mu   sync.Mutex
	open list.List // of net.Conn, the oldest first
}

// Accept waits for the next connection. It fails only when the listener is closed: the server would give up
// for good, where a lack of file descriptors or memory passes.
func (n *newest) Accept() (net.Conn, error) {
	for {
		c, err := n.Listener.Accept()
		if err == nil {
			return n.add(c), nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		<-time.After(againTime)
	}
}

func (n *newest) add(c net.Conn) net.Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open.Len() >= maxConns {
		_ = n.open.Remove(n.open.Front()).(net.Conn).Close() // its own Close does the rest
	}
	return &counted{Conn: c, of: n, at: n.open.PushBack(c)}
}

// counted is a connection that a newest knows.
type counted struct {
	net.Conn
	of *newest
	at *list.Element
}

// Close closes the connection and forgets it.
func (c *counted) Close() error {
	c.of.mu.Lock()
	c.of.open.Remove(c.at) // does nothing where it is not in the list any more
	c.of.mu.Unlock()
	return c.Conn.Close()
}
