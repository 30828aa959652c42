package main

import (
	"fmt"
	"strings"
	"time"
)

func (d *demo) paint(code, s string) string {
	if !d.terminal {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (d *demo) title(s string) {
	if d.step > 0 {
		s = fmt.Sprintf("%d. %s", d.step, s)
	}
	fmt.Printf("\n%s\n", d.paint("1;36", s))
}

func (d *demo) say(s string) { fmt.Println(s) }

func (d *demo) command(s string) {
	fmt.Println(d.paint("1", "$ "+s))
}

func (d *demo) output(s string) {
	if s == "" {
		return
	}
	for line := range strings.SplitSeq(s, "\n") {
		fmt.Println("  " + line)
	}
}

// notice says what to see in what was just printed.
func (d *demo) notice(format string, args ...any) {
	fmt.Println(d.paint("32", "→ "+fmt.Sprintf(format, args...)))
}

// pause gives a person time to read; a pipe needs none.
func (d *demo) pause() {
	if !d.terminal {
		return
	}
	select {
	case <-d.ctx.Done():
	case <-time.After(1500 * time.Millisecond):
	}
}

// short leaves the temporary folder out of what is printed.
func (d *demo) short(s string) string { return strings.ReplaceAll(s, d.folder+"/", "") }
