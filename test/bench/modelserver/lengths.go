package modelserver

import (
	"math"
	"math/rand/v2"
	"time"
)

// Lengths is how many tokens there are, by chance: the logarithm is normal, so that some are very long, as those of prompts and of
// answers are.
type Lengths struct {
	Median float64
	Sigma  float64 // of the logarithm; 0: all are alike
	Most   int     // none is longer
}

// Draw gives one, 1 at least.
func (l Lengths) Draw(chance *rand.Rand) int {
	n := int(math.Round(l.Median * math.Exp(l.Sigma*chance.NormFloat64())))
	return max(1, min(n, l.Most))
}

// Kind is calls that are alike.
type Kind struct {
	Share          float64 // of all calls; those of a workload sum up to 1
	Prompt, Output Lengths
}

// Workload is what is asked for.
type Workload struct {
	Name  string
	Kinds []Kind
}

// Workloads are the ones that are measured.
var Workloads = []Workload{
	{"chat", []Kind{{1, Lengths{300, 1, 8000}, Lengths{150, 1, 4000}}}},
	{"chat and documents", []Kind{
		{0.9, Lengths{300, 1, 8000}, Lengths{150, 1, 4000}},
		{0.1, Lengths{8000, 0.5, 32000}, Lengths{400, 0.7, 4000}},
	}},
	{"all calls alike", []Kind{{1, Lengths{500, 0, 500}, Lengths{200, 0, 200}}}},
}

// Arrival is a call that comes at a time.
type Arrival struct {
	At             time.Duration
	Prompt, Output int
}

// Arrivals gives the calls of a span in which rate of them come in a second, independently of each other.
func (w Workload) Arrivals(chance *rand.Rand, rate float64, span time.Duration) []Arrival {
	var all []Arrival
	for at := 0.0; ; {
		at += chance.ExpFloat64() / rate
		if at >= span.Seconds() {
			return all
		}
		k := w.draw(chance)
		all = append(all, Arrival{time.Duration(at * float64(time.Second)), k.Prompt.Draw(chance), k.Output.Draw(chance)})
	}
}

func (w Workload) draw(chance *rand.Rand) Kind {
	rest := chance.Float64()
	for _, k := range w.Kinds {
		if rest -= k.Share; rest < 0 {
			return k
		}
	}
	return w.Kinds[len(w.Kinds)-1] // of shares that sum up to a little less than 1
}

// Capacity gives how many calls a second one engine can answer that never lacks any, over so many calls.
func (w Workload) Capacity(c Costs, chance *rand.Rand, calls int) float64 {
	e := New(c)
	var now time.Duration
	var answered int
	for answered < calls {
		for e.queue() < c.Slots {
			k := w.draw(chance)
			e.Add(&Job{Prompt: k.Prompt.Draw(chance), Output: k.Output.Draw(chance)})
		}
		took, wrote := e.Step()
		now += took
		for _, j := range wrote {
			if j.Written() == j.Output {
				answered++
			}
		}
	}
	return float64(answered) / now.Seconds()
}

func (e *Engine) queue() int { return len(e.waiting) }
