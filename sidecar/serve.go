package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/accesslog"
	"remora.dev/remora/sidecar/admin"
	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/sidecar/trace/otlp"
)

// How long requests may take to finish after the first signal to stop. Kubernetes kills a pod with a sidecar after 30 seconds.
const (
	drainTime = 25 * time.Second
	closeTime = time.Second // for those that ask for health or configuration
)

// logs is where lines go.
type logs struct {
	diagnostics, access *output
	form                accesslog.Form // of access
}

// serve runs the proxy until ctx ends or a signal to stop comes. log writes to the diagnostics. A second signal ends the process at once.
func serve(ctx context.Context, a launch.Args, log logr.Logger, lines logs) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // from the first signal on, the next has its usual effect

	trusted, err := trustedCAs(a.TrustedCA)
	if err != nil {
		return err
	}
	egress, err := egressOf(os.Getenv, log.WithName("proxy"))
	if err != nil {
		return err
	}
	l, err := listen(ctx, a)
	if err != nil {
		return err
	}
	defer l.close()

	store, members := snapshot.NewStore(), snapshot.NewMembers()
	settleOnce(store)
	frugal()
	failed := make(chan error, len(l.apps)+2)
	counted := metrics.New()
	status := admin.New(store, counted)
	go func() { failed <- status.ServeHealth(l.health) }()
	go func() { failed <- status.ServeAdmin(l.admin) }()

	identity := launch.IdentityOf(os.Getenv)
	showIdentity(counted, store, identity)
	showConfiguration(counted, store)
	counted.LogLinesDropped("access", lines.access.dropped)
	counted.LogLinesDropped("diagnostics", lines.diagnostics.dropped)
	followed, err := open(a, log.WithName("watch"), told{store, members}, counted)
	if err != nil {
		return err
	}
	spans := otlp.New(otlp.Options{Identity: identity, Version: version, Log: log.WithName("traces"), Metrics: counted})
	watching := observers{counted, accesslog.New(lines.access, lines.form, identity), spans}
	options := proxy.Options{Store: store, Done: watching.done, Members: members, Log: log.WithName("proxy"), TrustedCAs: trusted, Egress: egress, Metrics: counted, RedirectedOnly: a.Mode == launch.ModeRedirect}
	if options.Public, err = publicAddress(a); err != nil {
		return err
	}
	p, err := proxy.New(options)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		followed.Run(ctx)
	}()
	for _, app := range l.apps {
		go func() { failed <- p.Serve(app) }()
	}
	log.Info("serving", append(l.announce(a), "admin", "http://"+l.admin.Addr().String()+"/config", "health", l.health.Addr().String())...)
	if egress != nil {
		log.Info("providers with TLS are reached through a proxy, but for what NO_PROXY names", "proxy", egress.String())
	}

	var cause error
	select {
	case <-ctx.Done():
	case cause = <-failed:
		cause = fmt.Errorf("a listener failed: %w", cause)
	}
	stop()
	grace := graceOf(a)
	log.Info("stopping: requests that are under way may finish", "within", grace.drain.String())
	status.Drain()
	if cause == nil && grace.leave > 0 {
		p.Leave()
		<-time.After(grace.leave)
	}
	drain, cancel := context.WithTimeout(context.Background(), grace.drain)
	defer cancel()
	if err := p.Shutdown(drain); err != nil {
		log.Info("some requests were cut", "reason", err.Error())
	}
	drain, cancel = context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	spans.Shutdown(drain)
	_ = status.Shutdown(drain) // nobody is left to wait for an answer
	select {
	case <-ended:
	case <-drain.Done(): // a file system or network that hangs does not hold up the end
	}
	return cause
}

// listeners is what the sidecar is bound to.
type listeners struct {
	apps          []net.Listener
	admin, health net.Listener
}

// listen binds all addresses. Its errors name the flag.
func listen(ctx context.Context, a launch.Args) (_ *listeners, err error) {
	l := &listeners{}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, at := range a.Listeners() {
		ln, err := bind(ctx, "listen", at.Address)
		if at.Optional && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)) {
			continue // no IPv6 here
		}
		if err != nil {
			return nil, err
		}
		l.apps = append(l.apps, ln)
	}
	if l.admin, err = bind(ctx, "admin", a.Admin); err != nil {
		return nil, err
	}
	l.health, err = bind(ctx, "health", a.Health)
	return l, err
}

func bind(ctx context.Context, flag, address string) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err == nil {
		return ln, nil
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("--%s %s: another process has that port: stop it, or choose another address with --%s", flag, address, flag)
	}
	return nil, fmt.Errorf("--%s %s: %w", flag, address, err)
}

func (l *listeners) close() {
	for _, ln := range append([]net.Listener{l.admin, l.health}, l.apps...) {
		if ln != nil {
			_ = ln.Close() // closed already where it was served
		}
	}
}

// announce says how the process is called.
func (l *listeners) announce(a launch.Args) []any {
	if a.Command == launch.Gateway {
		return []any{"listen", []string{cmp.Or(a.Bind, "[::]")}, "ports", "those of the Istio Gateways that select its labels"}
	}
	caller := fmt.Sprintf("http_proxy=http://%s ", l.apps[0].Addr())
	if a.Mode == launch.ModeRedirect {
		caller = ""
	}
	return []any{"listen", l.addresses(), "try", caller + `curl http://HOST -d '{"messages":[{"role":"user","content":"Hi"}]}'`}
}

func (l *listeners) addresses() []string {
	var all []string
	for _, ln := range l.apps {
		all = append(all, ln.Addr().String())
	}
	return all
}

// egressOf gives the proxy that leads out of the network; nil where the environment names none.
func egressOf(getenv func(string) string, log logr.Logger) (*proxy.Egress, error) {
	value := cmp.Or(getenv(launch.EgressVariable), getenv(strings.ToLower(launch.EgressVariable)))
	if value == "" {
		return nil, nil
	}
	u, err := launch.ParseEgress(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", launch.EgressVariable, err)
	}
	return proxy.NewEgress(u, cmp.Or(getenv(launch.ExceptVariable), getenv(strings.ToLower(launch.ExceptVariable))), log)
}

// trustedCAs adds the certificates of a file to those of the system; without a file it gives nil.
func trustedCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--trusted-ca: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without authorities of its own
	}
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("--trusted-ca %s: there is no certificate in it: give PEM that begins with -----BEGIN CERTIFICATE-----", file)
	}
	return pool, nil
}
