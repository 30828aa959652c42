package llmserver

import "sync"

// Tokens are what answers cost. The cached ones are some of the input, the reasoning ones some of the output.
type Tokens struct {
	Answers   int
	Input     int
	Output    int
	Cached    int
	Reasoning int
}

func (t *Tokens) add(more Tokens) {
	t.Answers += more.Answers
	t.Input += more.Input
	t.Output += more.Output
	t.Cached += more.Cached
	t.Reasoning += more.Reasoning
}

// Tally is what a host's answers have cost, each of them in one of three ways. Only answers that a model gave are in it:
// no errors, no models, no WebSockets.
type Tally struct {
	Reported Tokens // and said so, in an answer of which at least that part was sent in full; the last total, if it runs
	Silent   Tokens // in whole answers that did not say
	Cut      Tokens // in answers that broke off before they said; Output is what was sent until then
}

// Tally returns what the answers of a host that have ended cost since the start or the last Reset; with the empty name,
// those of all hosts. An answer ends a moment after its client has all of it: see AwaitEnded.
func (s *Server) Tally(host string) Tally {
	s.tallies.mu.Lock()
	defer s.tallies.mu.Unlock()
	if host != "" {
		return s.tallies.hosts[hostname(host)]
	}
	var all Tally
	for _, t := range s.tallies.hosts {
		all.add(t)
	}
	return all
}

func (t *Tally) add(more Tally) {
	t.Reported.add(more.Reported)
	t.Silent.add(more.Silent)
	t.Cut.add(more.Cut)
}

type tallies struct {
	mu    sync.Mutex
	hosts map[string]Tally
}

func (t *tallies) add(host string, more Tally) {
	if more == (Tally{}) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hosts == nil {
		t.hosts = map[string]Tally{}
	}
	sum := t.hosts[host]
	sum.add(more)
	t.hosts[host] = sum
}

func (t *tallies) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hosts = nil
}

// bill is what an answer costs and where it says so. The zero bill is of an answer that costs nothing.
type bill struct {
	Tokens
	silent  bool // it never says so
	running bool // each event says what it has cost so far
	first   int  // the event with the first word; each one after it has one more
	report  int  // the event in which it is said
}

// account puts an answer that has ended into the tally.
func (p *plan) account(o outcome) Tally {
	b := p.bill
	stream := p.events != nil
	whole := o.whole || stream && o.pieces == len(p.events) // a client may leave before the end of what has no more to say
	switch {
	case b.Tokens == Tokens{}:
		return Tally{}
	case b.silent && whole:
		return Tally{Silent: b.Tokens}
	case !b.silent && (whole || stream && o.pieces > b.report):
		return Tally{Reported: b.Tokens}
	}
	if !stream {
		return Tally{Cut: b.Tokens}
	}
	if b.running && o.pieces > 0 {
		return Tally{Reported: b.until(o.pieces)}
	}
	return Tally{Cut: b.until(o.pieces)}
}

// until is what the first events of a stream cost.
func (b bill) until(events int) Tokens {
	t := b.Tokens
	t.Output = min(t.Output, max(events-b.first, 0)+t.Reasoning)
	return t
}

// failing is the bill of a stream that ends in order, but with an error after so many events.
func (b bill) failing(events int) bill {
	if b.Tokens == (Tokens{}) || !b.silent && events > b.report {
		return b
	}
	b.Tokens, b.silent = b.until(events), b.silent || !b.running || events == 0
	return b
}
