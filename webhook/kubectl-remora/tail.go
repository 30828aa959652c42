package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// tail is the command.
type tail struct {
	app      *app
	pick     selection
	keep     filter
	since    time.Duration
	lines    int64
	goOn     bool
	format   string
	parallel int
}

func (a *app) tailCommand() *cobra.Command {
	t := &tail{app: a, pick: selection{app: a}}
	c := &cobra.Command{
		Use:   "tail [POD | KIND/NAME]...",
		Short: "Follow the access log of pods",
		Long: `Follow the access log of pods, with those that come later, and without those that go. On a terminal, a line is short and for people;
elsewhere it is the JSON that the sidecar wrote. Lines are shown as they come: those of different pods are not sorted.

It takes the rights to list and watch pods and to get pods/log; with -A, also to list namespaces.`,
		Example: `  # All calls of the namespace, as they happen
  kubectl remora tail

  # What failed within the last hour at a Deployment, and no further
  kubectl remora tail deploy/sleep --errors --since 1h --follow=false

  # Calls of a model that took longer than two seconds, for a program
  kubectl remora tail -A --model 'qwen*' --slow 2s -o json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error { return t.run(c.Context(), args) },
	}
	t.pick.addFlags(c)
	f := c.Flags()
	f.BoolVar(&t.keep.errors, "errors", false, "Only calls that failed, were refused, were tried again or were cut")
	f.DurationVar(&t.keep.slow, "slow", 0, "Only calls that took that long or longer, such as 2s")
	f.StringVar(&t.keep.model, "model", "", "Only calls for or of that model; * stands for any characters")
	f.StringSliceVar(&t.keep.codes, "code", nil, "Only calls with these HTTP statuses or error codes, such as 429,UpstreamReset")
	f.DurationVar(&t.since, "since", 0, "Begin with lines that are that old (default: the last ten lines of each pod; with a filter, an hour)")
	f.BoolVar(&t.goOn, "follow", true, "Go on with what comes; false: end with what is there")
	f.StringVarP(&t.format, "output", "o", "auto", "text, json, or auto: text on a terminal, json elsewhere")
	f.IntVar(&t.parallel, "max-pods", maxParallel, "How many pods are followed at most: each takes a connection of the API server")
	return c
}

// defaultLines is how many lines of each pod come first, without --since.
const defaultLines = 10

func (t *tail) run(ctx context.Context, args []string) error {
	if err := t.judge(); err != nil {
		return err
	}
	client, err := t.app.client()
	if err != nil {
		return err
	}
	scopes, err := t.pick.scopes(ctx, client, args)
	if err != nil {
		return err
	}
	f := &follower{
		client: client, scopes: scopes, once: !t.goOn, most: t.parallel,
		lines: make(chan logLine), notes: make(chan string),
	}
	if t.since > 0 {
		f.from = time.Now().Add(-t.since)
	} else if t.lines = defaultLines; t.keep.any() {
		t.lines = 0 // of all that is there, it is the filter that says which
		f.from = time.Now().Add(-time.Hour)
	}
	f.last = t.lines
	running, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	var outcome error // once done is closed
	go func() {
		defer close(done)
		outcome = f.run(running)
	}()
	fault := newPage(t.app.streams.ErrOut)
	fault.coloured = t.app.page.coloured && fault.terminal
	asText := t.format == "text" || t.format == "auto" && t.app.page.terminal
	for {
		select {
		case line := <-f.lines:
			if err := t.show(line, asText); err != nil {
				stop()
				drain(f, done)
				return err
			}
		case note := <-f.notes:
			if err := fault.line(span{note, faint}); err != nil {
				stop()
				drain(f, done)
				return err
			}
		case <-done:
			if ctx.Err() != nil {
				return errLeft
			}
			return outcome
		}
	}
}

// drain lets what still writes come to its end.
func drain(f *follower, done <-chan struct{}) {
	for {
		select {
		case <-f.lines:
		case <-f.notes:
		case <-done:
			return
		}
	}
}

func (t *tail) judge() error {
	if err := oneOf("output", t.format, "auto", "text", "json"); err != nil {
		return err
	}
	switch {
	case t.keep.slow < 0:
		return usage("--slow %v is negative", t.keep.slow)
	case t.since < 0:
		return usage("--since %v is negative", t.since)
	case t.parallel < 1:
		return usage("--max-pods %d: write 1 or more", t.parallel)
	}
	return nil
}

func (t *tail) show(line logLine, asText bool) error {
	a := parseAccess(line.text)
	switch {
	case a == nil || !t.keep.wants(a):
		return nil
	case asText:
		return t.app.page.access(line.pod, a)
	}
	return t.app.page.rawJSON(line.text)
}

// filter is which lines are wanted.
type filter struct {
	errors bool
	slow   time.Duration
	model  string
	codes  []string
}

func (f *filter) any() bool { return f.errors || f.slow > 0 || f.model != "" || len(f.codes) > 0 }

func (f *filter) wants(a *access) bool {
	if a.Missing > 0 {
		return true // who looks for something should know that it may be among them
	}
	switch {
	case f.errors && !a.faulty(),
		f.slow > 0 && time.Duration(a.Total*float64(time.Millisecond)) < f.slow,
		f.model != "" && !like(f.model, a.RequestModel) && !like(f.model, a.AskedModel) && !like(f.model, a.ResponseModel):
		return false
	}
	return len(f.codes) == 0 || slices.ContainsFunc(f.codes, func(code string) bool {
		return code != "" && (strings.EqualFold(code, a.Code) || code == fmt.Sprint(a.Status))
	})
}

// like tells whether a name fits a pattern, in which * stands for any characters.
func like(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	last := len(parts) - 1
	rest, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1:last] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, parts[last])
}
