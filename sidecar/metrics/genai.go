package metrics

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/record"
	"remora.dev/remora/sidecar/routing"
)

// The buckets are OpenTelemetry's, but for those of what Remora adds. Chunks follow each other as fast as the first one comes at best.
var (
	tokenBuckets    = tokens(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
	durationBuckets = seconds(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
	chunkBuckets    = seconds(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
	addedBuckets    = seconds(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
)

// calls are the requests that are over. Who counts holds the lock for finding a label set only, and for less than a microsecond.
type calls struct {
	mu        sync.RWMutex
	all       map[labels]*series
	parts     map[perModel]*parts
	costs     map[costKey]*cost
	asm       map[asmKey]*asm
	fallbacks map[routing.Ref]*fallback
	asked     names
	told      names // models that providers said their answers are of
	sets      int   // label sets: series, further durations of them, costs and ASM's

	added   *histogram
	aborted [len(parties)]atomic.Int64
	whose   launch.Identity
	kept    func() iter.Seq[routing.Ref]
	swept   time.Time
}

type fallback struct {
	provider routing.Ref
	text     string
	used     atomic.Int64
	n        atomic.Int64
}

// parties are who may end an answer early.
var parties = [...]record.Party{record.App, record.Provider, record.Remora}

func newCalls() *calls {
	return &calls{
		all: map[labels]*series{}, parts: map[perModel]*parts{}, costs: map[costKey]*cost{}, asm: map[asmKey]*asm{},
		fallbacks: map[routing.Ref]*fallback{}, asked: newNames(), told: newNames(), added: newHistogram(addedBuckets),
	}
}

// Belong says whose calls are counted. It comes before the first of them.
func (s *Set) Belong(to launch.Identity) { s.calls.whose = to }

// Observe counts a request that is over. currency is that of its cost. It allocates nothing, but for the first of its kind.
func (s *Set) Observe(r *record.Record, currency string) {
	c, now := s.calls, r.Start.Add(r.Total).Unix()
	of := c.find(r)
	of.used.Store(now)
	of.tokens(r)
	if r.Priced {
		p := c.costOf(of, currency)
		p.used.Store(now)
		p.sum.add(r.Cost)
	}
	if r.Usage.Reported {
		a := c.asmOf(of, r.Host)
		a.used.Store(now)
		a.prompt.Add(r.Usage.Input)
		a.completion.Add(r.Usage.Output)
	}
	if r.Shadow {
		return // nobody waited for it
	}
	of.times(c, r)
	c.added.observe(int64(r.Added))
	if r.Fallbacks > 0 {
		f := c.fallbackTo(of.labels.provider)
		f.used.Store(now)
		f.n.Add(int64(r.Fallbacks))
	}
	if r.Stream {
		for i, p := range parties {
			if p == r.Cut {
				c.aborted[i].Add(1)
			}
		}
	}
}

func (of *series) tokens(r *record.Record) {
	u := &r.Usage
	for i, n := range [...]int64{u.Input, u.Output, u.EstimatedInput, u.EstimatedOutput} {
		if n > 0 {
			of.usage[i/2][i%2].of(tokenBuckets).observe(n)
		}
	}
	if u.Cached > 0 {
		of.parts.cached.Add(u.Cached)
	}
	if u.Reasoned > 0 {
		of.parts.reasoned.Add(u.Reasoned)
	}
}

func (of *series) times(c *calls, r *record.Record) {
	of.duration(c, errorOf(r)).observe(int64(r.Total))
	if !r.Stream || r.FirstToken <= 0 {
		return
	}
	of.firstChunk.of(chunkBuckets).observe(int64(r.FirstToken))
	// The chunks of an answer count as if they had come evenly: sum and count are right, and nobody reads the clock for each.
	if n, took := int64(r.Chunks-1), int64(r.Total-r.FirstToken); n > 0 && took > 0 {
		of.perChunk.of(chunkBuckets).observeMany(took/n, took, uint64(n))
	}
}

func (of *series) duration(c *calls, err string) *histogram {
	all := of.ended()
	for i := range all {
		if all[i].err == err {
			return all[i].histogram
		}
	}
	return c.addDuration(of, err)
}
