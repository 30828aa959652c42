package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"unicode/utf8"

	"remora.dev/remora/sidecar/terminal"
)

// colour is a terminal's way to begin a kind of text.
type colour string

// The colours.
const (
	none   colour = ""
	bold   colour = "\x1b[1m"
	faint  colour = "\x1b[2m"
	red    colour = "\x1b[31m"
	green  colour = "\x1b[32m"
	yellow colour = "\x1b[33m"
	cyan   colour = "\x1b[36m"
)

// span is text of one colour. The text may be from anywhere: the page makes it harmless.
type span struct {
	text   string
	colour colour
}

// page is where a command writes to. Only it writes colours, and only through it text of others is written.
type page struct {
	to       io.Writer
	terminal bool // somebody looks at it
	colours  string
	coloured bool
}

func newPage(to io.Writer) *page {
	return &page{to: to, terminal: isTerminal(to), colours: "auto"}
}

// setColour settles whether there are colours.
func (p *page) setColour() error {
	p.coloured = p.colours == "always" || p.colours == "auto" && terminal.Is(p.to)
	return oneOf("color", p.colours, "auto", "always", "never")
}

// line writes spans one after the other, and a new line.
func (p *page) line(spans ...span) error {
	var b strings.Builder
	for _, s := range spans {
		p.put(&b, s)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(p.to, b.String())
	return err
}

func (p *page) put(b *strings.Builder, s span) {
	if !p.coloured || s.colour == none || s.text == "" {
		b.WriteString(plain(s.text))
		return
	}
	b.WriteString(string(s.colour) + plain(s.text) + "\x1b[0m")
}

// json writes a value, indented.
func (p *page) json(value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return p.rawJSON(text)
}

// rawJSON writes JSON of others. Its strings may hold what terminals obey: see plainJSON.
func (p *page) rawJSON(text []byte) error {
	_, err := p.to.Write(append(plainJSON(bytes.TrimSpace(text)), '\n'))
	return err
}

// table is rows under a head. Numbers are aligned to the right.
type table struct {
	head    []string
	numbers map[int]bool // columns
	rows    [][]span
	widest  int // a cell is cut beyond that many characters; 0: none is
}

func (t *table) add(cells ...span) { t.rows = append(t.rows, cells) }

// table writes t, in columns.
func (p *page) table(t *table) error {
	width := make([]int, len(t.head))
	for i, h := range t.head {
		width[i] = utf8.RuneCountInString(h)
	}
	for _, row := range t.rows {
		for i := range row {
			row[i].text = cut(plain(row[i].text), t.widest)
			width[i] = max(width[i], utf8.RuneCountInString(row[i].text))
		}
	}
	var b strings.Builder
	write := func(row []span) {
		start := b.Len()
		for i, cell := range row {
			space := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell.text))
			if i > 0 {
				b.WriteString("  ")
			}
			if t.numbers[i] {
				b.WriteString(space)
			}
			p.put(&b, cell)
			if !t.numbers[i] {
				b.WriteString(space)
			}
		}
		text := strings.TrimRight(b.String()[start:], " ")
		rest := b.String()[:start]
		b.Reset()
		b.WriteString(rest + text + "\n")
	}
	head := make([]span, len(t.head))
	for i, h := range t.head {
		head[i] = span{h, bold}
	}
	write(head)
	for _, row := range t.rows {
		write(row)
	}
	_, err := io.WriteString(p.to, b.String())
	return err
}

// jsonLine writes a value in one line.
func (p *page) jsonLine(value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return p.rawJSON(text)
}

// clear empties the terminal's screen, and goes to its beginning.
func (p *page) clear() error {
	_, err := io.WriteString(p.to, "\x1b[H\x1b[2J")
	return err
}
