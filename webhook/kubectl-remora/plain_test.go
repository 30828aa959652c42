package main

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode"
)

func FuzzNothingReachesATerminalThatItObeys(f *testing.F) {
	f.Add("\x1b[31m\u009b\u202e\xff\n\t\x00é日本")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range plain(s) {
			if r != ' ' && !unicode.IsPrint(r) {
				t.Fatalf("%q became %q", s, plain(s))
			}
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var before, after string
		shown := plainJSON(text)
		if json.Unmarshal(text, &before) != nil || json.Unmarshal(shown, &after) != nil || before != after || bytes.ContainsFunc(shown, func(r rune) bool { return !harmless(r) }) {
			t.Fatalf("%s became %s", text, shown)
		}
	})
}

func TestATableKeepsItsColumnsWhateverIsInThem(t *testing.T) {
	var out strings.Builder
	p := newPage(&out)
	err := p.table(&table{head: []string{"NAME", "N"}, numbers: map[int]bool{1: true}, widest: 8, rows: [][]span{
		{{"é", red}, {"1", none}}, {{"\x1b[2J", none}, {"12", none}}, {{"a-very-long-name", none}, {"3", none}},
	}})
	want := "NAME       N\né          1\n\\x1b[2J   12\na-very-…   3\n"
	if out.String() != want || err != nil {
		t.Errorf("%q\nwant\n%q", out.String(), want)
	}
}

func TestPercentilesAreThoseOfPrometheus(t *testing.T) {
	f := func(buckets map[float64]float64, q, want float64) {
		t.Helper()
		if got := percentile(buckets, q); got == nil || math.Abs(*got-want) > 1e-9 {
			t.Errorf("%v of %v: %v, want %v", q, buckets, got, want)
		}
	}
	f(map[float64]float64{0.1: 10, 0.2: 20, math.Inf(1): 20}, 0.5, 100)
	f(map[float64]float64{0.1: 10, 0.2: 20, math.Inf(1): 20}, 0.75, 150)
	f(map[float64]float64{0.1: 0, 0.2: 0, math.Inf(1): 4}, 0.5, 200)
	if percentile(map[float64]float64{0.1: 0, math.Inf(1): 0}, 0.5) != nil || percentile(nil, 0.5) != nil {
		t.Error("there is a percentile of nothing")
	}
}

func TestACounterThatBeganAnewIsNotNegative(t *testing.T) {
	reading := func(text string) *reading {
		t.Helper()
		r, err := read([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := reading(durationCount + `{provider="demo/a",gen_ai_request_model="a\"\n\\"} 10` + "\n")
	now := reading("# HELP x\n" + durationCount + `{provider="demo/a",gen_ai_request_model="a\"\n\\"} 3` + "\n" + durationCount + `{error_type="429",provider="demo/b"} 2 1700000000` + "\n")
	grown := since(before, now)
	if a, b := grown[series{"demo/a", "a\"\n\\"}], grown[series{"demo/b", ""}]; a == nil || a.requests != 3 || a.failed != 0 || b == nil || b.requests != 2 || b.failed != 2 {
		t.Errorf("%+v", grown)
	}
	for _, bad := range []string{"hello", durationCount + "{", durationCount + `{a="b} 1`, durationCount + " x", durationCount + `{a="b"}`} {
		if _, err := read([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
