package figures

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Figure is one line of a report. Its values are in its unit, one per round or lap.
type Figure struct {
	Label, Unit string
	Digits      int
	Compared    bool // with the yardstick
}

// Compare describes a figure that is compared with the yardstick's of the same lap.
func Compare(label, unit string, digits int) Figure { return Figure{label, unit, digits, true} }

// Alone describes a figure that stands for itself.
func Alone(label, unit string, digits int) Figure { return Figure{label, unit, digits, false} }

// Sheet holds every value measured, by contestant and figure.
type Sheet map[string]map[Figure][]float64

// Add notes a value.
func (s Sheet) Add(contestant string, f Figure, value float64) {
	if s[contestant] == nil {
		s[contestant] = map[Figure][]float64{}
	}
	s[contestant][f] = append(s[contestant][f], value)
}

// Table is a heading and rows of equal length; the first column is text, the others are numbers.
type Table [][]string

// Tabulate shows medians over rounds and laps. A multiple of the yardstick is taken within each lap first:
// a machine that slows down for a while slows both down, and the multiple stays.
func (s Sheet) Tabulate(figures []Figure, yardstick string, columns ...string) Table {
	t := Table{append([]string{""}, columns...)}
	for _, f := range figures {
		row := []string{f.Label + ", " + f.Unit}
		for _, column := range columns {
			row = append(row, s.cell(column, f, yardstick))
		}
		t = append(t, row)
	}
	return t
}

func (s Sheet) cell(contestant string, f Figure, yardstick string) string {
	values := s[contestant][f]
	if len(values) == 0 {
		return "–"
	}
	cell := strconv.FormatFloat(Median(values), 'f', f.Digits, 64)
	if base := s[yardstick][f]; f.Compared && contestant != yardstick && len(base) == len(values) {
		multiples := make([]float64, len(values))
		for i := range values {
			multiples[i] = values[i] / base[i]
		}
		cell += fmt.Sprintf(" (%.2f×)", Median(multiples))
	}
	return cell
}

// Median gives the value in the middle.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// Form is how a table is written.
type Form int

// The forms.
const (
	Text Form = iota // aligned for a terminal
	Markdown
)

// Write prints it.
func (t Table) Write(w io.Writer, form Form) {
	switch form {
	case Text:
		t.writeText(w)
	case Markdown:
		t.writeMarkdown(w)
	}
}

func (t Table) writeText(w io.Writer) {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range t {
		var line strings.Builder
		for i, cell := range row {
			gap := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				line.WriteString(cell + gap)
			} else {
				line.WriteString("   " + gap + cell)
			}
		}
		fmt.Fprintln(w, line.String())
	}
}

func (t Table) writeMarkdown(w io.Writer) {
	for i, row := range t {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(w, "|---|%s\n", strings.Repeat("---:|", len(row)-1))
		}
	}
}
