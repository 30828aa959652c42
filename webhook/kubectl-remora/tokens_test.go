package main

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

func TestEstimatedTokensAreMarkedAndNotAmongThoseReported(t *testing.T) {
	const sum = `gen_ai_client_token_usage_sum{gen_ai_request_model="m",gen_ai_token_type=`
	readings := func(exact, estimated string) *reading {
		r, err := read([]byte(sum + `"input",precision="exact"} ` + exact + "\n" + sum + `"output",precision="estimated"} ` + estimated + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	w := &watcher{pods: map[podID]*watched{{"demo", "sleep"}: {before: readings("100", "10"), now: readings("160", "40"), span: 2 * time.Second}}}
	report := w.report("pod", "tokens")
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }
	if r := report.Total; !near(r.Input, 30) || !near(r.AboutIn, 0) || !near(r.Output, 0) || !near(r.AboutOut, 15) {
		t.Errorf("the rates are %+v", r)
	}
	var out bytes.Buffer
	p := newPage(&out)
	if err := p.topTable(report, 1); err != nil {
		t.Fatal(err)
	}
	if row := strings.Fields(strings.Split(out.String(), "\n")[1]); row[2] != "30.0" || row[3] != "~15.0" {
		t.Errorf("the table is\n%s", &out)
	}
}
