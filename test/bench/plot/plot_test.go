package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestADrawingIsWellFormedAndTheSameEachTime(t *testing.T) {
	panels := []Panel{
		{"p50 & others", "load, %", "s", []Line{{Name: "A<B", X: []float64{50, 70}, Y: []float64{0.1, 2}, Low: []float64{0.09, 1}, High: []float64{0.2, 3}}}, nil},
		{"p99", "load, %", "s", []Line{{Name: "A<B", X: []float64{50}, Y: []float64{1}}, {Name: "C", X: []float64{50, 60}, Y: []float64{4, 5}}}, []string{"few", "many"}},
		{"empty", "", "", nil, nil},
	}
	drawn := SVG("title", 2, panels)
	decoder := xml.NewDecoder(bytes.NewReader(drawn))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"p50 &amp; others", "A&lt;B", ">C<", ">70<", ">few<"} {
		if !strings.Contains(string(drawn), want) {
			t.Errorf("%q is not in it", want)
		}
	}
	if strings.Contains(string(drawn), "NaN") || strings.Contains(string(drawn), "Inf") {
		t.Error("something has no place")
	}
	if again := SVG("title", 2, panels); !bytes.Equal(again, drawn) {
		t.Error("the second drawing is another")
	}
}
