// Package modelserver says how long a server of a language model takes, without a model: an engine that reads prompts and writes
// answers in steps, as those with continuous batching do. It has no clock: who runs it lets a step take as long as it says, be
// it in simulated time or by really waiting.
package modelserver

import "time"

// Costs is what the work of an engine takes.
type Costs struct {
	Slots          int           // answers under way at the same time; what comes then waits, first come first served
	Step           time.Duration // of each step, however little is done in it: the model's weights are read
	PerAnswer      time.Duration // more, for each answer that the step writes a token of
	PerPromptToken time.Duration // more, for each token of prompts that the step reads
	PromptChunk    int           // tokens of prompts that a step reads at most, so that the answers under way go on
}

// Common are the costs of a model of about 8 billion parameters on one accelerator of a data centre: a lone answer is written at 80
// tokens a second, 32 at once at 50 each, and a prompt of 1,000 tokens is read within 0.1 s.
var Common = Costs{Slots: 32, Step: 12 * time.Millisecond, PerAnswer: 250 * time.Microsecond, PerPromptToken: 100 * time.Microsecond, PromptChunk: 512}

// Job is a prompt to read and an answer to write. Its lengths are in tokens, at least 1 each.
type Job struct {
	Prompt, Output int

	read, written int
}

// Written gives how many tokens of the answer are there.
func (j *Job) Written() int { return j.written }

// Engine is a server's. It is for one goroutine at a time.
type Engine struct {
	costs            Costs
	waiting, running []*Job
	wrote            []*Job
}

// New makes an engine without work.
func New(c Costs) *Engine { return &Engine{costs: c} }

// Add gives it work, which begins with the next step at the earliest.
func (e *Engine) Add(j *Job) { e.waiting = append(e.waiting, j) }

// Drop takes work away whose caller has left.
func (e *Engine) Drop(j *Job) {
	e.waiting = without(e.waiting, j)
	e.running = without(e.running, j)
}

func without(jobs []*Job, j *Job) []*Job {
	for i := range jobs {
		if jobs[i] == j {
			return append(jobs[:i], jobs[i+1:]...)
		}
	}
	return jobs
}

// Under gives how much is being worked on, and how much waits.
func (e *Engine) Under() (running, waiting int) { return len(e.running), len(e.waiting) }

// Step does a step: took is how long it takes, and wrote are the jobs that have a token more at its end, which is the last one
// where Written is Output. Without work, took is 0. The slice is overwritten by the next step.
func (e *Engine) Step() (took time.Duration, wrote []*Job) {
	for len(e.running) < e.costs.Slots && len(e.waiting) > 0 {
		e.running = append(e.running, e.waiting[0])
		e.waiting = e.waiting[1:]
	}
	if len(e.running) == 0 {
		return 0, nil
	}
	e.wrote = e.wrote[:0]
	took, room := e.costs.Step, e.costs.PromptChunk
	left := e.running[:0]
	for _, j := range e.running {
		if j.read == j.Prompt {
			took += e.costs.PerAnswer
			j.written++
		} else {
			now := min(room, j.Prompt-j.read)
			j.read += now
			room -= now
			took += time.Duration(now) * e.costs.PerPromptToken
			if j.read == j.Prompt { // the step that ends a prompt writes the answer's first token
				j.written++
			}
		}
		if j.written > 0 {
			e.wrote = append(e.wrote, j)
		}
		if j.written < j.Output {
			left = append(left, j)
		}
	}
	e.running = left
	return took, e.wrote
}
