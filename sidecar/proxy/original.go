package proxy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// originalDestination tells where a connection was going before the pod's redirection turned it to the proxy. It is
// false for one that was made to the proxy itself: an explicit one, as all are where nothing is redirected.
func originalDestination(c *net.TCPConn) (netip.AddrPort, bool) {
	local := c.LocalAddr().(*net.TCPAddr).AddrPort() // of a TCP connection, it always is
	here := netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	if !here.Addr().IsLoopback() {
		return netip.AddrPort{}, false // redirection ends at loopback; an address translated elsewhere is none of it
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, false
	}
	var to netip.AddrPort
	ask := original6
	// Of a listener on both families, only the connection knows which of them it is.
	if c.RemoteAddr().(*net.TCPAddr).IP.To4() != nil {
		ask = original4
	}
	if ctlErr := raw.Control(func(fd uintptr) { to, err = ask(int(fd)) }); ctlErr != nil || err != nil {
		return netip.AddrPort{}, false // ENOENT: nothing was translated; ENOPROTOOPT: nothing here ever is
	}
	return to, to != here
}

// original4 asks by a call that is made for another structure: struct sockaddr_in fits into it.
func original4(fd int) (netip.AddrPort, error) {
	answer, err := unix.GetsockoptIPv6Mreq(fd, unix.IPPROTO_IP, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, err
	}
	b := answer.Multiaddr // family, port, address
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
}

// original6 asks for a struct sockaddr_in6, which is what the structure of this call begins with.
func original6(fd int) (netip.AddrPort, error) {
	answer, err := unix.GetsockoptIPv6MTUInfo(fd, unix.IPPROTO_IPV6, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr := netip.AddrFrom16(answer.Addr.Addr)
	if addr.IsLinkLocalUnicast() && answer.Addr.Scope_id != 0 {
		addr = addr.WithZone(strconv.FormatUint(uint64(answer.Addr.Scope_id), 10))
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], answer.Addr.Port) // as it lies in memory: in network order
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port[:])), nil
}
