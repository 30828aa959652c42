// Package plot draws lines over a value into an SVG that needs nothing else to be seen. The same input is drawn as the same bytes,
// so that a figure that is kept in git changes only where what it shows does.
package plot

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Line is what is drawn: Y over X, and where Low and High are given, the span between them, shaded.
type Line struct {
	Name      string
	X, Y      []float64
	Low, High []float64
}

// Panel is a pair of axes. Its vertical one is logarithmic.
type Panel struct {
	Title, X, Y string
	Lines       []Line
	Ticks       []string // what is written below the values of the first line; none: the values
}

const (
	width, height             = 330.0, 240.0
	left, right, top, bottom  = 58.0, 12.0, 34.0, 42.0
	legend                    = 26.0
	heading                   = 30.0
	font                      = `font-family="Helvetica,Arial,sans-serif"`
	ink, faint, grid, surface = "#1f2933", "#52606d", "#e4e7eb", "#ffffff"
)

// colours can be told apart by those who see few colours, too; the shapes of the points help.
var colours = []string{"#d1495b", "#1f77b4", "#2a9d5c", "#8a63d2", "#b8860b"}

// SVG draws panels in rows of so many, below a title and a legend.
func SVG(title string, columns int, panels []Panel) []byte {
	rows := (len(panels) + columns - 1) / columns
	var b strings.Builder
	w, h := width*float64(columns), heading+legend+height*float64(rows)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" width="%s" height="%s" role="img" aria-label="%s">`+"\n",
		num(w), num(h), num(w), num(h), html.EscapeString(title))
	fmt.Fprintf(&b, `<rect width="%s" height="%s" fill="%s"/>`+"\n", num(w), num(h), surface)
	text(&b, w/2, 20, 15, ink, "middle", title)
	names := namesOf(panels)
	x := w/2 - float64(len(names))*82
	for i, name := range names {
		fmt.Fprintf(&b, `<path d="M%s %sh24" stroke="%s" stroke-width="2.5"/>`+"\n", num(x), num(heading+10), colour(i))
		point(&b, i, x+12, heading+10)
		text(&b, x+30, heading+14, 12, ink, "start", name)
		x += 164
	}
	for i, p := range panels {
		p.draw(&b, names, width*float64(i%columns), heading+legend+height*float64(i/columns))
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func namesOf(panels []Panel) []string {
	var names []string
	seen := map[string]bool{}
	for _, p := range panels {
		for _, l := range p.Lines {
			if !seen[l.Name] {
				seen[l.Name] = true
				names = append(names, l.Name)
			}
		}
	}
	return names
}

func colour(i int) string { return colours[i%len(colours)] }

// scale turns values into places.
type scale struct{ x0, x1, y0, y1 float64 } // the vertical ones as logarithms to base 10

func (p Panel) scale() scale {
	s := scale{math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)}
	for _, l := range p.Lines {
		for _, x := range l.X {
			s.x0, s.x1 = min(s.x0, x), max(s.x1, x)
		}
		for _, all := range [][]float64{l.Y, l.Low, l.High} {
			for _, y := range all {
				s.y0, s.y1 = min(s.y0, math.Log10(y)), max(s.y1, math.Log10(y))
			}
		}
	}
	if s.x1 < s.x0 { // there is nothing to draw
		return scale{0, 1, 0, 1}
	}
	if s.x1 == s.x0 {
		s.x1 = s.x0 + 1
	}
	// From a value that is written beside the axis to another one.
	s.y0, s.y1 = math.Log10(tick(math.Pow(10, s.y0-0.01), downwards)), math.Log10(tick(math.Pow(10, s.y1+0.01), upwards))
	return s
}

// towards is where the next tick is looked for.
type towards int

const (
	downwards towards = iota
	upwards
)

// tick gives the nearest 1, 2 or 5 times a power of ten.
func tick(value float64, where towards) float64 {
	best := math.Pow(10, math.Floor(math.Log10(value)))
	for _, m := range []float64{1, 2, 5, 10} {
		candidate := m * math.Pow(10, math.Floor(math.Log10(value)))
		if candidate <= value {
			best = candidate
		} else if where == upwards {
			return candidate
		}
	}
	return best
}

func (s scale) at(x, y float64) (float64, float64) {
	return left + (x-s.x0)/(s.x1-s.x0)*(width-left-right), height - bottom - (math.Log10(y)-s.y0)/(s.y1-s.y0)*(height-top-bottom)
}

