package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/sidecar/telemetry"
)

func TestARequestThatTheProxyItselfFailsAtHasOneRecord(t *testing.T) {
	o := routing.Objects{Secrets: []routing.Secret{}}
	if _, err := o.Decode([]byte("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: raw}\nspec:\n  host: raw.example.com\n"), "default"); err != nil {
		t.Fatal(err)
	}
	table, _ := routing.Compile(o, &routing.Workload{Namespace: "default"})
	store := snapshot.NewStore()
	store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
	told := make(chan record.Record, 10)
	p, err := New(Options{Store: store, Log: logr.Discard(), Done: func(r *record.Record, _ *telemetry.Settings) {
		kept := *r
		kept.Attempts = slices.Clone(r.Attempts)
		told <- kept
	}})
	if err != nil {
		t.Fatal(err)
	}
	p.budgets.all = nil // writing into which is a fault
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.Shutdown(ctx)
		<-served
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: raw.example.com\r\nContent-Length: 2\r\n\r\n{}")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 500 {
		t.Fatal(resp, err)
	}
	got := <-told
	if got.Code != routing.InternalError || got.Status != 500 || got.Host != "raw.example.com" || got.Cut != record.Nobody || len(told) != 0 || p.inFlight.Load() != 0 {
		t.Errorf("%d more, %d in flight: %+v", len(told), p.inFlight.Load(), got)
	}
}
