package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// pair gives both ends of a connection. The dialling one is of the user.
func pair(t *testing.T, uid int, family int, listen string, to unix.Sockaddr) (dialled, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	switch to := to.(type) {
	case *unix.SockaddrInet4:
		to.Port = port
	case *unix.SockaddrInet6:
		to.Port = port
	}
	runtime.LockOSThread() // of which the user is a property
	defer runtime.UnlockOSThread()
	_ = unix.Setfsuid(uid)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	_ = unix.Setfsuid(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "dialled")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return c.(*net.TCPConn), a.(*net.TCPConn)
}

// ways are those to learn of a socket.
var ways = map[string]func(from, to netip.AddrPort) (entry, error){"netlink": diagnose, "/proc": listed}

func TestTheKernelNamesTheUserWhoseSocketItIs(t *testing.T) {
	f := func(name string, family int, listen string, to unix.Sockaddr) {
		t.Run(name, func(t *testing.T) {
			dialled, accepted := pair(t, 4711, family, listen, to)
			from, here := addrPort(accepted.RemoteAddr()), addrPort(accepted.LocalAddr())
			for way, look := range ways {
				if e, err := look(from, here); err != nil || e.uid != 4711 || !e.held() {
					t.Errorf("%s says %+v, %v", way, e, err)
				}
				if e, err := look(here, from); err != nil || e.uid != uint32(os.Getuid()) {
					t.Errorf("%s says of this end %+v, %v", way, e, err)
				}
				other := netip.AddrPortFrom(here.Addr(), here.Port()+1)
				if e, err := look(from, other); !errors.Is(err, unix.ENOENT) {
					t.Errorf("%s finds what is not there: %+v, %v", way, e, err)
				}
			}
			if uid, ok := peerUID(accepted, here); !ok || uid != 4711 {
				t.Errorf("got %d, %v", uid, ok)
			}
			_ = dialled.CloseWrite()
			if _, err := io.Copy(io.Discard, accepted); err != nil {
				t.Fatal(err)
			}
			if uid, ok := peerUID(accepted, here); !ok || uid != 4711 {
				t.Errorf("of one that has closed its side: %d, %v", uid, ok)
			}
		})
	}
	f("IPv4", unix.AF_INET, "127.0.0.1:0", &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	f("IPv6", unix.AF_INET6, "[::1]:0", &unix.SockaddrInet6{Addr: netip.MustParseAddr("::1").As16()})
	f("IPv4 by a socket of IPv6", unix.AF_INET6, "127.0.0.1:0", &unix.SockaddrInet6{Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()})
	f("IPv4 to a listener on both", unix.AF_INET, "[::]:0", &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
}

// The kernel says of all of these that they are root's.
func TestASocketThatNobodyHoldsIsNobodys(t *testing.T) {
	f := func(name string, end func(dialled, accepted *net.TCPConn)) {
		t.Run(name, func(t *testing.T) {
			dialled, accepted := pair(t, 4711, unix.AF_INET, "127.0.0.1:0", &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
			from, here := addrPort(accepted.RemoteAddr()), addrPort(accepted.LocalAddr())
			end(dialled, accepted)
			for way, look := range ways {
				if e, err := look(from, here); err == nil && e.held() {
					t.Errorf("%s says %+v", way, e)
				}
			}
			if uid, ok := peerUID(accepted, here); ok {
				t.Errorf("got %d", uid)
			}
		})
	}
	f("closed", func(dialled, _ *net.TCPConn) { _ = dialled.Close() })
	f("reset", func(dialled, accepted *net.TCPConn) {
		_ = dialled.SetLinger(0)
		_ = dialled.Close()
		_, _ = accepted.Read(make([]byte, 1))
	})
	f("in TIME_WAIT", func(dialled, accepted *net.TCPConn) {
		_ = dialled.CloseWrite()
		_, _ = io.Copy(io.Discard, accepted)
		_ = accepted.CloseWrite()
		_, _ = io.Copy(io.Discard, dialled)
	})
	f("left over after this end was closed", func(_, accepted *net.TCPConn) { _ = accepted.CloseWrite() })
}

// A socket that listens is what the kernel names where none is connected.
func TestAListenerIsNotTakenForACaller(t *testing.T) {
	var from, here netip.AddrPort
	for {
		dialled, accepted := pair(t, 4711, unix.AF_INET, "127.0.0.1:0", &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		from, here = addrPort(accepted.RemoteAddr()), addrPort(accepted.LocalAddr())
		_ = dialled.SetLinger(0)
		_ = dialled.Close()
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(int(from.Port())))
		if errors.Is(err, unix.EADDRINUSE) {
			continue // some other connection has the port by now
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		break
	}
	for way, look := range ways {
		if e, err := look(from, here); err == nil {
			t.Errorf("%s finds %+v", way, e)
		}
	}
}
