package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/bench/pinned"
)

// Connections that belong to others than a provider are turned to the sidecar like all others, and it has to pass them on.
// What that costs is compared with the least that a program in Go can do there: a splice in each direction.

// The world that the app calls. Only connections that carry appMark are redirected, not those that a proxy makes.
const (
	worldRange   = "192.0.2.1/24"
	worldPort    = 9080
	appMark      = 14
	smallForeign = 1 << 10
)

// serveSplice is the role of that least program.
//
//	args: LISTEN
func serveSplice(args []string) error {
	if len(args) != 1 {
		return errors.New("splice: wants the address to listen on")
	}
	listener, err := net.Listen("tcp4", args[0])
	if err != nil {
		return err
	}
	for {
		c, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			client := c.(*net.TCPConn)
			defer client.Close()
			to, err := originalDestination(client)
			if err != nil {
				return
			}
			dialled, err := net.Dial("tcp4", to)
			if err != nil {
				return
			}
			server := dialled.(*net.TCPConn)
			defer server.Close()
			var back sync.WaitGroup
			back.Go(func() {
				_, _ = io.Copy(client, server) // of two TCP connections, it is a splice
				_ = client.CloseWrite()
			})
			_, _ = io.Copy(server, client)
			_ = server.CloseWrite()
			back.Wait()
		}()
	}
}

func originalDestination(c *net.TCPConn) (string, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return "", err
	}
	var answer *unix.IPv6Mreq // as large as what comes back: family, port, address
	ctlErr := raw.Control(func(fd uintptr) {
		answer, err = unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, unix.SO_ORIGINAL_DST)
	})
	if err = errors.Join(ctlErr, err); err != nil {
		return "", err
	}
	b := answer.Multiaddr
	return net.JoinHostPort(net.IP(b[4:8]).String(), strconv.Itoa(int(binary.BigEndian.Uint16(b[2:4])))), nil
}

// beginWorld gives this namespace the world, with a server that sends back what it gets.
func beginWorld() (io.Closer, error) {
	if err := command("ip", "addr replace "+worldRange+" dev lo"); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp4", ":"+strconv.Itoa(worldPort))
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return // it is closed
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return listener, nil
}

func command(name, args string) error {
	if out, err := exec.Command(name, strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, args, err, bytes.TrimSpace(out))
	}
	return nil
}

// redirect has the app's connections to an address of the world turned to a proxy.
func redirect(world string, listenPort int) error {
	return command("iptables", fmt.Sprintf("-w -t nat -A OUTPUT -p tcp -d %s --dport %d -m mark --mark %d -j REDIRECT --to-ports %d",
		world, worldPort, appMark, listenPort))
}

var appDialer = net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, appMark) })
	return errors.Join(ctlErr, err)
}}

// exchange sends size bytes to the world, and wants them back.
func exchange(ctx context.Context, world string, size int) error {
	conn, err := appDialer.DialContext(ctx, "tcp4", net.JoinHostPort(world, strconv.Itoa(worldPort)))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	block := []byte(text(englishSentences, min(size, 256<<10)))[:min(size, 256<<10)]
	copy(block, "EHLO bench.test\r\n") // no request, and the app speaks first
	sent := make(chan error, 1)
	go func() {
		for left := size; left > 0; left -= len(block) {
			if _, err := conn.Write(block); err != nil {
				sent <- err
				return
			}
		}
		sent <- conn.(*net.TCPConn).CloseWrite()
	}()
	arrived := make([]byte, len(block))
	for left := size; left > 0; left -= len(block) {
		if _, err := io.ReadFull(conn, arrived); err != nil {
			return fmt.Errorf("after %d of %d bytes through a foreign connection: %w", size-left, size, err)
		}
		if !bytes.Equal(arrived, block) {
			return fmt.Errorf("a foreign connection's bytes did not come back as they were sent, after %d", size-left)
		}
	}
	if err := <-sent; err != nil {
		return err
	}
	if n, err := conn.Read(arrived[:1]); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("after all bytes of a foreign connection came %d more (%w)", n, err)
	}
	return nil
}

// awaitListener waits until a proxy that has just been started lets a connection to the world pass.
func awaitListener(ctx context.Context, p *pinned.Process, world string) error {
	limit := time.After(15 * time.Second)
	attempts := time.NewTicker(20 * time.Millisecond)
	defer attempts.Stop()
	for {
		err := exchange(ctx, world, smallForeign)
		if err == nil {
			return nil
		}
		select {
		case <-attempts.C:
		case <-p.Exited:
			return err
		case <-limit:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// through measures the processor time that a proxy spends on foreign connections: of each with a short exchange, and of each MiB.
func (p plan) through(ctx context.Context, r *pinned.Process, world string) (small, perMiB float64, err error) {
	spent := func(count, size int) (float64, error) {
		if err := exchange(ctx, world, size); err != nil {
			return 0, r.Explain(err)
		}
		before, err := r.Used()
		if err != nil {
			return 0, err
		}
		for range count {
			if err := exchange(ctx, world, size); err != nil {
				return 0, r.Explain(err)
			}
		}
		after, err := r.Used()
		return microseconds(after - before), err
	}
	if small, err = spent(p.foreign, smallForeign); err != nil {
		return 0, 0, err
	}
	large, err := spent(1, p.largeForeign)
	return small / float64(p.foreign), large / float64(p.largeForeign/mebibyte), err
}

// What passes on foreign connections in the second table, beside Remora.
const leastSplice = "splice"

var (
	foreignCPU = figures.Compare("CPU per foreign connection, 1 KB each way", "µs", 1)
	foreignMiB = figures.Compare("CPU per MiB of a foreign connection, each way", "µs", 1)
)

// measureForeign compares Remora with the least, in turns.
func (p plan) measureForeign(ctx context.Context, r *running, core int, progress io.Writer) (figures.Sheet, error) {
	world, err := beginWorld()
	if err != nil {
		return nil, err
	}
	defer world.Close()
	port, err := pinned.FreePort()
	if err != nil {
		return nil, err
	}
	least, err := pinned.Launch(leastSplice, core, []string{pinned.Self, "splice", fmt.Sprintf("127.0.0.1:%d", port)})
	if err != nil {
		return nil, err
	}
	defer least.Stop()
	turns := []struct {
		name, world string
		port        int
		process     *pinned.Process
	}{
		{r.Name, "192.0.2.2", r.listenPort, r.Process},
		{leastSplice, "192.0.2.3", port, least},
	}
	for _, t := range turns {
		if err := redirect(t.world, t.port); err != nil {
			return nil, err
		}
	}
	if err := awaitListener(ctx, least, turns[1].world); err != nil {
		return nil, least.Explain(err)
	}
	s := figures.Sheet{}
	for round := range p.rounds {
		fmt.Fprintf(progress, "round %d of %d: %s, %s:", round+1, p.rounds, foreignCPU.Label, foreignMiB.Label)
		for _, t := range turns {
			small, perMiB, err := p.through(ctx, t.process, t.world)
			if err != nil {
				return nil, err
			}
			s.Add(t.name, foreignCPU, small)
			s.Add(t.name, foreignMiB, perMiB)
			fmt.Fprintf(progress, " %s %.1f %.1f", t.name, small, perMiB)
		}
		fmt.Fprintln(progress)
	}
	return s, nil
}
