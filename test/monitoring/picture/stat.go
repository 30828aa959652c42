package picture

import (
	"fmt"
	"html"
	"math"
)

// judged are Grafana's colours, dark enough for a figure on white.
var judged = map[string]string{"green": "#1f8a5b", "orange": "#c76a15", "red": "#c4314b"}

// stat draws the last value, over a trace of those before it.
func (s sheet) stat() {
	value, suffix, colour := "–", "", ink
	all, most := s.bands()
	if len(all) > 0 {
		y := all[0].line.Y
		for i := len(y) - 1; i >= 0; i-- {
			if !math.IsNaN(y[i]) && !math.IsInf(y[i], 0) {
				value, suffix = amount(y[i], s.Unit)
				colour = s.judge(y[i])
				break
			}
		}
		p := plot{1, s.width - 1, s.height - 34, s.height - 1, max(most, 1e-12), max(s.seconds, 1)}
		all[0].draw(s.Builder, p, colours[0], 0.10)
	}
	if s.Axis != "" && suffix != "" {
		suffix += " "
	}
	fmt.Fprintf(s, `<text x="14" y="57" font-size="27" font-weight="600" fill="%s">%s<tspan font-size="14" font-weight="400" dx="5">%s</tspan></text>`+"\n",
		colour, html.EscapeString(value), html.EscapeString(suffix+s.Axis))
}

// judge gives the colour of a value. Where there is but one colour for all values, it says nothing, and is not used.
func (s sheet) judge(v float64) string {
	if len(s.Steps) < 2 {
		return ink
	}
	colour := ink
	for _, step := range s.Steps {
		if v >= step.From {
			colour = judged[step.Colour]
		}
	}
	return colour
}
