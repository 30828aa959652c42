package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// counts are what the apps did and met.
type counts struct {
	mu     sync.Mutex
	kinds  map[string]map[string]int // by kind of call and by what went wrong; "" is nothing
	calls  int
	failed int
	faults map[string]int // what must not be, with how often
}

func newCounts() *counts {
	return &counts{kinds: map[string]map[string]int{}, faults: map[string]int{}}
}

func (c *counts) add(kind, failure string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kinds[kind] == nil {
		c.kinds[kind] = map[string]int{}
	}
	c.kinds[kind][failure]++
	c.calls++
	if failure != "" {
		c.failed++
	}
}

// shown is how many different faults are remembered.
const shown = 20

// wrong notes what must not be.
func (c *counts) wrong(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if len(c.faults) >= shown && c.faults[text] == 0 {
		text = "and others"
	}
	c.faults[text]++
}

func (c *counts) line() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	wrong := 0
	for _, n := range c.faults {
		wrong += n
	}
	return fmt.Sprintf("%d calls, %d failed as they should, %d wrong", c.calls, c.failed, wrong)
}

// table shows all calls and what they met.
func (c *counts) table(out *tabwriter.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintln(out, "call\tgood\tfailed, and why")
	for _, kind := range slices.Sorted(maps.Keys(c.kinds)) {
		var failures []string
		for _, failure := range slices.Sorted(maps.Keys(c.kinds[kind])) {
			if failure != "" {
				failures = append(failures, fmt.Sprintf("%s %d", failure, c.kinds[kind][failure]))
			}
		}
		fmt.Fprintf(out, "%s\t%d\t%s\n", kind, c.kinds[kind][""], strings.Join(failures, ", "))
	}
}

func (c *counts) wrongs() (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range slices.Sorted(maps.Keys(c.faults)) {
		all = append(all, fmt.Sprintf("%s (%d times)", text, c.faults[text]))
	}
	return all
}
