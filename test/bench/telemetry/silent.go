package main

import (
	"crypto/x509"
	"errors"
	"net"
	"os"
	"runtime/debug"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/sidecar/telemetry"
)

// serveSilent is the role of the yardstick: the sidecar's proxy, which tells nobody of its requests, or only the metrics.
//
//	args: CONFIGURATION LISTEN AUTHORITY nothing|counting
func serveSilent(args []string) error {
	if len(args) != 4 {
		return errors.New("silent: wants a configuration, an address, an authority and whom to tell")
	}
	debug.SetGCPercent(50) // as the sidecar does
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var in routing.Objects
	if _, err := in.Decode(text, "default"); err != nil {
		return err
	}
	authority, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	store := snapshot.NewStore()
	table, _ := routing.Compile(in, nil)
	store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
	counted := metrics.New()
	o := proxy.Options{Store: store, Log: logr.Discard(), TrustedCAs: trusted, Metrics: counted}
	if args[3] == counting {
		o.Done = func(r *record.Record, _ *telemetry.Settings) { counted.Observe(r, telemetry.DefaultCurrency) }
	}
	p, err := proxy.New(o)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", args[1])
	if err != nil {
		return err
	}
	return p.Serve(listener)
}
