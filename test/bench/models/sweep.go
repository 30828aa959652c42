package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/bench/modelserver"
	"remora.dev/remora/test/bench/plot"
)

// contender is a policy under its name in the figures.
type contender struct {
	name   string
	policy routing.BalancePolicy
}

var contenders = []contender{
	{"ROUND_ROBIN", routing.RoundRobin},
	{"LEAST_REQUEST", routing.LeastRequest},
	{"LEAST_TOKENS", routing.LeastTokens},
}

// sweep says what is simulated.
type sweep struct {
	servers, seeds int
	loads          []float64 // of what the servers can do when they never lack calls
	span, warm     time.Duration
	balancers      []int   // that know nothing of each other
	apart          float64 // the load at which there are several
}

var (
	fullSweep = sweep{
		servers: 8, seeds: 10, loads: []float64{0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95}, span: 15 * time.Minute, warm: time.Minute,
		balancers: []int{1, 2, 4, 8, 16, 32, 64}, apart: 0.85,
	}
	quickSweep = sweep{
		servers: 3, seeds: 2, loads: []float64{0.5, 0.9}, span: 20 * time.Second, warm: 2 * time.Second,
		balancers: []int{1, 8}, apart: 0.85,
	}
)

// span is a value over seeds.
type span struct{ low, middle, high float64 }

func spanOf(values []float64) span {
	return span{slices.Min(values), figures.Median(values), slices.Max(values)}
}

// point is a measured place: a workload at a load with a policy and so many balancers.
type point struct {
	p50, p99 span // until the first token, in seconds
}

// at simulates one point over all seeds. Each seed brings the same calls, whatever the policy.
func (s sweep) at(w modelserver.Workload, load float64, of scenario) point {
	of.servers = s.servers
	rate := load * float64(s.servers) * capacity(w)
	var p50, p99 []float64
	for seed := range uint64(s.seeds) {
		arrivals := w.Arrivals(rand.New(rand.NewPCG(seed, 1)), rate, s.span)
		of.chance = seed
		first := of.run(arrivals)
		warm, _ := slices.BinarySearchFunc(arrivals, s.warm, func(a modelserver.Arrival, t time.Duration) int { return int(a.At - t) })
		times := figures.Times(first[warm:])
		p50 = append(p50, times.Quantile(0.5).Seconds())
		p99 = append(p99, times.Quantile(0.99).Seconds())
	}
	return point{spanOf(p50), spanOf(p99)}
}

// capacity is how many calls of a workload a server can answer in a second.
func capacity(w modelserver.Workload) float64 {
	return w.Capacity(modelserver.Common, rand.New(rand.NewPCG(1, 2)), 10_000)
}

// simulated are all points of both figures.
type simulated struct {
	loads  [][][]point // by workload, contender, load
	apart  [][]point   // of the workload mixed, by contender and number of balancers
	oracle []point     // of the workload mixed, by load: LEAST_TOKENS that knows the lengths of answers beforehand
}

// mixed is the workload that the second figure and the real run have.
var mixed = modelserver.Workloads[1]

func (s sweep) run(ctx context.Context, progress io.Writer) (simulated, error) {
	fmt.Fprintf(progress, "%d servers, %d seeds, %v each\n", s.servers, s.seeds, s.span)
	var all simulated
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	simulate := func(into *point, w modelserver.Workload, load float64, of scenario) {
		group.Go(func() error {
			if ctx.Err() == nil {
				*into = s.at(w, load, of)
			}
			return ctx.Err()
		})
	}
	all.loads = make([][][]point, len(modelserver.Workloads))
	for i, w := range modelserver.Workloads {
		all.loads[i] = make([][]point, len(contenders))
		for j, c := range contenders {
			all.loads[i][j] = make([]point, len(s.loads))
			for k, load := range s.loads {
				simulate(&all.loads[i][j][k], w, load, scenario{policy: c.policy})
			}
		}
	}
	all.apart = make([][]point, len(contenders))
	for j, c := range contenders {
		all.apart[j] = make([]point, len(s.balancers))
		for k, n := range s.balancers {
			simulate(&all.apart[j][k], mixed, s.apart, scenario{policy: c.policy, balancers: n})
		}
	}
	all.oracle = make([]point, len(s.loads))
	for k, load := range s.loads {
		simulate(&all.oracle[k], mixed, load, scenario{policy: routing.LeastTokens, foresight: exact})
	}
	return all, group.Wait()
}

