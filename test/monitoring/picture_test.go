package monitoring

import (
	"cmp"
	"context"
	"flag"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"remora.dev/remora/test/monitoring/picture"
)

// `make picture` has the picture made anew: each other run draws what it has by then, and keeps nothing of it.
var pictureFile = flag.String("picture", "", "write the first screen of the overview into this file, after two minutes more of load")

const (
	beforehand = 12 * time.Second // until a window of 10 seconds knows but the crowd
	shown      = 90 * time.Second
)

// crowd is apps that call beside the load: one after the other begins, and in the same order they end.
type crowd struct {
	namespace string
	apps      int
	from, to  time.Duration // of the picture
	every     time.Duration
	kinds     []call
}

// What the picture tells: a day of two shops, a batch that asks for long answers, and a provider that is slow and has had enough.
var crowds = []crowd{
	{"shop", 6, -beforehand, shown + time.Minute, 70 * time.Millisecond, []call{
		{host: qwenHost, body: streamed, fault: "first-token=%dms chunks=24 chunk-delay=8ms cached=6", often: 3},
		{host: kimiHost, body: streamed, fault: "first-token=%dms chunks=30 chunk-delay=9ms", often: 2},
	}},
	{"billing", 12, 22 * time.Second, 52 * time.Second, 50 * time.Millisecond, []call{
		{host: qwenHost, body: streamed, fault: "first-token=%dms chunks=90 chunk-delay=6ms", often: 1},
	}},
	{"shop", 5, 64 * time.Second, 86 * time.Second, 90 * time.Millisecond, []call{
		{host: kimiHost, body: streamed, fault: "first-token=9%dms chunks=12 chunk-delay=9ms", often: 1},
		{host: kimiHost, body: whole, fault: "status=429 retry-after=0", often: 2},
	}},
}

// picture draws the overview. It calls for more before that only where the picture is kept.
func (r *rig) picture(ctx context.Context, t *testing.T, p *prometheus) {
	t.Helper()
	file, span := filepath.Join(t.TempDir(), "overview.svg"), 20*time.Second
	begin := time.Now().Add(-span)
	if *pictureFile != "" {
		file, span = *pictureFile, shown
		begin = time.Now().Add(beforehand)
		r.gather(ctx, begin)
	}
	panels := p.screen(ctx, t, begin, span)
	lines := 0
	for _, panel := range panels {
		lines += len(panel.Lines)
	}
	if lines < 20 {
		t.Errorf("there are only %d lines to draw", lines)
	}
	note := "Real sidecars and a gateway under load, read by Prometheus; windows of 10 seconds in place of 5 minutes and an hour"
	if err := os.WriteFile(file, picture.SVG("Remora / Overview", note, span.Seconds(), panels), 0o644); err != nil {
		t.Fatal(err)
	}
}

// gather lets the crowds call, and returns when the time that is shown is over, and their calls have ended.
func (r *rig) gather(ctx context.Context, begin time.Time) {
	over, cancel := context.WithDeadline(ctx, begin.Add(shown))
	defer cancel()
	var all sync.WaitGroup
	for _, c := range crowds {
		var at []string
		for _, s := range r.targets {
			if s.listen != "" && s.labels["namespace"] == c.namespace {
				at = append(at, s.listen)
			}
		}
		step := (c.to - c.from) / time.Duration(3*c.apps)
		for i := range c.apps {
			client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: at[i%len(at)]})}}
			from, to := begin.Add(c.from+time.Duration(i)*step), begin.Add(c.to-time.Duration(c.apps-1-i)*step)
			all.Go(func() {
				defer client.CloseIdleConnections()
				for wait := time.Until(from); ; wait = c.every {
					select {
					case <-over.Done():
						return
					case <-time.After(wait):
					}
					if time.Now().After(to) {
						return
					}
					r.one(ctx, client, "", c.kinds) // to its end: an app that leaves is an error
				}
			})
		}
	}
	<-over.Done()
	all.Wait()
}

// screen asks for the panels of the overview that are seen without scrolling, as Grafana does.
func (p *prometheus) screen(ctx context.Context, t *testing.T, begin time.Time, span time.Duration) (all []picture.Panel) {
	t.Helper()
	for _, b := range dashboards(t) {
		for _, of := range b.Panels {
			if b.UID != "remora-overview" || of.GridPos.Y+of.GridPos.H > 21 {
				continue
			}
			d := of.FieldConfig.Defaults
			drawn := picture.Panel{
				X: of.GridPos.X, Y: of.GridPos.Y, W: of.GridPos.W, H: of.GridPos.H, Kind: of.Type, Title: of.Title, Unit: d.Unit, Steps: steps(d.Thresholds),
			}
			drawn.Axis, _ = d.Custom["axisLabel"].(string)
			opacity, _ := d.Custom["fillOpacity"].(float64)
			drawn.Fill = opacity / 100
			stacking, _ := d.Custom["stacking"].(map[string]any)
			drawn.Stacked = stacking["mode"] == "normal"
			for _, target := range of.Targets {
				got, err := p.ask(ctx, "query_range", url.Values{"query": {filled(target.Expr)}, "step": {"2"},
					"start": {strconv.FormatInt(begin.Unix(), 10)}, "end": {strconv.FormatInt(begin.Add(span).Unix(), 10)}})
				if err != nil {
					t.Fatal(err)
				}
				drawn.Lines = append(drawn.Lines, lines(got, target.LegendFormat, float64(begin.Unix()), span.Seconds())...)
			}
			all = append(all, drawn)
		}
	}
	return all
}

// lines are the series of an answer, the largest first. Prometheus leaves out the times that it has no value of.
func lines(got []sample, legend string, begin, seconds float64) (all []picture.Line) {
	size := map[string]float64{}
	for _, s := range got {
		l := picture.Line{Name: legend}
		for name, value := range s.Metric {
			l.Name = strings.ReplaceAll(l.Name, "{{"+name+"}}", value)
		}
		l.Name = strings.TrimSpace(regexp.MustCompile(`\{\{.*?\}\}`).ReplaceAllString(l.Name, ""))
		if l.Name == "" && legend != "" {
			l.Name = "none" // a call that was refused before its model was known
		}
		at := map[float64]float64{}
		for _, v := range s.Values {
			seconds, _ := v[0].(float64)
			text, _ := v[1].(string)
			if y, err := strconv.ParseFloat(text, 64); err == nil {
				at[seconds-begin] = y
			}
		}
		for second := 0.0; second <= seconds; second += 2 {
			y, there := at[second]
			if !there {
				y = math.NaN()
			} else if !math.IsNaN(y) {
				size[l.Name] += y
			}
			l.At, l.Y = append(l.At, second), append(l.Y, y)
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b picture.Line) int {
		return cmp.Or(cmp.Compare(size[b.Name], size[a.Name]), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// steps are the bounds of a panel's colours; the first has none.
func steps(thresholds map[string]any) (all []picture.Step) {
	list, _ := thresholds["steps"].([]any)
	for _, one := range list {
		step, _ := one.(map[string]any)
		from, bounded := step["value"].(float64)
		if !bounded {
			from = math.Inf(-1)
		}
		colour, _ := step["color"].(string)
		all = append(all, picture.Step{From: from, Colour: colour})
	}
	return all
}
