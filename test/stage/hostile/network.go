//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

func sockets([]string) error {
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		_, name, abstract := strings.Cut(strings.TrimSpace(line), " @")
		if !abstract {
			continue
		}
		conn, err := net.DialTimeout("unix", "@"+name, patience)
		fmt.Printf("socket @%s: %v\n", name, err)
		if err == nil {
			conn.Close()
		}
	}
	fmt.Println("these are all")
	return nil
}

func bind(addresses []string) error {
	shared := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		}), err)
	}}
	for _, address := range addresses {
		l, err := shared.Listen(nil, "tcp", address) //nolint:staticcheck // nothing ends it
		if err == nil {
			l.Close()
		}
		fmt.Printf("listen %s: %v\n", address, err)
	}
	return nil
}

func sniff(command []string) error {
	const everything = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in the network's order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, everything)
	if err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	over := make(chan struct{})
	var packets []byte
	var capture sync.WaitGroup
	capture.Go(func() {
		for packet := make([]byte, 1<<18); ; {
			n, _, err := unix.Recvfrom(fd, packet, 0)
			packets = append(packets, packet[:max(n, 0)]...)
			select {
			case <-over:
				if err != nil { // no more wait
					return
				}
			default:
			}
		}
	})
	err = run(command, nil)
	close(over)
	capture.Wait()
	fmt.Printf("\ncaptured %d bytes\n", len(packets))
	_, _ = os.Stdout.Write(packets)
	return err
}

func dns(args []string) error {
	address := net.ParseIP(args[0]).To4()
	if address == nil {
		return fmt.Errorf("%s is no IPv4 address", args[0])
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		for query := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(query)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(query[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			fmt.Println("asked for", q.Name)
			m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
			if q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
					Body:   &dnsmessage.AResource{A: [4]byte(address)},
				}}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	err = run(args[1:], nil)
	time.Sleep(time.Millisecond) // what is still to be printed
	return err
}
