//go:build linux

package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// capture looks at every packet that passes an interface of the node, the host's end of each pod's among them, for a marker. What
// follows the marker tells a prompt that must stay in the pod (kept) from one that is sent in plain text on purpose (told), which
// proves that the other would be seen.
type capture struct {
	marker []byte
	socket *os.File
	ended  chan error

	mu      sync.Mutex
	packets int
	kept    []string
	told    map[string]bool
}

const (
	keptPrompt = "/kept/"
	toldPrompt = "/told/"
)

// followsMarker is the kind of a prompt, and who sent it.
var followsMarker = regexp.MustCompile(`^/(?:kept|told)/[0-9a-z-]*`)

// watchPackets begins before it returns.
func watchPackets(t *testing.T, marker string) *capture {
	t.Helper()
	socket, err := packetSocket()
	if err != nil {
		t.Fatalf("capture packets: %v", err)
	}
	c := &capture{marker: []byte(marker), socket: socket, ended: make(chan error, 1), told: map[string]bool{}}
	go func() { c.ended <- c.run() }()
	t.Cleanup(func() { _ = socket.Close() })
	return c
}

// packetSocket receives what passes any interface of the node but loopback, over which only its own components talk.
func packetSocket() (*os.File, error) {
	var fd int
	err := inNetworkOf(cluster.Init, func() (err error) {
		const everything = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in the network's order
		// With no protocol it receives nothing until it is bound: nothing comes unfiltered, or into too small a buffer.
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		const hardwareType = 0xfffff000 + 28 // SKF_AD_OFF + SKF_AD_HATYPE of linux/filter.h
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: hardwareType},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ARPHRD_LOOPBACK, Jt: 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 18},
			{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		}
		return errors.Join(
			unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything}),
		)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packets"), nil
}

// inNetworkOf calls f in the network namespace of a process.
func inNetworkOf(process func() (int, error), f func() error) error {
	pid, err := process()
	if err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this
		namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			defer namespace.Close()
			err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (c *capture) run() error {
	packet := make([]byte, 1<<18)
	for {
		n, err := c.socket.Read(packet)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if errors.Is(err, unix.ENETDOWN) { // an interface has gone
			continue
		}
		if err != nil {
			return err
		}
		c.look(packet[:n])
	}
}

func (c *capture) look(packet []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.packets++
	for rest := packet; ; {
		i := bytes.Index(rest, c.marker)
		if i < 0 {
			return
		}
		rest = rest[i+len(c.marker):]
		prompt := string(followsMarker.Find(rest))
		if bytes.HasPrefix(rest, []byte(toldPrompt)) {
			c.told[prompt] = true
			continue
		}
		c.kept = append(c.kept, fmt.Sprintf("%s: %s", route4(packet), prompt))
	}
}

// route4 tells where a packet comes from and goes to.
func route4(packet []byte) string {
	if len(packet) < 40 || packet[0]>>4 != 4 {
		return "a packet that is not of IPv4"
	}
	end := func(address, port int) netip.AddrPort {
		ports := packet[int(packet[0]&15)*4:]
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(packet[address:address+4])), binary.BigEndian.Uint16(ports[port:]))
	}
	return fmt.Sprintf("%v → %v", end(12, 0), end(16, 2))
}

// stop ends the capture. Nothing that was to be kept may have been seen, everything that was told must have been, and no packet may
// have been missed.
func (c *capture) stop(t *testing.T, told []string) {
	t.Helper()
	raw, err := c.socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var stats *unix.TpacketStats
	failed := raw.Control(func(fd uintptr) {
		stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	})
	if err := errors.Join(failed, err, c.socket.Close(), <-c.ended); err != nil {
		t.Fatal(err)
	}
	if stats.Drops > 0 {
		t.Errorf("%d of %d packets were not looked at", stats.Drops, stats.Packets)
	}
	missed := 0
	for _, prompt := range told {
		if !c.told[prompt] {
			missed++
		}
	}
	if len(told) == 0 || missed > 0 {
		t.Errorf("of %d prompts that were sent in plain text, %d were not seen", len(told), missed)
	}
	for i, leak := range c.kept {
		if i < 5 {
			t.Errorf("a prompt is in a packet in plain text, %s", leak)
		}
	}
	t.Logf("%d packets, %d of them with what had to stay in the pod; %d of %d prompts that were sent in plain text were seen",
		c.packets, len(c.kept), len(told)-missed, len(told))
}
