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

	"remora.dev/remora/apis/v1beta1"
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

// API follows the configuration in one namespace of a Kubernetes API server. It needs the rights to list and
// watch LLMProviders, LLMRoutes and one Secret there, and never writes.
type API struct {
	// Config says how to reach the API server.
	Config *rest.Config
	// Namespace is the only one that is looked at.
	Namespace string
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

	feeds   []*feed
	wake    chan struct{}
	history history
	started time.Time
	waited  bool // graceTime is over

	// What is published.
	current  *compiled
	troubles map[string]string // what was logged, by resource
	outage   *snapshot.Outage
	held     time.Time // since when a table is held back; zero: none is
	saves    chan *saved
	unusable bool // the last good configuration, as has been logged
}

// compiled is a table and what it was made of.
type compiled struct {
	table    *routing.Table
	findings []finding
	all      *set
	changes  []int     // of each feed
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
	a.wake, a.saves, a.troubles = make(chan struct{}, 1), make(chan *saved, 1), map[string]string{}
	add := func(kind, resource, path, name string) {
		a.feeds = append(a.feeds, &feed{
			kind: kind, resource: resource, path: path, namespace: a.Namespace, name: name, client: client,
			changed: a.signal, back: a.back, retry: make(chan struct{}, 1),
		})
	}
	group := v1beta1.GroupVersion.Group
	path := "/apis/" + v1beta1.GroupVersion.String() + "/namespaces/" + a.Namespace + "/"
	add(v1beta1.KindLLMProvider, "llmproviders."+group, path+"llmproviders", "")
	add(v1beta1.KindLLMRoute, "llmroutes."+group, path+"llmroutes", "")
	add(secretKind, "secrets", "/api/v1/namespaces/"+a.Namespace+"/secrets", a.KeysSecret)
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
	for _, f := range a.feeds {
		select {
		case f.retry <- struct{}{}:
		default:
		}
	}
}

// Run follows the API server until ctx ends. From the first configuration on, nothing that happens to the API server
// stops it.
func (a *API) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { a.save(ctx) })
	if a.PodLabels != nil {
		running.Go(func() { a.PodLabels.run(ctx, a.signal) })
	}
	a.started = time.Now()
	a.remember()
	a.Log.Info("following Kubernetes", "server", a.Config.Host, "namespace", a.Namespace, "keys", a.KeysSecret)
	rest := time.NewTimer(rand.N(jitterTime))
	defer rest.Stop()
	if !await(ctx, rest) {
		return
	}
	for _, f := range a.feeds {
		running.Go(func() { f.run(ctx) })
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
		a.look()
		// Changes that come meanwhile are taken in together. One that comes alone waits for nothing.
		rest.Reset(min(max(minRest, time.Since(began)), maxRest))
		if !await(ctx, rest) {
			return
		}
	}
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
func (a *API) look() {
	var changes []int
	var states []state
	for _, f := range a.feeds {
		s := f.state()
		states, changes = append(states, s), append(changes, s.changes)
	}
	before := a.current
	synced := !slices.Contains(changes, 0)
	refused := slices.ContainsFunc(states, a.refuses)
	switch {
	case synced:
		if a.current == nil || !slices.Equal(a.current.changes, changes) || a.relabelled() {
			a.compile(changes)
		}
	case a.current != nil && a.relabelled(): // what is in use is from disk
		a.relabel()
	case a.current == nil && a.waited && !refused && a.LastGood != "" && !a.unusable:
		a.recall()
	case a.current != nil && !a.current.saved.IsZero() && slices.ContainsFunc(states, a.forbids):
		a.current, a.history, a.unusable = nil, history{}, true
	}
	a.tell(states)

	next := &snapshot.Snapshot{Table: snapshot.NewStore().Load().Table, Outage: a.outage}
	var findings, known []finding
	var all *set
	if a.current != nil {
		next.Table, next.Ready, findings, all = a.current.table, true, a.current.findings, a.current.all
	}
	if before != nil {
		known = before.findings
	}
	next.Problems = append(a.problems(states), problemsOf(findings)...)
	publish(a.Log, a.Store, next, findings, known, all)
}

// compile makes a table of what the feeds have.
func (a *API) compile(changes []int) {
	all := a.gather()
	all.incomplete = !all.configured() && a.unconfigured()
	c := &compiled{all: all, changes: changes, workload: a.workload()}
	c.table, c.findings = a.history.compile(all, c.workload)
	if a.early(c) {
		return
	}
	a.current = c
	if a.LastGood != "" {
		// publish is about to retire the same.
		a.keep(newSaved(a.Namespace, all, c.table.Retaining(a.Store.Load().Table).Retired()))
	}
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
	a.current = &c
}

// relabelled tells whether the table in use is for other labels than the pod has now.
func (a *API) relabelled() bool {
	return !maps.Equal(a.current.workload.Labels, a.workload().Labels)
}

func (a *API) workload() *routing.Workload {
	w := &routing.Workload{Namespace: a.Namespace, Labels: a.Labels}
	if a.PodLabels != nil {
		w.Labels = *a.PodLabels.current.Load()
	}
	return w
}

// gather collects what the feeds have.
func (a *API) gather() *set {
	all := &set{namespace: a.Namespace, keysIn: a.KeysSecret, names: map[routing.Ref]named{}}
	for _, f := range a.feeds {
		for _, arrived := range f.arrivals() {
			all.objects++
			if arrived.cas != "" {
				all.trust(arrived.cas, arrived.at)
			}
			for i := range arrived.docs {
				all.add(&arrived.docs[i], arrived.at, &a.history)
			}
		}
	}
	return all
}

// trust takes the authorities that are in the Secret of keys into the set.
func (s *set) trust(cas string, at place) {
	keys := refOf(secretKind, s.namespace, s.keysIn)
	s.cas, s.names[keys] = cas, named{keys, at}
}

// add takes a document of the API server into the set.
func (s *set) add(d *document, at place, h *history) {
	c := &candidate{document: d, at: at, ref: d.ref, stamp: d.written()}
	if v := h.accepted[d.id()]; v != nil && v.doc.uid == d.uid {
		c.before = v
	}
	s.candidates = append(s.candidates, c)
}
