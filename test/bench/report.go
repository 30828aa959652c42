package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// yardstick is the contestant that the others are compared with.
const yardstick = "fasthttp"

// table is a heading and rows of equal length; the first column is text, the others are numbers.
type table [][]string

// tabulate shows medians over rounds and laps. A multiple of the yardstick is taken within each lap first:
// a machine that slows down for a while slows both down, and the multiple stays.
func (s sheet) tabulate(figures []figure, yardstick string, columns ...string) table {
	t := table{append([]string{""}, columns...)}
	for _, f := range figures {
		row := []string{f.label + ", " + f.unit}
		for _, column := range columns {
			row = append(row, s.cell(column, f, yardstick))
		}
		t = append(t, row)
	}
	return t
}

func (s sheet) cell(contestant string, f figure, yardstick string) string {
	values := s[contestant][f]
	if len(values) == 0 {
		return "–"
	}
	cell := strconv.FormatFloat(median(values), 'f', f.digits, 64)
	if base := s[yardstick][f]; f.compared && contestant != yardstick && len(base) == len(values) {
		multiples := make([]float64, len(values))
		for i := range values {
			multiples[i] = values[i] / base[i]
		}
		cell += fmt.Sprintf(" (%.2f×)", median(multiples))
	}
	return cell
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

func (t table) write(w io.Writer, asMarkdown bool) {
	if asMarkdown {
		t.writeMarkdown(w)
	} else {
		t.writeText(w)
	}
}

func (t table) writeText(w io.Writer) {
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

func (t table) writeMarkdown(w io.Writer) {
	for i, row := range t {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(w, "|---|%s\n", strings.Repeat("---:|", len(row)-1))
		}
	}
}
