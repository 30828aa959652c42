package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/bench/pinned"
	"remora.dev/remora/test/netns"
)

// The benchmark starts itself in roles; here that is the test binary.
func TestMain(m *testing.M) {
	pinned.Play(play)
	netns.Enter(map[string]string{providerHost: "127.0.0.1"})
	os.Exit(m.Run())
}

func TestAQuickRunPrintsEveryFigureOfTheYardstick(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	var out bytes.Buffer
	args := []string{"-quick", "-only", "fasthttp,remora", "-sidecar", filepath.Join(temporary, "absent")}
	if err := run(t.Context(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, f := range rows {
		line := lineOf(out.String(), f.Label)
		if line == "" || !strings.ContainsAny(line[len(f.Label):], "123456789") {
			t.Errorf("no figure for %q in:\n%s", f.Label, out.String())
		}
	}
	if line := lineOf(out.String(), "remora"); !strings.Contains(line, "MISSING") || !strings.Contains(line, "make build") {
		t.Errorf("a sidecar that is not built is reported as %q", line)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("the run left %v behind (%v)", left, err)
	}
}

func lineOf(text, start string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, start) {
			return line
		}
	}
	return ""
}

func TestAnInterruptedRunEndsAtOnceWithAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	measuring := writerFunc(func(p []byte) { cancel() })
	start := time.Now()
	// A whole run, not a quick one, takes minutes.
	if err := run(ctx, []string{"-only", "fasthttp"}, io.Discard, measuring); err == nil {
		t.Error("no error")
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v to stop", took)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func TestAWrongAnswerEndsTheRun(t *testing.T) {
	f := func(name, want string, spoil func(*fasthttp.RequestCtx)) {
		t.Run(name, func(t *testing.T) {
			l := openLoad(serve(t, spoil), nil, configuredCaller)
			defer l.close()
			err := l.requests(t.Context(), prompts()["english"], 2, 4)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("the error is %v, and should mention %q", err, want)
			}
		})
	}
	provider := newProvider()
	f("a changed model", `the model is \"other\"`, func(ctx *fasthttp.RequestCtx) {
		ctx.Request.SetBody(bytes.Replace(ctx.Request.Body(), []byte(providerModel), []byte("other"), 1))
		provider.answer(ctx)
	})
	f("a key left out", "Authorization", func(ctx *fasthttp.RequestCtx) {
		ctx.Request.Header.Del(fasthttp.HeaderAuthorization)
		provider.answer(ctx)
	})
	f("another host", "the Host header", func(ctx *fasthttp.RequestCtx) {
		ctx.Request.Header.SetHost("elsewhere.test")
		provider.answer(ctx)
	})
	f("a prompt cut short", "did not arrive whole", func(ctx *fasthttp.RequestCtx) {
		ctx.Request.SetBody(ctx.Request.Body()[:60<<10])
		provider.answer(ctx)
	})
	f("an answer cut short", "answered 200", func(ctx *fasthttp.RequestCtx) {
		provider.answer(ctx)
		ctx.Response.SetBody(provider.completion[:len(provider.completion)-1])
	})
	f("an error of the proxy", "answered 502", func(ctx *fasthttp.RequestCtx) {
		ctx.Error("the upstream is away", fasthttp.StatusBadGateway)
	})
}

func TestAStreamIsJudgedChunkByChunk(t *testing.T) {
	f := func(name, want string, spoil func(events []string) []string) {
		t.Run(name, func(t *testing.T) {
			events := []string{
				string(appendChunk(nil, 0, time.Now(), false)), string(appendChunk(nil, 1, time.Now(), false)), doneEvent + "\n\n",
			}
			_, err := readStream(strings.NewReader(strings.Join(spoil(events), "")), 2, time.Now(), func() {})
			if got := fmt.Sprint(err); !strings.Contains(got, want) {
				t.Errorf("the error is %q, and should mention %q", got, want)
			}
		})
	}
	f("whole", "<nil>", func(e []string) []string { return e })
	f("usage announced that nobody asked for", "chunk 1 arrived as", func(e []string) []string {
		return []string{e[0], string(appendChunk(nil, 1, time.Now(), true)), e[2]}
	})
	f("usage that nobody asked for", "instead of [DONE]", func(e []string) []string {
		return []string{e[0], e[1], `data: {"choices":[],"usage":{"total_tokens":3}}` + "\n\n", e[2]}
	})
	f("a chunk lost", "chunk 0 arrived as", func(e []string) []string { return e[1:] })
	f("a chunk twice", "chunk 1 arrived as", func(e []string) []string { return []string{e[0], e[0], e[1], e[2]} })
	f("a chunk too many", "instead of [DONE]", func(e []string) []string {
		return []string{e[0], e[1], string(appendChunk(nil, 2, time.Now(), false)), e[2]}
	})
	f("a chunk cut", "chunk 1 arrived as", func(e []string) []string { return []string{e[0], e[1][:100] + "\n\n", e[2]} })
	f("no [DONE]", "instead of [DONE]", func(e []string) []string { return e[:2] })
	f("something after [DONE]", "after [DONE] came", func(e []string) []string { return append(e, e[0]) })
}

