package modelserver

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// until runs an engine until it has no more work, and gives when each job had its first and its last token.
func until(e *Engine) (first, last map[*Job]time.Duration) {
	first, last = map[*Job]time.Duration{}, map[*Job]time.Duration{}
	for now := time.Duration(0); ; {
		took, wrote := e.Step()
		if took == 0 {
			return first, last
		}
		now += took
		for _, j := range wrote {
			if j.Written() == 1 {
				first[j] = now
			}
			if j.Written() == j.Output {
				last[j] = now
			}
		}
	}
}

var round = Costs{Slots: 2, Step: 10 * time.Millisecond, PerAnswer: time.Millisecond, PerPromptToken: 100 * time.Microsecond, PromptChunk: 100}

func TestALoneJobTakesItsStepsAndItsPrompt(t *testing.T) {
	e := New(round)
	j := &Job{Prompt: 150, Output: 3}
	e.Add(j)
	first, last := until(e)
	// Two steps read 150 tokens; two more write the second and the third token.
	if want := 2*10*time.Millisecond + 15*time.Millisecond; first[j] != want {
		t.Errorf("the first token came after %v, want %v", first[j], want)
	}
	if want := first[j] + 2*11*time.Millisecond; last[j] != want {
		t.Errorf("the last token came after %v, want %v", last[j], want)
	}
}

func TestAJobWaitsForASlot(t *testing.T) {
	e := New(round)
	a, b, c := &Job{Prompt: 1, Output: 2}, &Job{Prompt: 1, Output: 9}, &Job{Prompt: 1, Output: 1}
	for _, j := range []*Job{a, b, c} {
		e.Add(j)
	}
	first, last := until(e)
	if first[a] != first[b] || first[c] <= last[a] || first[c] >= last[b] {
		t.Errorf("the third of two slots began at %v; the others ended at %v and %v", first[c], last[a], last[b])
	}
	if running, waiting := e.Under(); running+waiting != 0 {
		t.Errorf("%d and %d are left", running, waiting)
	}
}

func TestWhatIsDroppedTakesNoTime(t *testing.T) {
	e := New(round)
	a, b := &Job{Prompt: 1, Output: 100}, &Job{Prompt: 1, Output: 100}
	e.Add(a)
	e.Step()
	e.Add(b)
	e.Drop(a)
	e.Drop(b)
	if took, wrote := e.Step(); took != 0 || wrote != nil {
		t.Errorf("a step without work takes %v and writes %d", took, len(wrote))
	}
}

func TestLengthsAreAsTheyAreSaid(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	l := Lengths{Median: 150, Sigma: 1, Most: 4000}
	below, sum, n := 0, 0.0, 200_000
	for range n {
		d := l.Draw(chance)
		if d < 1 || d > 4000 {
			t.Fatalf("drew %d", d)
		}
		if d <= 150 {
			below++
		}
		sum += float64(d)
	}
	if share := float64(below) / float64(n); math.Abs(share-0.5) > 0.01 {
		t.Errorf("%.3f are at or below the median", share)
	}
	if mean := sum / float64(n); math.Abs(mean-150*math.Exp(0.5)) > 5 {
		t.Errorf("their mean is %.1f", mean)
	}
}

func TestCallsComeAsOftenAsSaid(t *testing.T) {
	all := Workloads[0].Arrivals(rand.New(rand.NewPCG(1, 2)), 50, 1000*time.Second)
	// Of a Poisson process with a mean of 50,000, one in a billion is further off than 6.1 standard deviations.
	if n := len(all); math.Abs(float64(n)-50_000) > 6.2*math.Sqrt(50_000) {
		t.Errorf("%d calls within 1,000 s at 50 a second", n)
	}
}
