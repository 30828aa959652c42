//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// width is that of a line, in columns of a terminal.
const width = 100

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

func (d *demo) say(format string, args ...any) {
	for _, line := range fill(fmt.Sprintf(format, args...), width) {
		fmt.Println(line)
	}
}

// command shows one as it can be copied: the end of a here-document must stand at the beginning of its line.
func (d *demo) command(s string) { fmt.Println(d.paint("1", "$ "+s)) }

// output shows what a command has printed, no line of it wider than the screen.
func (d *demo) output(s string) {
	if s == "" {
		return
	}
	for line := range strings.SplitSeq(s, "\n") {
		for _, piece := range cut(strings.TrimRight(line, " \r"), width-4) {
			fmt.Println("  " + piece)
		}
	}
}

// notice says what to see in what was just printed.
func (d *demo) notice(format string, args ...any) {
	lines := fill(fmt.Sprintf(format, args...), width-2)
	fmt.Println(d.paint("32", "→ "+strings.Join(lines, "\n  ")))
}

// pause gives a person time to read; a pipe needs none.
func (d *demo) pause() {
	if d.terminal {
		d.wait(1500 * time.Millisecond)
	}
}

func (d *demo) wait(t time.Duration) {
	select {
	case <-d.ctx.Done():
	case <-time.After(t):
	}
}

// columns is what a letter takes: those of East Asia take two.
func columns(r rune) int {
	if unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) || r >= 0x3000 && r < 0x3040 || r >= 0xff00 && r < 0xff61 {
		return 2
	}
	return 1
}

// fill breaks a sentence at its spaces.
func fill(s string, width int) []string {
	var lines []string
	line, used := "", 0
	for word := range strings.FieldsSeq(s) {
		n := 0
		for _, r := range word {
			n += columns(r)
		}
		if used > 0 && used+1+n > width {
			lines, line, used = append(lines, line), "", 0
		}
		if used > 0 {
			line, used = line+" ", used+1
		}
		line, used = line+word, used+n
	}
	return append(lines, line)
}

// cut breaks a line that is too long: behind a space or a comma, if there is one not too far back. What follows is set in.
func cut(s string, width int) []string {
	var lines []string
	letters := []rune(s)
	for start, indent := 0, ""; ; indent = "  " {
		used, end, good := len(indent), start, 0
		for end < len(letters) && used+columns(letters[end]) <= width {
			used += columns(letters[end])
			end++
			if letters[end-1] == ' ' || letters[end-1] == ',' && used > width*2/3 {
				good = end
			}
		}
		if end == len(letters) {
			return append(lines, indent+string(letters[start:]))
		}
		if good > 0 {
			end = good
		}
		lines = append(lines, indent+strings.TrimRight(string(letters[start:end]), " "))
		start = end
	}
}
