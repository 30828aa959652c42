package picture

import (
	"fmt"
	"math"
	"strings"
)

// band is a line with what it stands on: 0, or the lines below it.
type band struct {
	line      Line
	low, high []float64
}

// bands puts the lines upon each other where they are stacked. One that has a gap there is nothing high.
func (s sheet) bands() (all []band, most float64) {
	height := map[float64]float64{}
	for _, l := range s.Lines {
		b := band{line: l}
		for i, at := range l.At {
			low, y := 0.0, l.Y[i]
			if s.Stacked {
				low = height[at]
				if !math.IsNaN(y) {
					height[at] += y
				}
			}
			b.low, b.high = append(b.low, low), append(b.high, low+y)
			if top := low + y; !math.IsNaN(top) && !math.IsInf(top, 0) {
				most = max(most, top)
			}
		}
		all = append(all, b)
	}
	return all, most
}

// plot is the part of a sheet that has the lines.
type plot struct{ left, right, top, bottom, most, seconds float64 }

func (p plot) x(at float64) float64 { return p.left + (p.right-p.left)*at/p.seconds }
func (p plot) y(v float64) float64  { return p.bottom - (p.bottom-p.top)*v/p.most }

func (s sheet) chart() {
	bands, most := s.bands()
	distance := tick(most)
	legend := s.legend()
	p := plot{48, s.width - 16, 48, s.height - 32 - 17*float64(len(legend)), distance * max(1, math.Ceil(most/distance-1e-9)), max(s.seconds, 1)}
	axis := s.Axis
	if axis == "" && s.Unit == "reqps" {
		axis = "requests/s"
	}
	text(s, words{x: 14, y: 40, size: 10.5, fill: faint}, axis)
	for i := 0; float64(i)*distance <= p.most*(1+1e-9); i++ {
		v := float64(i) * distance
		fmt.Fprintf(s, `<path d="M%s %sH%s" stroke="%s"/>`+"\n", num(p.left), num(p.y(v)), num(p.right), grid)
		text(s, words{x: p.left - 6, y: p.y(v) + 3.7, size: 10.5, fill: faint, anchor: "end"}, mark(v, s.Unit))
	}
	for at := 0.0; at <= p.seconds; at += beat(p.seconds) {
		fmt.Fprintf(s, `<path d="M%s %sv4" stroke="%s"/>`+"\n", num(p.x(at)), num(p.bottom), faint)
		text(s, words{x: p.x(at), y: p.bottom + 16, size: 10.5, fill: faint, anchor: "middle"}, clock(at))
	}
	for i, b := range bands {
		b.draw(s.Builder, p, colours[i%len(colours)], s.Fill)
	}
	fmt.Fprintf(s, `<path d="M%s %sH%s" stroke="%s"/>`+"\n", num(p.left), num(p.bottom), num(p.right), faint)
	for n, line := range legend {
		for _, e := range line {
			y := s.height - 11 - 17*float64(len(legend)-1-n)
			fmt.Fprintf(s, `<rect x="%s" y="%s" width="12" height="4" rx="2" fill="%s"/>`+"\n", num(e.x), num(y-6), colours[e.line%len(colours)])
			text(s, words{x: e.x + 17, y: y, size: 11}, s.Lines[e.line].Name)
		}
	}
}

// draw draws each piece between gaps: its surface, and its upper edge.
func (b band) draw(to *strings.Builder, p plot, colour string, fill float64) {
	from := -1
	for i := 0; i <= len(b.high); i++ {
		if i < len(b.high) && !math.IsNaN(b.high[i]) && !math.IsInf(b.high[i], 0) {
			if from < 0 {
				from = i
			}
			continue
		}
		if from < 0 {
			continue
		}
		edge, floor := "", ""
		for j := from; j < i; j++ {
			edge += fmt.Sprintf("%s%s %s", letter(j-from), num(p.x(b.line.At[j])), num(p.y(b.high[j])))
			floor = fmt.Sprintf("L%s %s", num(p.x(b.line.At[j])), num(p.y(b.low[j]))) + floor
		}
		if fill > 0 {
			fmt.Fprintf(to, `<path d="%s%sZ" fill="%s" fill-opacity="%.2f"/>`+"\n", edge, floor, colour, fill)
		}
		fmt.Fprintf(to, `<path d="%s" fill="none" stroke="%s" stroke-width="1.7" stroke-linejoin="round" stroke-linecap="round"/>`+"\n", edge, colour)
		from = -1
	}
}

func letter(i int) string {
	if i == 0 {
		return "M"
	}
	return "L"
}

// entry is a line's name in the legend.
type entry struct {
	line int
	x    float64
}

// legend has the names in rows. How wide a letter is depends on the reader's font: there is room for a wide one.
func (s sheet) legend() (rows [][]entry) {
	x := s.width
	for i, l := range s.Lines {
		need := 17 + 6.4*float64(len([]rune(l.Name))) + 12
		if x+need > s.width-4 {
			rows, x = append(rows, nil), 14
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], entry{i, x})
		x += need
	}
	return rows
}
