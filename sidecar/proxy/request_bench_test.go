package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strconv"
	"testing"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// BenchmarkRequest counts what one request costs in the proxy alone: the app and the provider at its two
// ends write and read prepared bytes.
func BenchmarkRequest(b *testing.B) {
	address, _ := benched(b)
	c, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	askAgain(b, c)
}

// BenchmarkRedirectedRequest is the same on a connection that was redirected.
func BenchmarkRedirectedRequest(b *testing.B) {
	_, p := benched(b)
	redirectTo(b, p)
	askAgain(b, app(b, place()))
}

// BenchmarkNewConnection has one request on each connection, from its beginning to its end.
func BenchmarkNewConnection(b *testing.B) {
	address, p := benched(b)
	redirectTo(b, p)
	for name, to := range map[string]string{"explicit": address, "redirected": place()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := appDialer.Dial("tcp", to)
				if err != nil {
					b.Fatal(err)
				}
				ask(b, c, bufio.NewReader(c))
				_ = c.(*net.TCPConn).SetLinger(0) // thousands of them must not wait for their ports
				_ = c.Close()
			}
		})
	}
}

// BenchmarkTunnel passes blocks of 1 MiB to a remote that drops them, through the proxy and past it. The processor time
// is that of all three.
func BenchmarkTunnel(b *testing.B) {
	_, p := benched(b)
	redirectTo(b, p)
	world := place()
	remote(b, world, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, struct{ io.Reader }{c}) })
	for name, dialer := range map[string]*net.Dialer{"tunnelled": &appDialer, "direct": {}} {
		b.Run(name, func(b *testing.B) {
			c, err := dialer.Dial("tcp", world)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			block := make([]byte, 1<<20)
			b.SetBytes(int64(len(block)))
			begun := busy()
			for b.Loop() {
				if _, err := c.Write(block); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((busy()-begun)*1e6/float64(b.N), "cpu-µs/op")
		})
	}
}

// busy is the processor time that this process has used, in seconds.
func busy() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // of itself, every process may know
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// benched runs a proxy and a provider that answers at once, and gives the proxy with its address.
func benched(tb testing.TB, set ...func(*proxy.Options)) (address string, p *proxy.Proxy) {
	tb.Helper()
	o := routing.Objects{Secrets: []routing.Secret{}}
	if _, err := o.Decode([]byte(`
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: raw}
spec:
  host: 127.0.0.5
  port: 8080
  tls: {mode: DISABLE, allowInsecureKey: true}
  configs: {defaultConfig: {openAIConfig: {model: m, apiKey: sk-raw-0123456789}}}
`), "default"); err != nil {
		tb.Fatal(err)
	}
	table, _ := routing.Compile(o, &routing.Workload{Namespace: "default"})
	store := snapshot.NewStore()
	store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
	provider, err := net.Listen("tcp", rawHost+":8080")
	if err != nil {
		tb.Fatal(err)
	}
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	go func() {
		for {
			c, err := provider.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 64<<10)
				for {
					// A request of this size comes in one piece.
					if _, err := c.Read(buf); err != nil {
						return
					}
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	options := proxy.Options{Store: store, Log: logr.Discard()}
	for _, set := range set {
		set(&options)
	}
	p, err = proxy.New(options)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	go func() { _ = p.Serve(l) }()
	tb.Cleanup(func() {
		_ = provider.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.Shutdown(ctx)
	})
	return l.Addr().String(), p
}

func askAgain(b *testing.B, app net.Conn) {
	b.Helper()
	in := bufio.NewReader(app)
	b.ReportAllocs()
	for b.Loop() {
		ask(b, app, in)
	}
}

func ask(tb testing.TB, app net.Conn, in *bufio.Reader) {
	tb.Helper()
	if _, err := app.Write(benchRequest); err != nil {
		tb.Fatal(err)
	}
	head, err := in.Peek(12)
	if err != nil || string(head) != "HTTP/1.1 200" {
		tb.Fatalf("%q %v", head, err)
	}
	for last := byte(0); last != '}'; {
		if last, err = in.ReadByte(); err != nil {
			tb.Fatal(err)
		}
	}
}

var benchRequest = []byte("POST / HTTP/1.1\r\nHost: 127.0.0.5\r\nContent-Type: application/json\r\nUser-Agent: bench\r\nContent-Length: " +
	strconv.Itoa(len(prompt)) + "\r\n\r\n" + prompt)
