package metrics

import (
	"math"
	"strings"
	"sync/atomic"

	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
)

// find gives what a request is counted in.
func (c *calls) find(r *record.Record) *series {
	k := labelsFrom(r)
	c.mu.RLock()
	of := c.all[k]
	c.mu.RUnlock()
	if of != nil {
		return of
	}
	return c.findSlowly(r, k)
}

// findSlowly is for the first request of a label set, and for those of models that are not shown by name.
func (c *calls) findSlowly(r *record.Record, k labels) *series {
	from := refused
	if r.Status/100 == 2 {
		from = answered
	}
	requested := from
	if r.Configured && r.RequestModel != "" {
		requested = configured
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	same := k.response == k.request
	var guest, told bool
	k.request, guest = c.asked.judge(k.request, requested)
	if same {
		k.response = k.request
	} else {
		k.response, told = c.told.judge(k.response, from)
	}
	k.operation, k.system, k.rule = clean(k.operation), clean(k.system), clean(k.rule)
	if of := c.all[k]; of != nil {
		return of
	}
	if c.sets >= maxSets {
		k, guest, told = beyond, false, false
		if of := c.all[k]; of != nil {
			return of
		}
	}
	k = k.own()
	of := &series{labels: k, text: k.text(), parts: c.partsOf(perModel{k.provider, k.request})}
	c.all[k] = of
	c.sets++
	c.asked.use(k.request, guest)
	if k.response != k.request {
		c.told.use(k.response, told)
	}
	return of
}

func (c *calls) partsOf(m perModel) *parts {
	p := c.parts[m]
	if p == nil {
		if p = (&parts{}); m.provider != (routing.Ref{}) {
			p.text = m.text()
		}
		c.parts[m] = p
	}
	p.users++
	return p
}

// addDuration adds the requests that end with an error to a label set. Errors are few, but each of them is fourteen buckets.
func (c *calls) addDuration(of *series, err string) *histogram {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := of.ended()
	if len(all) > 0 && c.sets >= maxSets && err != "" && of.labels != beyond {
		err = other
	}
	for _, d := range all {
		if d.err == err {
			return d.histogram
		}
	}
	if len(all) > 0 {
		c.sets++
	}
	d := duration{strings.Clone(err), newHistogram(durationBuckets)}
	all = append(all[:len(all):len(all)], d)
	of.durations.Store(&all)
	return d.histogram
}

// costOf gives the sum of a model's cost; it is kept where the series is, as the currency hardly ever changes.
func (c *calls) costOf(of *series, currency string) *cost {
	if p := of.cost.Load(); p != nil && p.key.currency == currency {
		return p
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := costKey{perModel{of.labels.provider, of.labels.request}, clean(currency)}
	p := c.costs[k]
	if p == nil && c.sets >= maxSets {
		k.perModel = perModel{beyond.provider, other}
		p = c.costs[k]
	}
	if p == nil {
		k.currency = strings.Clone(k.currency)
		p = &cost{key: k, text: k.text("currency", k.currency)}
		c.costs[k] = p
		c.sets++
	}
	of.cost.Store(p)
	return p
}

func (c *calls) asmOf(of *series, host string) *asm {
	if a := of.asm.Load(); a != nil && a.key.host == host {
		return a
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := asmKey{clean(host), of.labels.request}
	a := c.asm[k]
	if a == nil && c.sets >= maxSets {
		k = asmKey{other, other}
		a = c.asm[k]
	}
	if a == nil {
		k.host = strings.Clone(k.host)
		_, workload, _ := strings.Cut(c.whose.Workload, "/")
		a = &asm{key: k, provider: of.labels.provider, text: labelsOf(
			"llmproxy_source_workload", workload, "llmproxy_source_workload_namespace", c.whose.Namespace,
			"llmproxy_destination_service", k.host, "llmproxy_model", k.model)}
		c.asm[k] = a
		c.sets++
	}
	of.asm.Store(a)
	return a
}

func (c *calls) fallbackTo(provider routing.Ref) *fallback {
	c.mu.RLock()
	f := c.fallbacks[provider]
	c.mu.RUnlock()
	if f != nil {
		return f
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f = c.fallbacks[provider]; f == nil {
		f = &fallback{provider: provider, text: labelsOf("provider", path(provider))}
		c.fallbacks[provider] = f
	}
	return f
}

// A float is a number that is added to.
type float struct{ bits atomic.Uint64 }

func (f *float) add(v float64) {
	for {
		before := f.bits.Load()
		if f.bits.CompareAndSwap(before, math.Float64bits(math.Float64frombits(before)+v)) {
			return
		}
	}
}

func (f *float) load() float64 { return math.Float64frombits(f.bits.Load()) }
