package watch

import (
	"context"
	"maps"
	"slices"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// feed makes one of a kind, which does not run yet.
func (a *API) feed(k *kindOfFeed) *feed {
	f := &feed{
		kindOfFeed: k, namespace: a.scope(), client: a.client,
		changed: a.signal, back: a.back, retry: make(chan struct{}, 1),
	}
	f.store = f
	return f
}

// start has a feed run beside those from the start.
func (a *API) start(ctx context.Context, f *feed) {
	ctx, f.stop = context.WithCancel(ctx)
	f.began = time.Now()
	f.since = f.began
	a.run(ctx, f)
	time.AfterFunc(graceTime, a.signal) // it may have said nothing by then
}

// follow has everything followed that the configuration needs. It tells whether there is something that is not known yet: the API
// server will tell in a moment.
func (a *API) follow(ctx context.Context, n routing.Needs) (more bool) {
	for kind, k := range needed(n, a.Gateway) {
		if slices.ContainsFunc(a.feeds, func(f *feed) bool { return f.kind == kind }) {
			continue
		}
		f := a.feed(k)
		a.feeds, more = append(a.feeds, f), true
		a.start(ctx, f)
	}
	return more
}

// unfollow ends what neither the objects as they are written nor those that run need any more. A sidecar whose app calls no Service
// costs the API server nothing for them.
func (a *API) unfollow(c *compiled) {
	if !slices.ContainsFunc(a.feeds, func(f *feed) bool { return f.stop != nil }) {
		return
	}
	now, written := c.all.input(), c.all.asWritten()
	n, w := now.Needs(), written.Needs()
	all := needed(routing.Needs{Services: n.Services || w.Services, InferencePools: n.InferencePools || w.InferencePools}, a.Gateway)
	a.feeds = slices.DeleteFunc(a.feeds, func(f *feed) bool {
		if f.stop == nil || all[f.kind] != nil {
			return false
		}
		f.stop()
		delete(c.changes, f)
		return true
	})
}

// dispensable tells whether a configuration runs without what a feed has not told.
func (a *API) dispensable(s state) bool {
	return s.optional && (a.refuses(s) || time.Since(s.began) > graceTime)
}

// manTime is how long a table waits for the servers of what it is the first to call.
const manTime = time.Second

// unmanned has the servers followed that a table calls, beside those of the table in use. It tells whether the table is to wait until
// they are known: calls would go to a Service's own address, or nowhere.
func (a *API) unmanned(ctx context.Context, next *compiled) bool {
	wanted := next.table.ServersIDs()
	if a.Members == nil || len(wanted) == 0 && a.roll == nil {
		return false
	}
	if a.roll == nil {
		a.roll = newRoll(a)
		a.running.Go(func() { a.roll.run(ctx) })
	}
	all := maps.Clone(wanted)
	if a.current != nil {
		maps.Copy(all, a.current.table.ServersIDs())
	}
	a.roll.want(ctx, all)
	unknown := false
	for id := range wanted {
		_, known := a.Members.Of(id)
		unknown = unknown || !known
	}
	a.roll.awaited.Store(unknown)
	if unknown && !a.revised(next) && !slices.ContainsFunc(a.roll.states(), a.refuses) {
		if a.alone.IsZero() {
			a.alone = time.Now()
		}
		most := manTime
		if a.current == nil {
			most = graceTime
		}
		if left := most - time.Since(a.alone); left > 0 {
			time.AfterFunc(left, a.signal)
			return true
		}
	}
	a.alone = time.Time{}
	a.roll.awaited.Store(false)
	a.roll.settle()
	return false
}

// man forgets the servers that only the table before has called.
func (a *API) man(ctx context.Context, c *compiled) {
	if a.roll == nil {
		return
	}
	wanted := c.table.ServersIDs()
	a.roll.want(ctx, wanted)
	a.roll.roster.keep(wanted)
}

// saveTime is how long servers may change before they are saved again.
const saveTime = 10 * time.Second

// resave has the servers saved that have come since.
func (a *API) resave() {
	if a.LastGood == "" || a.roll == nil || a.current == nil || !a.roll.moved.Load() {
		return
	}
	if left := saveTime - time.Since(a.savedAt); left > 0 {
		if !a.saving {
			a.saving = true
			time.AfterFunc(left, a.signal)
		}
		return
	}
	a.keep(a.newSaved(a.current))
}
