package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// How top asks pods.
const (
	defaultParallel = 32
	maxParallel     = 256
	askTime         = 5 * time.Second // for one pod to be reached and to answer
	minInterval     = time.Second
	renewPods       = 15 * time.Second // the list of pods is read anew
)

// top is the command.
type top struct {
	app      *app
	pick     selection
	by       string
	sort     string
	format   string
	once     bool
	interval time.Duration
	parallel int
}

func (a *app) topCommand() *cobra.Command {
	t := &top{app: a, pick: selection{app: a}}
	c := &cobra.Command{
		Use:   "top [POD | KIND/NAME]...",
		Short: "Show requests, tokens, first tokens, errors and cost as they are now",
		Long: `Show requests, tokens, first tokens, errors and cost as they are now.

The figures are rates between two readings of what sidecars and gateways count, --interval apart. On a terminal, the table is renewed until
Ctrl-C; elsewhere, one is written after the other. Pods that do not answer are named under the table. Where tokens are marked by ~, some are
estimated, as their provider reported none; -o json has them apart. What sidecars are asked for is what Prometheus asks them for.

It takes the rights to list pods and to create pods/portforward; with -A, also to list namespaces.`,
		Example: `  # The pods of the namespace, busiest first
  kubectl remora top

  # Which models cost most, in all namespaces
  kubectl remora top -A --by model --sort cost

  # One reading of a Deployment, for a program
  kubectl remora top deploy/sleep --once -o json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error { return t.run(c.Context(), args) },
	}
	t.pick.addFlags(c)
	f := c.Flags()
	f.StringVar(&t.by, "by", "pod", "What a line is of: pod, model, provider or namespace")
	f.StringVar(&t.sort, "sort", "requests", "What is first: most requests, tokens, errors, first (p99) or cost; or name")
	f.StringVarP(&t.format, "output", "o", "table", "table or json; json is one object per reading")
	f.BoolVar(&t.once, "once", false, "Write one table and end")
	f.DurationVar(&t.interval, "interval", 2*time.Second, "The time between two readings, 1s at least")
	f.IntVar(&t.parallel, "parallel", defaultParallel, fmt.Sprintf("How many pods are asked at the same time, %d at most", maxParallel))
	return c
}

func (t *top) judge() error {
	if err := oneOf("by", t.by, "pod", "model", "provider", "namespace"); err != nil {
		return err
	}
	if err := oneOf("sort", t.sort, "requests", "tokens", "errors", "first", "cost", "name"); err != nil {
		return err
	}
	if err := oneOf("output", t.format, "table", "json"); err != nil {
		return err
	}
	if t.interval < minInterval {
		return usage("--interval %v is too short: write %v or more", t.interval, minInterval)
	}
	if t.parallel < 1 || t.parallel > maxParallel {
		return usage("--parallel %d is out of range: write 1 to %d", t.parallel, maxParallel)
	}
	return nil
}

func (t *top) run(ctx context.Context, args []string) error {
	if err := t.judge(); err != nil {
		return err
	}
	client, err := t.app.client()
	if err != nil {
		return err
	}
	list := func() ([]*server, error) { return t.pick.servers(ctx, client, args) }
	all, err := list()
	if err != nil {
		return err
	}
	w := &watcher{open: t.app.open, parallel: t.parallel, pods: map[podID]*watched{}}
	defer w.close()
	w.follow(all)
	w.ask(ctx)
	listed := time.Now()
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return errLeft
		case <-tick.C:
		}
		if time.Since(listed) > renewPods && !t.once {
			if now, err := list(); err == nil { // else those that are known: the API server may be away for a moment
				w.follow(now)
			}
			listed = time.Now()
		}
		w.ask(ctx)
		if ctx.Err() != nil {
			return errLeft
		}
		if err := t.show(w.report(t.by, t.sort)); err != nil || t.once {
			return err
		}
	}
}

// watcher reads the same pods again and again. Between two readings their tunnels stay open.
type watcher struct {
	open     func(ctx context.Context, pod podID) (*tunnel, error)
	parallel int
	pods     map[podID]*watched
}

// watched is one pod.
type watched struct {
	server *server
	mu     sync.Mutex
	tunnel *tunnel
	// The last two readings without a gap, and when they were taken.
	before, now *reading
	span        time.Duration
	at          time.Time
	err         error
}

// follow makes the pods those of the list.
func (w *watcher) follow(list []*server) {
	gone := map[podID]*watched{}
	for id, p := range w.pods {
		gone[id] = p
	}
	for _, s := range list {
		delete(gone, s.podID)
		if known := w.pods[s.podID]; known != nil {
			known.server = s
		} else {
			w.pods[s.podID] = &watched{server: s}
		}
	}
	for id, p := range gone {
		p.drop()
		delete(w.pods, id)
	}
}

func (w *watcher) close() { w.follow(nil) }

// ask reads what every pod counts.
func (w *watcher) ask(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(w.parallel)
	for _, p := range w.pods {
		group.Go(func() error {
			p.ask(ctx, w.open)
			return nil
		})
	}
	_ = group.Wait() // what went wrong is with the pod
}

func (p *watched) drop() {
	if p.tunnel != nil {
		p.tunnel.close()
		p.tunnel = nil
	}
}

func (p *watched) ask(ctx context.Context, open func(ctx context.Context, pod podID) (*tunnel, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	got, err := p.fetch(ctx, open)
	at := time.Now()
	if p.err = err; err != nil {
		p.drop()
		p.before, p.now = nil, nil
		return
	}
	p.before, p.now, p.span, p.at = p.now, got, at.Sub(p.at), at
}

func (p *watched) fetch(ctx context.Context, open func(ctx context.Context, pod podID) (*tunnel, error)) (*reading, error) {
	if !p.server.answers() {
		return nil, fmt.Errorf("its container %s does not run: %s", p.server.Container, p.server.why)
	}
	if p.tunnel == nil {
		opened, err := open(ctx, p.server.podID)
		if err != nil {
			return nil, inTime(ctx, err)
		}
		p.tunnel = opened
	}
	text, err := p.tunnel.get(ctx, healthPort, "/metrics", nil)
	if err != nil {
		return nil, inTime(ctx, err)
	}
	return read(text)
}

// inTime says of an error that time was up, where it was.
func inTime(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("it did not answer within %v", askTime)
	}
	return err
}
