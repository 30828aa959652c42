package watch

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

const (
	jitterTime = 100 * time.Millisecond // at most, before the first question: many sidecars start at once
	graceTime  = 2 * time.Second        // without an answer, before the last good configuration is used
	minRest    = 2 * time.Millisecond   // between two tables, while changes come without a pause
	longTime   = 11 * time.Minute       // for one question: watches are asked to end after 5 to 10
	maxRest    = time.Second
)

// API follows the configuration in one namespace of a Kubernetes API server, or for a gateway in all of them. It needs the rights to
// list and watch LLMProviders, LLMRoutes and one Secret there, and where the configuration speaks of Services or InferencePools, those,
// their EndpointSlices, and Istio's objects. It never writes.
type API struct {
	// Config says how to reach the API server.
	Config *rest.Config
	// Namespace is that of the workload, and unless it is a gateway the only one that is looked at.
	Namespace string
	// Gateway: the workload is a gateway. Everything but the Secret of keys is followed in all namespaces.
	Gateway bool
	// Place is where the process is.
	Place Place
	// KeysSecret is the name of the Secret with what may be used of other Secrets; see v1beta1.KeysSecret.
	KeysSecret string
	// Labels are those of the workload that is served.
	Labels map[string]string
	// PodLabels has them instead, if it is set.
	PodLabels *PodLabels
	// LastGood is a file, or empty. What runs is written there, keys included, and read where the API server is
	// away at start. Its folder is made if it is missing; nobody else may write there.
	LastGood string
	// Log hears of each change once, and of each problem once.
	Log logr.Logger
	// Store is where configurations are published.
	Store *snapshot.Store
	// Members is where it is published who the servers are. Without it, EndpointSlices are not followed.
	Members *snapshot.Members

	client  rest.Interface
	feeds   []*feed // of what is compiled
	roll    *roll   // nil: no servers have been asked for yet
	mu      sync.Mutex
	asking  map[*feed]bool // those that run
	wake    chan struct{}
	running *sync.WaitGroup
	history history
	tuning  tuning
	started time.Time
	waited  bool // graceTime is over

	// What is published.
	current  *compiled
	troubles map[string]string // what was logged, by resource
	outage   *snapshot.Outage
	held     time.Time // since when a table is held back; zero: none is
	alone    time.Time // since when one is because its servers are not known
	savedAt  time.Time
	saving   bool // it is to be saved again, for other servers
	saves    chan *saved
	unusable bool // the last good configuration, as has been logged
}

// compiled is a table and what it was made of.
type compiled struct {
	table    *routing.Table
	findings []finding
	all      *set
	changes  map[*feed]int
	saved    time.Time // if it comes from disk
	workload *routing.Workload
}

// Load checks what does not need the API server. It comes before Run.
func (a *API) Load() error {
	if a.LastGood != "" {
		if err := prepare(a.LastGood); err != nil {
			return fmt.Errorf("the last good configuration cannot be kept in %s: %w", a.LastGood, err)
		}
	}
	config := rest.CopyConfig(a.Config)
	config.NegotiatedSerializer, config.ContentType, config.AcceptContentTypes = codecs(), "application/json", "application/json"
	config.WarningHandler = rest.NoWarnings{}
	config.Timeout = cmp.Or(config.Timeout, longTime)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return transport{next} })
	if file := config.BearerTokenFile; file != "" {
		config.BearerToken, config.BearerTokenFile = "", ""
		config.Wrap(tokenFrom(file))
	}
	caller, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	// An API server redirects nobody, and the credentials would go along.
	caller.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client, err := rest.UnversionedRESTClientForConfigAndClient(config, caller)
	if err != nil {
		return err
	}
	a.client = client
	a.wake, a.saves, a.troubles, a.asking = make(chan struct{}, 1), make(chan *saved, 1), map[string]string{}, map[*feed]bool{}
	a.feeds = []*feed{a.feed(&providerFeed), a.feed(&routeFeed), a.feed(&keysFeed)}
	a.feeds[2].namespace, a.feeds[2].only = a.Namespace, a.KeysSecret
	if a.Gateway {
		a.feeds[0].trim = a.withhold
		for _, k := range needed(routing.Needs{}, true) {
			a.feeds = append(a.feeds, a.feed(k))
		}
	}
	return nil
}

// signal has Run look at the feeds.
func (a *API) signal() {
	select {
	case a.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// back has every feed ask again.
func (a *API) back() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for f := range a.asking {
		select {
		case f.retry <- struct{}{}:
		default:
		}
	}
}

// run has a feed run until ctx ends.
func (a *API) run(ctx context.Context, f *feed) {
	a.mu.Lock()
	a.asking[f] = true
	a.mu.Unlock()
	a.running.Go(func() {
		f.run(ctx)
		a.mu.Lock()
		delete(a.asking, f)
		a.mu.Unlock()
	})
}

// Run follows the API server until ctx ends. From the first configuration on, nothing that happens to the API server
// stops it.
func (a *API) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	a.running = &running
	running.Go(func() { a.save(ctx) })
	if a.PodLabels != nil {
		running.Go(func() { a.PodLabels.run(ctx, a.signal) })
	}
	a.started = time.Now()
	a.locate()
	a.remember()
	a.Log.Info("following Kubernetes", "server", a.Config.Host, "namespace", orAll(a.scope()), "keys", a.KeysSecret)
	rest := time.NewTimer(rand.N(jitterTime))
	defer rest.Stop()
	if !await(ctx, rest) {
		return
	}
	for _, f := range a.feeds {
		f.began, f.since = a.started, a.started
		a.run(ctx, f)
	}
	grace := time.NewTimer(graceTime)
	defer grace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-grace.C:
			a.waited = true
		}
		began := time.Now()
		a.look(ctx)
		// Changes that come meanwhile are taken in together. One that comes alone waits for nothing.
		rest.Reset(min(max(minRest, time.Since(began)), maxRest))
		if !await(ctx, rest) {
			return
		}
	}
}