func TestAProcessIsChargedForWhatItUses(t *testing.T) {
	_, core, err := pinned.Cores()
	if err != nil {
		t.Fatal(err)
	}
	p, err := pinned.Launch("worker", core, []string{"/bin/sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; exec sleep 600"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if said, err := p.Out.ReadString('\n'); err != nil || said != "done\n" {
		t.Fatalf("the worker said %q (%v)", said, err)
	}
	used, err := p.Used()
	if err != nil {
		t.Fatal(err)
	}
	// It cannot have needed less than a nanosecond for each turn, nor more than the machine has.
	if used < 200*time.Microsecond || used > time.Minute {
		t.Errorf("it used %v", used)
	}
	if used%(10*time.Millisecond) == 0 {
		t.Errorf("%v looks like ticks of the clock, which are too coarse to measure a request", used)
	}
}

func TestTheTableComparesWithTheYardstick(t *testing.T) {
	s := figures.Sheet{}
	for i, value := range []float64{30, 10, 20} {
		s.Add("fasthttp", smallCPU, value)
		s.Add("remora", smallCPU, []float64{5, 4, 1}[i]*value)
	}
	s.Add("remora", idleMemory, 7)
	var out bytes.Buffer
	s.Tabulate(rows, yardstick, "remora", "fasthttp", direct).Write(&out, figures.Markdown)
	for _, want := range []string{
		"|  | remora | fasthttp | no proxy |\n|---|---:|---:|---:|\n",
		"| CPU per request, 1 KB prompt, µs | 40.0 (4.00×) | 20.0 | – |\n",
		"| resident memory, idle, MiB | 7.0 | – | – |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// serve answers on an address of loopback until the test ends.
func serve(t *testing.T, handler fasthttp.RequestHandler) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &fasthttp.Server{Handler: handler}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		listener.Close()
		<-served
	})
	return listener.Addr().String()
}

func TestTokensThatAreCountedWronglyEndTheRun(t *testing.T) {
	f := func(more int, want string) {
		t.Helper()
		counts := []int{100, 100, 100 + more} // before, and then while it is waited for
		r := &running{Process: &pinned.Process{Name: "counter"}, outputTokens: func(place) (int, error) {
			now := counts[0]
			if len(counts) > 1 {
				counts = counts[1:]
			}
			return now, nil
		}}
		wait, err := r.counting(20)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(wait(t.Context())); got != want {
			t.Errorf("the error is %q, want %q", got, want)
		}
	}
	f(20, "<nil>")
	f(21, "counter has counted 21 output tokens of 20")
}

func TestOnlyRemoraAndTheYardstickEndTheRunByAWrongAnswer(t *testing.T) {
	all := []*running{{Process: &pinned.Process{Name: remoraName}}, {Process: &pinned.Process{Name: yardstick}}, {Process: &pinned.Process{Name: "httputil"}}}
	for i, ends := range []bool{true, true, false} {
		if err := all[i].drop(t.Context(), io.ErrUnexpectedEOF); (err != nil) != ends {
			t.Errorf("a wrong answer of %s: %v", all[i].Name, err)
		}
	}
	var left []string
	for r := range right(all) {
		left = append(left, r.Name)
	}
	if got := strings.Join(left, " "); got != "remora fasthttp" {
		t.Errorf("measured further are %s", got)
	}
}
