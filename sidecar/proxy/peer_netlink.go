package proxy

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The sizes of struct inet_diag_req_v2 and struct inet_diag_msg (linux/inet_diag.h), and of the addresses in both, which are
// struct inet_diag_sockid.
const (
	diagRequest = 56
	diagAnswer  = 72
	diagAddress = 48
)

// diagnose asks the kernel for the socket with these addresses. ENOENT: there is none, or the kernel cannot tell.
func diagnose(from, to netip.AddrPort) (e entry, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return e, err
	}
	defer unix.Close(fd)
	b := make([]byte, 0, unix.NLMSG_HDRLEN+diagRequest)
	b = binary.NativeEndian.AppendUint32(b, unix.NLMSG_HDRLEN+diagRequest)
	b = binary.NativeEndian.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence and port: there is one question
	family := byte(unix.AF_INET6)
	if from.Addr().Is4() {
		family = unix.AF_INET
	}
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // of every state
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	for _, a := range [...]netip.Addr{from.Addr(), to.Addr()} {
		var room [16]byte
		copy(room[:], a.AsSlice())
		b = append(b, room[:]...)
	}
	b = append(b, 0, 0, 0, 0)                                     // the device
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // whatever its cookie
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return e, err
	}
	var answer [1 << 10]byte
	n, _, err := unix.Recvfrom(fd, answer[:], unix.MSG_DONTWAIT) // the kernel has answered by now
	if err != nil {
		return e, err
	}
	return readDiagnosis(answer[:n], from, to)
}

func readDiagnosis(b []byte, from, to netip.AddrPort) (e entry, err error) {
	if len(b) < unix.NLMSG_HDRLEN+4 {
		return e, fmt.Errorf("%d bytes from netlink", len(b))
	}
	kind := binary.NativeEndian.Uint16(b[4:])
	b = b[unix.NLMSG_HDRLEN:]
	switch {
	case kind == unix.NLMSG_ERROR:
		return e, unix.Errno(-int32(binary.NativeEndian.Uint32(b)))
	case kind != unix.SOCK_DIAG_BY_FAMILY || len(b) < diagAnswer:
		return e, fmt.Errorf("a message of kind %d and %d bytes from netlink", kind, len(b))
	}
	size := 16
	if b[0] == unix.AF_INET {
		size = 4
	}
	address := func(at int) netip.Addr {
		a, _ := netip.AddrFromSlice(b[at : at+size])
		return a.Unmap() // an IPv6 socket can have a connection of IPv4
	}
	e = entry{
		from:  netip.AddrPortFrom(address(8), binary.BigEndian.Uint16(b[4:])),
		to:    netip.AddrPortFrom(address(24), binary.BigEndian.Uint16(b[6:])),
		state: b[1],
	}
	rest := b[4+diagAddress:] // expiry, two queues
	e.uid, e.inode = binary.NativeEndian.Uint32(rest[12:]), binary.NativeEndian.Uint32(rest[16:])
	if e.from != from || e.to != to {
		return e, unix.ENOENT // where none is connected so, the kernel gives one that listens there
	}
	return e, nil
}
