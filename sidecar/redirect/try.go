//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"remora.dev/remora/sidecar/redirect/plan"
)

// trial bounds one connection, which never leaves the machine.
const trial = 5 * time.Second

// try connects as an app would, to an address that nobody has, and wants the connection to arrive where the sidecar listens,
// with its destination. It tells how it could be tried. That the sidecar's own connections are left alone cannot be tried
// here, since this program may not become another user; the order of the rules has been read back instead.
func try(ctx context.Context, wish plan.Wish, f plan.Family) (string, error) {
	target, ok := wish.Target(f)
	if !ok {
		return "not tried, since every address to try it with is excluded", nil
	}
	// This sends nothing: it only asks for the route.
	var dialer net.Dialer
	route, err := dialer.DialContext(ctx, "udp", netip.AddrPortFrom(target, wish.Ports[0]).String())
	if err != nil {
		return fmt.Sprintf("not tried, since the pod has no %s route to the world", f), nil
	}
	_ = route.Close()

	var config net.ListenConfig
	at := f.Listener()
	listener, err := config.Listen(ctx, "tcp", at.String())
	beside := errors.Is(err, syscall.EADDRINUSE) // a second run, beside the sidecar
	switch {
	case err == nil:
		defer listener.Close()
	case !beside:
		return "", fmt.Errorf("nothing can listen at %s, where they lead: %w", at, err)
	}
	for _, port := range wish.Ports {
		to := netip.AddrPortFrom(target, port)
		limited, cancel := context.WithTimeout(ctx, trial)
		conn, err := dialer.DialContext(limited, "tcp", to.String())
		cancel()
		if err == nil {
			if err = listed(conn, at); err == nil && !beside {
				err = accepted(listener.(*net.TCPListener), conn, to)
			}
			_ = conn.Close()
		}
		if err != nil {
			return "", fmt.Errorf("a connection to %s did not arrive at %s: %w. Something else takes the pod's connections first "+
				"or keeps the table nat from seeing them: rules that are not iptables' (nft list ruleset), or a network plug-in", to, at, err)
		}
	}
	if beside {
		return "tried, beside the sidecar that is at work", nil
	}
	return "tried", nil
}

// accepted waits for the connection at our own listener, and asks for its destination as the sidecar will.
func accepted(listener *net.TCPListener, conn net.Conn, to netip.AddrPort) error {
	if err := listener.SetDeadline(time.Now().Add(trial)); err != nil {
		return err
	}
	for {
		arrived, err := listener.AcceptTCP()
		if err != nil {
			return err
		}
		if arrived.RemoteAddr().String() != conn.LocalAddr().String() {
			_ = arrived.Close() // somebody else's
			continue
		}
		defer arrived.Close()
		got, err := destination(arrived)
		if err == nil && got != to {
			err = fmt.Errorf("its destination became %s", got)
		}
		return err
	}
}

// destination is where a redirected connection was going, as the kernel remembers it.
func destination(conn *net.TCPConn) (netip.AddrPort, error) {
	const (
		originalDestination = 80 // SO_ORIGINAL_DST of linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST
		levelIPv6           = 41
	)
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var found netip.AddrPort
	six := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Is6()
	controlErr := raw.Control(func(fd uintptr) {
		if six {
			var info *syscall.IPv6MTUInfo // begins with a sockaddr_in6
			if info, err = syscall.GetsockoptIPv6MTUInfo(int(fd), levelIPv6, originalDestination); err == nil {
				port := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, info.Addr.Port))
				found = netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), port)
			}
			return
		}
		var request *syscall.IPv6Mreq // as long as a sockaddr_in: family, port, address
		if request, err = syscall.GetsockoptIPv6Mreq(int(fd), syscall.SOL_IP, originalDestination); err == nil {
			b := request.Multiaddr
			found = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4]))
		}
	})
	return found, errors.Join(controlErr, err)
}

// listed looks for the connection among those that the kernel has at an address. It needs no listener of our own there, so it
// serves beside the sidecar, too.
func listed(conn net.Conn, at netip.AddrPort) error {
	file := "/proc/self/net/tcp"
	if at.Addr().Is6() {
		file += "6"
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	want := kernelAddress(at) + " " + kernelAddress(conn.LocalAddr().(*net.TCPAddr).AddrPort())
	if !strings.Contains(string(content), " "+want+" ") {
		return fmt.Errorf("it reached something else (%s has no such connection)", file)
	}
	return nil
}

// kernelAddress writes an address as /proc/net/tcp does: words of 32 bits as the machine holds them, and the port.
func kernelAddress(a netip.AddrPort) string {
	bytes := a.Addr().AsSlice()
	var b strings.Builder
	for len(bytes) > 0 {
		fmt.Fprintf(&b, "%08X", binary.NativeEndian.Uint32(bytes))
		bytes = bytes[4:]
	}
	fmt.Fprintf(&b, ":%04X", a.Port())
	return b.String()
}
