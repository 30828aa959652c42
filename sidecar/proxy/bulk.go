package proxy

import (
	"errors"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is how much goes through a pipe at once; the kernel allows that much without privilege.
const pipeSize = 1 << 20

// pipe is a place in the kernel by which bytes get from one connection to another without being copied.
type pipe struct {
	in, out int
	closing runtime.Cleanup // where the pool drops it
}

// pipes keeps those that are empty. What the pool drops is closed.
var pipes = sync.Pool{New: func() any {
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return (*pipe)(nil) // too many files are open: it works without as well
	}
	_, _ = unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, pipeSize) // a smaller one carries less at once
	p := &pipe{in: ends[1], out: ends[0]}
	p.closing = runtime.AddCleanup(p, closePipe, ends)
	return p
}}

func closePipe(ends [2]int) {
	_ = unix.Close(ends[0])
	_ = unix.Close(ends[1])
}

// bulk brings what comes in large amounts. It copies nothing, but takes a pipe, which it has only while something comes.
type bulk struct {
	pipe   *pipe
	left   int  // bytes in the pipe
	due    bool // what came last was much
	unable bool // there is no pipe, or the kernel does not splice
}

// drain moves what has come into the pipe. EAGAIN says that nothing has.
func (b *bulk) drain(fd int) (int, error) {
	if b.pipe == nil {
		b.pipe = pipes.Get().(*pipe)
	}
	if b.pipe == nil {
		b.unable = true
		return 0, unix.EINVAL
	}
	for {
		n, err := unix.Splice(fd, nil, b.pipe.in, nil, pipeSize, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		b.left = int(max(n, 0))
		b.unable = errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
		if b.left == 0 {
			b.rest()
		}
		return b.left, err
	}
}

// pump moves what is in the pipe on.
func (b *bulk) pump(to syscall.RawConn) error {
	var failed error
	err := to.Write(func(fd uintptr) bool {
		for b.left > 0 {
			n, err := unix.Splice(b.pipe.out, nil, int(fd), nil, b.left, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return false
			case errors.Is(err, unix.EINTR):
			case err != nil:
				failed = err
				return true
			default:
				b.left -= int(n)
			}
		}
		return true
	})
	b.rest()
	return errors.Join(err, failed)
}

// rest gives the pipe back. One that is not empty has no further use.
func (b *bulk) rest() {
	if b.left == 0 {
		pipes.Put(b.pipe)
	} else {
		b.pipe.closing.Stop()
		closePipe([2]int{b.pipe.in, b.pipe.out})
	}
	b.pipe = nil
}
