// Package picture draws a dashboard into an SVG that needs nothing else to be seen. It knows neither Prometheus nor a clock: what it is
// handed is drawn as the same bytes each time.
package picture

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Panel is one of a dashboard. X, Y, W and H are its place in Grafana's grid of 24 columns.
type Panel struct {
	X, Y, W, H int
	Kind       string // of Grafana: row, stat or timeseries
	Title      string
	Axis       string // what the vertical axis counts, where the unit does not say it
	Unit       string // of Grafana: reqps, s, percentunit, short
	Stacked    bool
	Fill       float64 // how opaque the surface below a line is, from 0 to 1
	Steps      []Step  // of a stat
	Lines      []Line
}

// Step is the colour of a stat from a value on: green, orange or red.
type Step struct {
	From   float64
	Colour string
}

// Line is Y over At, in seconds since the picture's begin. Where Y is no number, the line has a gap.
type Line struct {
	Name  string
	At, Y []float64
}

const (
	width, margin, gap = 1200.0, 16.0, 10.0
	row, heading       = 30.0, 62.0 // of the grid, and above it
	column             = (width - 2*margin + gap) / 24

	ink, faint, grid, surface, ground = "#1f2933", "#616e7c", "#e8ebee", "#ffffff", "#f3f5f7"
	font                              = `font-family="-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"`
)

// colours can be told apart by those who see few colours, too.
var colours = []string{"#3274d9", "#e8833a", "#2a9d6f", "#8a63d2", "#d1495b", "#c9a227", "#3fa7b5", "#7b8794", "#a0522d", "#e377c2"}

// SVG draws the panels of so many seconds, below a title and a sentence.
func SVG(title, note string, seconds float64, panels []Panel) []byte {
	rows := 0
	for _, p := range panels {
		rows = max(rows, p.Y+p.H)
	}
	height := heading + row*float64(rows) - gap + margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" width="%[1]s" height="%[2]s" role="img" aria-label="%[3]s" %[4]s>`+"\n",
		num(width), num(height), html.EscapeString(title), font)
	fmt.Fprintf(&b, `<rect width="%s" height="%s" rx="10" fill="%s"/>`+"\n", num(width), num(height), ground)
	text(&b, words{x: margin + 2, y: 38, size: 20, weight: "600"}, title)
	text(&b, words{x: width - margin - 2, y: 38, size: 12, fill: faint, anchor: "end"}, note)
	for _, p := range panels {
		s := sheet{&b, p, float64(p.W)*column - gap, float64(p.H)*row - gap, seconds}
		fmt.Fprintf(&b, `<g transform="translate(%s %s)">`+"\n", num(margin+float64(p.X)*column), num(heading+float64(p.Y)*row))
		s.draw()
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// sheet is what a panel is drawn on.
type sheet struct {
	*strings.Builder
	Panel
	width, height, seconds float64
}

func (s sheet) draw() {
	if s.Kind == "row" {
		text(s, words{x: 2, y: s.height - 4, size: 13, weight: "600", fill: faint}, s.Title)
		return
	}
	fmt.Fprintf(s, `<rect width="%s" height="%s" rx="6" fill="%s" stroke="#dde2e7"/>`+"\n", num(s.width), num(s.height), surface)
	text(s, words{x: 14, y: 23, size: 13, weight: "600"}, s.Title)
	if s.Kind == "stat" {
		s.stat()
		return
	}
	s.chart()
}

// words say where and how a text is written. What is left out is ink, and begins at x.
type words struct {
	x, y, size           float64
	fill, anchor, weight string
}

func text(b interface{ WriteString(string) (int, error) }, w words, content string) {
	more := ""
	if w.anchor != "" {
		more += ` text-anchor="` + w.anchor + `"`
	}
	if w.weight != "" {
		more += ` font-weight="` + w.weight + `"`
	}
	if w.fill == "" {
		w.fill = ink
	}
	_, _ = b.WriteString(fmt.Sprintf(`<text x="%s" y="%s" font-size="%s" fill="%s"%s>%s</text>`+"\n", num(w.x), num(w.y), num(w.size), w.fill, more, html.EscapeString(content)))
}

// num writes a place with a tenth of a pixel.
func num(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }
