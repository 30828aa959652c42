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

// tabulate shows the median over rounds and laps, and what it is as a multiple of the yardstick's.
func (s sheet) tabulate(columns []string) table {
	t := table{append([]string{""}, columns...)}
	for _, f := range figures {
		row := []string{f.label + ", " + f.unit}
		for _, column := range columns {
			row = append(row, s.cell(column, f))
		}
		t = append(t, row)
	}
	return t
}

func (s sheet) cell(contestant string, f figure) string {
	values := s[contestant][f]
	if len(values) == 0 {
		return "–"
	}
	value := median(values)
	cell := strconv.FormatFloat(value, 'f', f.digits, 64)
	if base := s[yardstick][f]; f.compared && contestant != yardstick && len(base) > 0 && median(base) > 0 {
		cell += fmt.Sprintf(" (%.2f×)", value/median(base))
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
