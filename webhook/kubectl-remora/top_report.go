package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TopReport is one table of top.
type TopReport struct {
	Time   time.Time `json:"time"`
	By     string    `json:"by"`
	Rows   []TopRow  `json:"rows"`
	Total  Rates     `json:"total"`
	Silent []Silent  `json:"silent"` // did not answer
	Fresh  []podID   `json:"fresh"`  // have answered once: there are no rates yet
	Asked  int       `json:"pods"`
}

// TopRow is a line of it.
type TopRow struct {
	Name string `json:"name"`
	Rates
}

// Silent is a pod that did not answer.
type Silent struct {
	podID
	Reason string `json:"reason"`
}

// nameOf gives the line that calls belong to.
func nameOf(by string, pod podID, id series) string {
	var name string
	switch by {
	case "model":
		name = id.model
	case "provider":
		name = id.provider
	case "namespace":
		name = pod.Namespace
	default:
		name = pod.String()
	}
	return cmp.Or(name, "-")
}

// report puts together what has been read. A line's rates are the sum of what was counted in each pod over the time between that pod's
// readings, which differ a little.
func (w *watcher) report(by, order string) *TopReport {
	r := &TopReport{Time: time.Now().UTC().Truncate(time.Millisecond), By: by, Asked: len(w.pods), Rows: []TopRow{}, Silent: []Silent{}, Fresh: []podID{}}
	sums, waiting := map[string]*tally{}, map[string]float64{}
	all, allWaiting := &tally{}, 0.0
	for _, id := range slices.SortedFunc(maps.Keys(w.pods), podID.compare) {
		p := w.pods[id]
		switch {
		case p.err != nil:
			r.Silent = append(r.Silent, Silent{id, p.err.Error()})
			continue
		case p.before == nil:
			r.Fresh = append(r.Fresh, id)
			continue
		}
		line := func(s series) *tally {
			name := nameOf(by, id, s)
			if sums[name] == nil {
				sums[name] = &tally{}
			}
			return sums[name]
		}
		if by == "pod" || by == "namespace" {
			line(series{}) // also where nothing is called
			waiting[nameOf(by, id, series{})] += p.now.inFlight
		}
		allWaiting += p.now.inFlight
		for s, t := range since(p.before, p.now) {
			perSecond := t.scaled(1 / max(p.span.Seconds(), 0.001))
			line(s).plus(perSecond)
			all.plus(perSecond)
		}
	}
	for name, t := range sums {
		r.Rows = append(r.Rows, TopRow{name, t.over(time.Second, waiting[name])})
	}
	r.Total = all.over(time.Second, allWaiting)
	slices.SortFunc(r.Rows, func(a, b TopRow) int {
		return cmp.Or(cmp.Compare(weight(&b.Rates, order), weight(&a.Rates, order)), cmp.Compare(a.Name, b.Name))
	})
	return r
}

// scaled gives t times a factor.
func (t *tally) scaled(by float64) *tally {
	s := &tally{
		requests: t.requests * by, failed: t.failed * by, exact: t.exact.scaled(by), estimated: t.estimated.scaled(by),
		cost: map[string]float64{}, first: map[float64]float64{},
	}
	for k, v := range t.cost {
		s.cost[k] = v * by
	}
	for k, v := range t.first {
		s.first[k] = v * by
	}
	return s
}

func weight(r *Rates, order string) float64 {
	switch order {
	case "tokens":
		return r.Input + r.Output + r.AboutIn + r.AboutOut
	case "errors":
		return r.Failed
	case "first":
		if r.First99 != nil {
			return *r.First99
		}
		return 0
	case "cost":
		sum := 0.0
		for _, c := range r.Cost {
			sum += c
		}
		return sum
	case "name":
		return 0
	}
	return r.Requests
}

