package proxy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listed looks for the socket with these addresses in /proc, where netlink cannot be asked: a profile of seccomp may forbid it,
// and not every kernel has it. Of sockets that are bound to devices, several can have the same addresses: then it is none.
func listed(from, to netip.AddrPort) (found entry, err error) {
	n := 0
	for _, file := range [...]string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // without IPv6
		}
		if err != nil {
			return found, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if e, ok := readListed(lines.Text()); ok && e.from == from && e.to == to {
				found, n = e, n+1
			}
		}
		_ = f.Close()
		if err := lines.Err(); err != nil {
			return found, err
		}
	}
	if n != 1 {
		return found, unix.ENOENT
	}
	return found, nil
}

// readListed reads a line of /proc/net/tcp or tcp6 (Documentation/networking/proc_net_tcp.rst).
func readListed(line string) (e entry, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return e, false
	}
	state, err := strconv.ParseUint(fields[3], 16, 8)
	uid, err1 := strconv.ParseUint(fields[7], 10, 32)
	inode, err2 := strconv.ParseUint(fields[9], 10, 32)
	if errors.Join(err, err1, err2) != nil {
		return e, false
	}
	e = entry{state: uint8(state), uid: uint32(uid), inode: uint32(inode)}
	var ok1, ok2 bool
	e.from, ok1 = readAddress(fields[1])
	e.to, ok2 = readAddress(fields[2])
	return e, ok1 && ok2
}

// readAddress reads ADDRESS:PORT in hexadecimal. The address is in words of this machine's order.
func readAddress(s string) (netip.AddrPort, bool) {
	address, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(address)
	n, err1 := strconv.ParseUint(port, 16, 16)
	if errors.Join(err, err1) != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for at := 0; at < len(b); at += 4 {
		binary.NativeEndian.PutUint32(b[at:], binary.BigEndian.Uint32(b[at:]))
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}