func (p Panel) draw(b *strings.Builder, names []string, dx, dy float64) {
	fmt.Fprintf(b, `<g transform="translate(%s %s)">`+"\n", num(dx), num(dy))
	text(b, left+(width-left-right)/2, 22, 12.5, ink, "middle", p.Title)
	s := p.scale()
	p.axes(b, s)
	for i, name := range names {
		for _, l := range p.Lines {
			if l.Name == name {
				l.draw(b, s, i)
			}
		}
	}
	b.WriteString("</g>\n")
}

func (p Panel) axes(b *strings.Builder, s scale) {
	for decade := math.Floor(s.y0 + 1e-9); decade <= s.y1; decade++ {
		for _, m := range []float64{1, 2, 5} {
			value := m * math.Pow(10, decade)
			if l := math.Log10(value); l < s.y0-1e-9 || l > s.y1+1e-9 {
				continue
			}
			_, y := s.at(s.x0, value)
			fmt.Fprintf(b, `<path d="M%s %sH%s" stroke="%s"/>`+"\n", num(left), num(y), num(width-right), grid)
			text(b, left-6, y+4, 10.5, faint, "end", strconv.FormatFloat(value, 'g', 4, 64))
		}
	}
	for i, x := range p.places() {
		name := strconv.FormatFloat(x, 'g', 4, 64)
		if i < len(p.Ticks) {
			name = p.Ticks[i]
		}
		at, _ := s.at(x, math.Pow(10, s.y0))
		fmt.Fprintf(b, `<path d="M%s %sv4" stroke="%s"/>`+"\n", num(at), num(height-bottom), faint)
		text(b, at, height-bottom+16, 10.5, faint, "middle", name)
	}
	fmt.Fprintf(b, `<path d="M%s %sV%sH%s" fill="none" stroke="%s"/>`+"\n", num(left), num(top), num(height-bottom), num(width-right), faint)
	text(b, left+(width-left-right)/2, height-8, 11, faint, "middle", p.X)
	fmt.Fprintf(b, `<g transform="translate(13 %s) rotate(-90)">`, num(top+(height-top-bottom)/2))
	text(b, 0, 0, 11, faint, "middle", p.Y)
	b.WriteString("</g>\n")
}

// places are the values of the horizontal axis that are written below it: those of the first line.
func (p Panel) places() []float64 {
	if len(p.Lines) == 0 {
		return nil
	}
	return p.Lines[0].X
}

func (l Line) draw(b *strings.Builder, s scale, colourOf int) {
	if len(l.Low) == len(l.X) && len(l.High) == len(l.X) && len(l.X) > 0 {
		var d strings.Builder
		for i := range l.X {
			x, y := s.at(l.X[i], l.High[i])
			fmt.Fprintf(&d, "%s%s %s", letter(i), num(x), num(y))
		}
		for i := len(l.X) - 1; i >= 0; i-- {
			x, y := s.at(l.X[i], l.Low[i])
			fmt.Fprintf(&d, "L%s %s", num(x), num(y))
		}
		fmt.Fprintf(b, `<path d="%sZ" fill="%s" fill-opacity="0.13"/>`+"\n", d.String(), colour(colourOf))
	}
	var d strings.Builder
	for i := range l.X {
		x, y := s.at(l.X[i], l.Y[i])
		fmt.Fprintf(&d, "%s%s %s", letter(i), num(x), num(y))
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2.2" stroke-linejoin="round"/>`+"\n", d.String(), colour(colourOf))
	for i := range l.X {
		x, y := s.at(l.X[i], l.Y[i])
		point(b, colourOf, x, y)
	}
}

func letter(i int) string {
	if i == 0 {
		return "M"
	}
	return "L"
}

// point marks a place, by a shape that belongs to the colour.
func point(b *strings.Builder, i int, x, y float64) {
	switch i % 3 {
	case 0:
		fmt.Fprintf(b, `<circle cx="%s" cy="%s" r="3.2" fill="%s"/>`+"\n", num(x), num(y), colour(i))
	case 1:
		fmt.Fprintf(b, `<rect x="%s" y="%s" width="6" height="6" fill="%s"/>`+"\n", num(x-3), num(y-3), colour(i))
	case 2:
		fmt.Fprintf(b, `<path d="M%s %sl4 7h-8z" fill="%s"/>`+"\n", num(x), num(y-4), colour(i))
	}
}

func text(b *strings.Builder, x, y, size float64, fill, anchor, content string) {
	fmt.Fprintf(b, `<text x="%s" y="%s" %s font-size="%s" fill="%s" text-anchor="%s">%s</text>`+"\n",
		num(x), num(y), font, num(size), fill, anchor, html.EscapeString(content))
}

// num writes a place with a tenth of a pixel.
func num(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }
