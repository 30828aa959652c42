package picture

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func drawn(t *testing.T, panels ...Panel) string {
	t.Helper()
	svg := SVG("A & B", "a <note>", 60, panels)
	decoder := xml.NewDecoder(bytes.NewReader(svg))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
	}
	if strings.Contains(string(svg), "NaN") || strings.Contains(string(svg), "Inf") {
		t.Errorf("something has no place in\n%s", svg)
	}
	if again := SVG("A & B", "a <note>", 60, panels); !bytes.Equal(again, svg) {
		t.Error("the second drawing is another")
	}
	return string(svg)
}

var at = []float64{0, 20, 40, 60}

func TestADrawingIsWellFormedWhateverItShows(t *testing.T) {
	hostile := `"><script>&`
	for _, kind := range []string{"row", "stat", "timeseries"} {
		for _, y := range [][]float64{nil, {0, 0, 0, 0}, {math.NaN(), math.NaN(), math.NaN(), math.NaN()}, {1, math.NaN(), math.Inf(1), 2}, {1e-12, 1e15, 3, 4}} {
			svg := drawn(t, Panel{W: 8, H: 8, Kind: kind, Title: hostile, Axis: hostile, Unit: "s", Stacked: true, Fill: 0.2,
				Lines: []Line{{Name: hostile, At: at[:len(y)], Y: y}, {Name: "other", At: at, Y: []float64{1, 2, 3, 4}}}})
			if strings.Contains(svg, "<script") {
				t.Errorf("a name became markup in\n%s", svg)
			}
		}
	}
	drawn(t)
}

func TestStackedLinesStandOnEachOther(t *testing.T) {
	lines := []Line{{Name: "a", At: at, Y: []float64{30, 30, math.NaN(), 30}}, {Name: "b", At: at, Y: []float64{20, 20, 20, 20}}}
	s := sheet{Panel: Panel{Stacked: true, Lines: lines}}
	all, most := s.bands()
	if b := all[1]; most != 50 || b.low[0] != 30 || b.high[0] != 50 || b.low[2] != 0 || b.high[2] != 20 {
		t.Errorf("up to %v: %v", most, b)
	}
	s.Stacked = false
	if all, most = s.bands(); most != 30 || all[1].high[0] != 20 {
		t.Errorf("up to %v: %v", most, all[1])
	}
	// Before the gap, and after it.
	if svg := drawn(t, Panel{W: 8, H: 8, Kind: "timeseries", Lines: lines}); strings.Count(svg, `fill="none"`) != 3 {
		t.Errorf("the gap of a line is not left out in\n%s", svg)
	}
}

func TestAnAxisHasFewMarksAtRoundValues(t *testing.T) {
	for most, want := range map[float64]float64{0: 1, 0.004: 0.001, 1: 0.2, 4.9: 1, 11: 5, 100: 20, 101: 50, 26000: 10000} {
		if got := tick(most); math.Abs(got-want) > want*1e-9 {
			t.Errorf("up to %v there is a mark each %v, not %v", most, got, want)
		}
	}
}

func TestAmountsHaveThreeDigitsAndTheirUnit(t *testing.T) {
	for _, c := range []struct {
		v          float64
		unit, want string
	}{
		{41.27, "reqps", "41.3 req/s"}, {0.0734, "s", "73.4 ms"}, {1.5, "s", "1.5 s"}, {0.0213, "percentunit", "2.13 %"}, {26400, "short", "26.4 k"},
		{3, "short", "3 "}, {1234567, "short", "1.23 M"}, {0, "s", "0 s"},
	} {
		if value, suffix := amount(c.v, c.unit); value+" "+suffix != c.want {
			t.Errorf("%v %s is written as %s %s", c.v, c.unit, value, suffix)
		}
	}
	if got := clock(105); got != "1:45" {
		t.Errorf("105 seconds are %s", got)
	}
}

func TestAStatShowsTheLastNumberInTheColourOfItsStep(t *testing.T) {
	p := Panel{W: 4, H: 4, Kind: "stat", Unit: "percentunit", Steps: []Step{{math.Inf(-1), "green"}, {0.02, "orange"}, {0.1, "red"}}}
	for _, c := range []struct {
		last   float64
		colour string
	}{{0.01, "green"}, {0.05, "orange"}, {0.5, "red"}} {
		p.Lines = []Line{{At: at, Y: []float64{0, 1, c.last, math.NaN()}}}
		if svg := drawn(t, p); !strings.Contains(svg, judged[c.colour]) {
			t.Errorf("%v is not %s in\n%s", c.last, c.colour, svg)
		}
	}
	p.Lines = nil
	if svg := drawn(t, p); !strings.Contains(svg, ">–<") {
		t.Errorf("what has no value does not say so in\n%s", svg)
	}
}