// show writes a report in the form that is wanted.
func (t *top) show(r *TopReport) error {
	p := t.app.page
	if t.format == "json" {
		if t.once {
			return p.json(r)
		}
		return p.jsonLine(r)
	}
	live := p.terminal && !t.once
	rows := len(r.Rows)
	if live {
		if err := p.clear(); err != nil {
			return err
		}
		// Head, total, a line for what is left out, one for those without an answer, and one for the cursor.
		if lines := height(p.to); lines > 0 {
			rows = max(1, min(rows, lines-6-min(len(r.Silent), maxSilent+1)))
		}
	}
	if err := p.topTable(r, rows); err != nil || t.once || live {
		return err
	}
	return p.line()
}

// maxSilent is how many pods without an answer are named one by one.
const maxSilent = 5

func (p *page) topTable(r *TopReport, rows int) error {
	t := &table{
		head:    []string{strings.ToUpper(r.By), "REQ/S", "TOKENS IN/S", "OUT/S", "FIRST P50", "P99", "ERRORS/S", "COST/H", "NOW"},
		numbers: map[int]bool{1: true, 2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 8: true}, widest: 64,
	}
	add := func(name span, rates *Rates) {
		failed := span{text: figure(rates.Failed)}
		if rates.Failed > 0 {
			failed.colour = red
		}
		now := strconv.FormatFloat(rates.InFlight, 'f', 0, 64)
		if r.By == "model" || r.By == "provider" {
			now = "-" // a pod does not count it apart
			if name.colour == bold {
				now = strconv.FormatFloat(rates.InFlight, 'f', 0, 64)
			}
		}
		t.add(name, span{text: figure(rates.Requests)}, span{text: about(rates.Input, rates.AboutIn)}, span{text: about(rates.Output, rates.AboutOut)},
			span{text: milliseconds(rates.First50)}, span{text: milliseconds(rates.First99)}, failed, span{text: money(rates.Cost)}, span{text: now})
	}
	for i := range r.Rows[:min(rows, len(r.Rows))] {
		add(span{text: r.Rows[i].Name}, &r.Rows[i].Rates)
	}
	add(span{"total", bold}, &r.Total)
	if err := p.table(t); err != nil {
		return err
	}
	if left := len(r.Rows) - rows; left > 0 {
		if err := p.line(span{fmt.Sprintf("… and %d more", left), faint}); err != nil {
			return err
		}
	}
	if len(r.Fresh) > 0 {
		if err := p.line(span{number(len(r.Fresh), "pod") + " answered for the first time: no rates yet", faint}); err != nil {
			return err
		}
	}
	for i, s := range r.Silent {
		if i == maxSilent {
			return p.line(span{fmt.Sprintf("… and %d more without an answer: -o json names all", len(r.Silent)-i), yellow})
		}
		if err := p.line(span{"no answer: " + s.String(), yellow}, span{text: "  " + cut(s.Reason, 200)}); err != nil {
			return err
		}
	}
	return nil
}

// figure gives a number as short as it is worth reading.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.01:
		return "<0.01"
	case v < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 1000:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v < 1e6:
		return strconv.FormatFloat(v/1e3, 'f', 1, 64) + "k"
	}
	return strconv.FormatFloat(v/1e6, 'f', 1, 64) + "M"
}

// about gives tokens with those that are estimated, and marks that there are such.
func about(exact, estimated float64) string {
	if estimated > 0 {
		return "~" + figure(exact+estimated)
	}
	return figure(exact)
}

func milliseconds(v *float64) string {
	switch {
	case v == nil:
		return "-"
	case *v < 10:
		return strconv.FormatFloat(*v, 'f', 1, 64) + "ms"
	case *v < 1000:
		return strconv.FormatFloat(*v, 'f', 0, 64) + "ms"
	}
	return strconv.FormatFloat(*v/1000, 'f', 1, 64) + "s"
}

func money(by map[string]float64) string {
	var parts []string
	for _, currency := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, figure(by[currency])+" "+currency)
	}
	return cmp.Or(strings.Join(parts, "+"), "-")
}