// scope is the namespace that is followed; empty: all are.
func (a *API) scope() string {
	if a.Gateway {
		return ""
	}
	return a.Namespace
}

func await(ctx context.Context, timer *time.Timer) bool {
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// look takes in what the feeds know.
func (a *API) look(ctx context.Context) {
	changes := map[*feed]int{}
	var states []state
	synced, required := true, true
	for _, f := range a.feeds {
		s := f.state()
		states = append(states, s)
		changes[f] = s.changes
		synced = synced && (s.changes > 0 || a.dispensable(s))
		required = required && (s.changes > 0 || s.optional)
	}
	before, known := a.current, a.tuning.findings
	tuned := a.attune()
	refused := slices.ContainsFunc(states, func(s state) bool { return !s.optional && a.refuses(s) })
	switch {
	case synced, required && a.revised(&compiled{changes: changes}):
		if a.current == nil || !maps.Equal(a.current.changes, changes) || a.relabelled() {
			a.compile(ctx, changes)
		}
	case a.current != nil && a.relabelled(): // what is in use is from disk
		a.relabel()
	case a.current == nil && a.waited && !refused && a.LastGood != "" && !a.unusable:
		a.recall()
	case a.current != nil && !a.current.saved.IsZero() && slices.ContainsFunc(states, a.forbids):
		a.current, a.history, a.unusable = nil, history{}, true
	}
	a.resave()
	states = append(states, a.roll.states()...)
	a.tell(states)

	next := &snapshot.Snapshot{Table: snapshot.NewStore().Load().Table, Outage: a.outage}
	var findings []finding
	var all *set
	if a.current != nil {
		next.Table, next.Ready, findings, all = a.current.table, true, a.current.findings, a.current.all
	}
	if before != nil {
		known = slices.Concat(before.findings, known)
	}
	if tuned && before != nil && before == a.current && before.saved.IsZero() && a.LastGood != "" {
		a.keep(a.newSaved(a.current))
	}
	findings, next.Telemetry = a.tuning.with(findings), a.tuning.settings
	if tuned {
		a.tuning.tell(a.Log)
	}
	next.Problems = append(a.problems(states), problemsOf(findings)...)
	publish(a.Log, a.Store, next, findings, known, all)
}

// compile makes a table of what the feeds have, unless there is more to be followed first.
func (a *API) compile(ctx context.Context, changes map[*feed]int) {
	all := a.gather()
	all.incomplete = !all.configured() && a.unconfigured()
	c := &compiled{all: all, changes: changes, workload: a.workload()}
	if in := all.input(); a.follow(ctx, in.Needs()) && !a.revised(c) {
		return
	}
	a.locate()
	c.table, c.findings = a.history.compile(all, c.workload)
	c.findings = a.concerning(c.findings)
	if a.early(c) || a.unmanned(ctx, c) {
		return
	}
	a.current = c
	a.unfollow(c)
	a.man(ctx, c)
	if a.LastGood != "" {
		a.keep(a.newSaved(c))
	}
}

// newSaved gives what is to be kept of a configuration that is about to run.
func (a *API) newSaved(c *compiled) *saved {
	a.savedAt, a.saving = time.Now(), false
	if a.roll != nil {
		a.roll.moved.Store(false)
	}
	// publish is about to retire the same.
	s := newSaved(a.Namespace, c.all, c.table.Retaining(a.Store.Load().Table).Retired())
	s.Telemetry = a.tuning.text
	if a.Members != nil {
		s.addServers(a.Members, c.table.ServersIDs())
	}
	return s
}

// unconfigured tells whether this pod has never had a configuration. Apps that call an LLM before its provider has been applied do not
// know that nobody would encrypt what they say.
func (a *API) unconfigured() bool {
	t := a.Store.Load().Table
	return t.Incomplete() && len(t.Retired()) == 0
}

// relabel makes the table in use anew for the labels that the pod has now.
func (a *API) relabel() {
	c := *a.current
	c.workload = a.workload()
	c.table, c.findings = a.history.compile(c.all, c.workload)
	c.findings = a.concerning(c.findings)
	a.current = &c
	a.locate()
}

// relabelled tells whether the table in use is for other labels than the pod has now.
func (a *API) relabelled() bool {
	return !maps.Equal(a.current.workload.Labels, a.workload().Labels)
}

func (a *API) workload() *routing.Workload {
	w := &routing.Workload{Namespace: a.Namespace, Labels: a.Labels, Gateway: a.Gateway}
	if a.PodLabels != nil {
		w.Labels = *a.PodLabels.current.Load()
	}
	return w
}
