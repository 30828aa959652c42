//go:build linux

package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to an address as a process of the node does: those of Services and of pods are reached, too. It is a DialContext of net/http, for
// IP addresses.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	pid, err := n.Init()
	if err != nil {
		return nil, err
	}
	type dialled struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialled, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this
		namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil {
			done <- dialled{nil, err}
			return
		}
		defer namespace.Close()
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- dialled{nil, err}
			return
		}
		// A socket stays in the namespace that it was made in, whoever uses it. For an IP address, this thread makes it.
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		done <- dialled{conn, err}
	}()
	result := <-done
	return result.conn, result.err
}
