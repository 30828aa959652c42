// Package admin answers probes, and shows the configuration that runs. It shows no key, changes nothing,
// and has no profiler: what it tells may be told to everybody who reaches it.
package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/snapshot"
)

// The time limits of a request. Whoever asks here is near.
const (
	requestTime = 5 * time.Second
	idleTime    = 30 * time.Second
	startTime   = 4 * time.Second // that /startupz waits: less than what its probe does
)

// Server answers on two addresses: for probes, and for people on this machine.
type Server struct {
	store    *snapshot.Store
	metrics  scrapes
	draining atomic.Bool
	started  chan struct{} // closed by the first configuration
	health   *fasthttp.Server
	admin    *fasthttp.Server
}

// New makes a server that tells of the store, and of what is counted.
func New(store *snapshot.Store, counted *metrics.Set) *Server {
	s := &Server{store: store, metrics: scrapes{metrics: counted}, started: make(chan struct{})}
	start := sync.OnceFunc(func() { close(s.started) })
	store.OnChange(func(n *snapshot.Snapshot) {
		if n.Ready {
			start()
		}
	})
	s.health = server(map[string]func(*fasthttp.RequestCtx){
		"/livez": s.livez, "/readyz": s.readyz, "/startupz": s.startupz, "/metrics": s.metrics.serve,
	})
	s.admin = server(map[string]func(*fasthttp.RequestCtx){
		"/": index, "/config": s.config, "/explain": s.explain, "/livez": s.livez, "/readyz": s.readyz, "/startupz": s.startupz, "/metrics": s.metrics.serve,
	})
	return s
}

func server(paths map[string]func(*fasthttp.RequestCtx)) *fasthttp.Server {
	return &fasthttp.Server{
		Handler: func(c *fasthttp.RequestCtx) {
			c.SetContentType("text/plain; charset=utf-8")
			c.Response.Header.Set("Cache-Control", "no-store")
			c.Response.Header.Set("X-Content-Type-Options", "nosniff")
			answer, known := paths[string(c.Path())]
			switch {
			case !known:
				say(c, fasthttp.StatusNotFound, "there is nothing here")
			case !c.IsGet() && !c.IsHead():
				c.Response.Header.Set("Allow", "GET, HEAD")
				say(c, fasthttp.StatusMethodNotAllowed, "use GET")
			default:
				answer(c)
			}
		},
		ReadTimeout: requestTime, WriteTimeout: requestTime, IdleTimeout: idleTime,
		ReadBufferSize: 4096, MaxRequestBodySize: 1024, ReduceMemoryUsage: true,
		Concurrency:           8 * maxConns, // those that are being closed count too
		NoDefaultServerHeader: true, CloseOnShutdown: true, Logger: silent{},
	}
}

// silent drops what fasthttp has to say about broken clients, which is nothing that the user of the
// sidecar could do something about.
type silent struct{}

// Printf drops its arguments.
func (silent) Printf(string, ...any) {}

func say(c *fasthttp.RequestCtx, status int, format string, args ...any) {
	c.SetStatusCode(status)
	_, _ = fmt.Fprintf(c, format+"\n", args...)
}

// ServeHealth answers /livez and /readyz on ln until Shutdown.
func (s *Server) ServeHealth(ln net.Listener) error { return s.health.Serve(&newest{Listener: ln}) }

// ServeAdmin answers /config on ln, which is to be on loopback, until Shutdown.
func (s *Server) ServeAdmin(ln net.Listener) error { return s.admin.Serve(&newest{Listener: ln}) }

// Drain makes /readyz say that no more work is wanted.
func (s *Server) Drain() { s.draining.Store(true) }

// Shutdown closes the listeners, and the connections when ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	return errors.Join(s.health.ShutdownWithContext(ctx), s.admin.ShutdownWithContext(ctx))
}

func (s *Server) livez(c *fasthttp.RequestCtx) { say(c, fasthttp.StatusOK, "ok") }

func (s *Server) readyz(c *fasthttp.RequestCtx) {
	switch current := s.store.Load(); {
	case s.draining.Load():
		say(c, fasthttp.StatusServiceUnavailable, "not ready: shutting down")
	case !current.Ready:
		say(c, fasthttp.StatusServiceUnavailable, "not ready: no configuration has been read yet%s", outage(current, "; "))
	default:
		say(c, fasthttp.StatusOK, "ok generation=%s%s", current.Table.Generation(), outage(current, "; "))
	}
}

// startupz is readyz for whoever would have to ask again: a kubelet does so after a second, which each start of a pod would take longer.
func (s *Server) startupz(c *fasthttp.RequestCtx) {
	patience := time.NewTimer(startTime)
	defer patience.Stop()
	select {
	case <-s.started:
	case <-patience.C:
	}
	s.readyz(c)
}

// outage tells that the API server is away, after mark; nothing where it is not.
func outage(s *snapshot.Snapshot, mark string) string {
	if s.Outage == nil {
		return ""
	}
	text := mark + "the API server has not been reachable since " + s.Outage.Since.UTC().Format(time.RFC3339)
	if !s.Outage.Saved.IsZero() {
		text += mark + "the configuration is the one that was saved at " + s.Outage.Saved.UTC().Format(time.RFC3339)
	}
	return text
}

func index(c *fasthttp.RequestCtx) {
	say(c, fasthttp.StatusOK, "%s", "/config   the configuration that runs, and what is wrong with it; without keys; ?format=json for programs\n"+
		"/explain  where a request would go, and why: ?host=HOST&method=POST&path=PATH&model=MODEL&header=NAME:VALUE&port=PORT-OF-A-GATEWAY\n"+
		"/metrics  what is counted, for Prometheus\n"+
		"/livez    200 while the process serves\n"+
		"/readyz   200 once a configuration has been read, until shutdown\n"+
		"/startupz the same, but waits some seconds for the first one")
}

func (s *Server) config(c *fasthttp.RequestCtx) {
	switch format := string(c.QueryArgs().Peek("format")); format {
	case "", "text":
	case "json":
		s.configJSON(c)
		return
	default:
		say(c, fasthttp.StatusBadRequest, "format: %q is not known: use json or text", format)
		return
	}
	current := s.store.Load()
	var b bytes.Buffer
	fmt.Fprintf(&b, "# generation %s\n", current.Table.Generation())
	if !current.Ready {
		b.WriteString("# no configuration has been read yet\n")
	}
	if current.Outage != nil {
		b.WriteString(strings.TrimPrefix(outage(current, "\n# "), "\n") + "\n")
	}
	for _, p := range current.Problems {
		fmt.Fprintf(&b, "# %s  %s  %s\n", p.Severity, p.Object, strings.ReplaceAll(p.String(), "\n", " "))
	}
	_, _ = current.Table.WriteTo(&b) // a buffer takes everything
	c.SetBody(b.Bytes())
}