// tables print what was simulated.
func (s sweep) tables(out io.Writer, all simulated, form figures.Form) {
	head := []string{""}
	for _, c := range contenders {
		head = append(head, c.name+" p50, s", "p99, s")
	}
	for i, w := range modelserver.Workloads {
		fmt.Fprintf(out, "\nUntil the first token, %s, %d servers that can do %.1f calls/s each:\n\n", w.Name, s.servers, capacity(w))
		t := figures.Table{head}
		for k, load := range s.loads {
			t = append(t, row(percent(load)+" % load", all.loads[i], k))
		}
		t.Write(out, form)
	}
	fmt.Fprintf(out, "\nThe same, %s, %s %% load, by the number of balancers that know nothing of each other:\n\n", mixed.Name, percent(s.apart))
	t := figures.Table{head}
	for k, n := range s.balancers {
		t = append(t, row(strconv.Itoa(n), all.apart, k))
	}
	t.Write(out, form)
	fmt.Fprintf(out, "\nThe same, %s, LEAST_TOKENS with the lengths of answers known beforehand:\n\n", mixed.Name)
	t = figures.Table{{"", "p50, s", "p99, s"}}
	for k, load := range s.loads {
		t = append(t, row(percent(load)+" % load", [][]point{all.oracle}, k))
	}
	t.Write(out, form)
}

func row(name string, by [][]point, k int) []string {
	r := []string{name}
	for _, points := range by {
		r = append(r, strconv.FormatFloat(points[k].p50.middle, 'f', 3, 64), strconv.FormatFloat(points[k].p99.middle, 'f', 2, 64))
	}
	return r
}

func percent(share float64) string { return strconv.FormatFloat(100*share, 'f', -1, 64) }

// drawLoads draws the first figure: a column for each workload, p50 above p99.
func (s sweep) drawLoads(all simulated) []byte {
	var panels []plot.Panel
	for _, q := range quantiles {
		for i, w := range modelserver.Workloads {
			p := plot.Panel{Title: w.Name + ", " + q.name, X: "load, % of capacity", Y: "first token, s"}
			for j, c := range contenders {
				l := plot.Line{Name: c.name}
				for k, load := range s.loads {
					add(&l, 100*load, q.of(all.loads[i][j][k]))
				}
				p.Lines = append(p.Lines, l)
			}
			panels = append(panels, p)
		}
	}
	return plot.SVG("Time to first token of "+strconv.Itoa(s.servers)+" simulated model servers", len(modelserver.Workloads), panels)
}

// drawApart draws the second one.
func (s sweep) drawApart(all simulated) []byte {
	var panels []plot.Panel
	for _, q := range quantiles {
		p := plot.Panel{Title: fmt.Sprintf("%s, %s %% load, %s", mixed.Name, percent(s.apart), q.name), X: "balancers that share the calls", Y: "first token, s"}
		for j, c := range contenders {
			l := plot.Line{Name: c.name}
			for k := range s.balancers {
				add(&l, float64(k), q.of(all.apart[j][k]))
			}
			p.Lines = append(p.Lines, l)
		}
		for _, n := range s.balancers {
			p.Ticks = append(p.Ticks, strconv.Itoa(n))
		}
		panels = append(panels, p)
	}
	return plot.SVG("What balancers lose that know nothing of each other", len(panels), panels)
}

var quantiles = []struct {
	name string
	of   func(point) span
}{
	{"p50", func(p point) span { return p.p50 }},
	{"p99", func(p point) span { return p.p99 }},
}

func add(l *plot.Line, x float64, y span) {
	l.X, l.Y, l.Low, l.High = append(l.X, x), append(l.Y, y.middle), append(l.Low, y.low), append(l.High, y.high)
}
