package proxy_test

import (
	"bufio"
	"context"
	"net"
	"strconv"
	"testing"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// BenchmarkRequest counts what one request costs in the proxy alone: the app and the provider at its two
// ends write and read prepared bytes.
func BenchmarkRequest(b *testing.B) {
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
		b.Fatal(err)
	}
	table, _ := routing.Compile(o, &routing.Workload{Namespace: "default"})
	store := snapshot.NewStore()
	store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
	provider, err := net.Listen("tcp", rawHost+":8080")
	if err != nil {
		b.Fatal(err)
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
	p, err := proxy.New(proxy.Options{Store: store, Log: logr.Discard()})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = p.Serve(l) }()
	app, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = app.Close()
		_ = provider.Close()
		_ = p.Shutdown(context.Background())
	})
	in := bufio.NewReader(app)
	request := []byte("POST / HTTP/1.1\r\nHost: 127.0.0.5\r\nContent-Type: application/json\r\nUser-Agent: bench\r\nContent-Length: " +
		strconv.Itoa(len(prompt)) + "\r\n\r\n" + prompt)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := app.Write(request); err != nil {
			b.Fatal(err)
		}
		head, err := in.Peek(12)
		if err != nil || string(head) != "HTTP/1.1 200" {
			b.Fatalf("%q %v", head, err)
		}
		for last := byte(0); last != '}'; {
			if last, err = in.ReadByte(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
