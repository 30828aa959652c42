//go:build linux

// Probe is a program for the pods of tests: it answers and asks, and says what it saw.
//
//	probe serve ADDRESS      HTTP; each answer is "hello from HOST"
//	probe original ADDRESS   TCP; tells each caller whom it meant to reach before a redirect
//	probe get URL            prints the answer
//	probe dial ADDRESS       prints what is said there
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: probe serve|original|get|dial WHERE")
	}
	verb, where := args[0], args[1]
	switch verb {
	case "serve", "original":
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", where)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = listener.Close() }) // ends what waits for callers
		if verb == "original" {
			return tellOriginals(listener)
		}
		return serve(listener)
	case "get":
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.Copy(out, response.Body)
		return err
	case "dial":
		connection, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", where)
		if err != nil {
			return err
		}
		defer connection.Close()
		_, err = io.Copy(out, connection)
		return err
	}
	return fmt.Errorf("no verb %q", verb)
}

func serve(listener net.Listener) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from %s\n", host)
	}))
}

func tellOriginals(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		answer, err := original(connection)
		if err != nil {
			answer = err.Error()
		}
		fmt.Fprintln(connection, answer)
		if err := connection.Close(); err != nil {
			return err
		}
	}
}

// original asks the kernel whom an IPv4 connection was made to before iptables redirected it.
func original(connection net.Conn) (string, error) {
	tcp, ok := connection.(*net.TCPConn)
	if !ok {
		return "", errors.New("not a TCP connection")
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return "", err
	}
	var answer string
	var failed error
	err = raw.Control(func(fd uintptr) {
		// The kernel's answer, a sockaddr_in, has the size of the one structure that the library reads for any option.
		var request *unix.IPv6Mreq
		if request, failed = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); failed == nil {
			address := request.Multiaddr
			port := uint16(address[2])<<8 | uint16(address[3])
			answer = netip.AddrPortFrom(netip.AddrFrom4([4]byte(address[4:8])), port).String()
		}
	})
	return answer, errors.Join(err, failed)
}
