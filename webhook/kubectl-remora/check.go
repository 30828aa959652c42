package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"remora.dev/remora/apis/v1beta1"
)

// Finding is something that is wrong, and what to do about it.
type Finding struct {
	Topic   string `json:"topic"`
	Object  string `json:"object"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy"`
}

// Verdict is what check has to say.
type Verdict struct {
	Healthy  bool           `json:"healthy"`
	Findings []Finding      `json:"findings"`
	Looked   map[string]int `json:"looked"` // objects, by topic
	Unseen   []Unseen       `json:"unseen"` // what could not be looked at, for want of a right
}

// Unseen is a topic, or a part of it, that whoever calls may not look at.
type Unseen struct {
	Topic  string `json:"topic"`
	Reason string `json:"reason"`
}

// topics, in the order in which they are looked at: what others depend on is first.
var topics = []struct {
	name string
	look func(*inspection, context.Context) error
}{
	{"definitions", (*inspection).definitions},
	{"webhook", (*inspection).webhook},
	{"controller", (*inspection).controller},
	{"namespaces", (*inspection).namespaces},
	{"telemetry", (*inspection).telemetry},
	{"objects", (*inspection).objects},
	{"sidecars", (*inspection).sidecars},
}

// inspection looks at an installation.
type inspection struct {
	client   kubernetes.Interface
	dynamic  dynamic.Interface
	open     func(ctx context.Context, pod podID) (*tunnel, error)
	now      time.Time
	parallel int
	home     string // the installation's namespace
	only     string // a namespace; empty: all of them
	topic    string
	verdict  Verdict
}

func (i *inspection) find(object, problem, remedy string) {
	i.verdict.Findings = append(i.verdict.Findings, Finding{i.topic, object, problem, remedy})
}

func (i *inspection) looked(objects int) { i.verdict.Looked[i.topic] += objects }

func (i *inspection) unseen(reason string) {
	i.verdict.Unseen = append(i.verdict.Unseen, Unseen{i.topic, reason})
}

func (a *app) checkCommand() *cobra.Command {
	var format, home string
	var own bool
	var parallel int
	c := &cobra.Command{
		Use:   "check",
		Short: "Look whether the installation is healthy, and say what to do where it is not",
		Long: `Look whether the installation is healthy: definitions, webhook and its certificates, controller, namespaces with what their sidecars need, telemetry
settings, LLMProviders and LLMRoutes, sidecars and gateways. Each finding says what to do. The exit code is 1 where there is one.

It takes the rights of the ClusterRole remora-viewer. What whoever calls may not look at is named, and is no finding, unless that is everything.`,
		Example: `  kubectl remora check

  # Only what concerns the namespace of the context, for a program
  kubectl remora check --own-namespace -o json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := oneOf("output", format, "table", "json"); err != nil {
				return err
			}
			if parallel < 1 || parallel > maxParallel {
				return usage("--parallel %d is out of range: write 1 to %d", parallel, maxParallel)
			}
			in, err := a.inspect()
			if err != nil {
				return err
			}
			in.home, in.parallel = home, parallel
			if own {
				if in.only, err = a.namespace(); err != nil {
					return err
				}
			}
			if err := in.run(c.Context()); err != nil {
				return err
			}
			if err := a.page.verdict(&in.verdict, format); err != nil {
				return err
			}
			if !in.verdict.Healthy {
				return errFound
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVarP(&format, "output", "o", "table", "table or json")
	f.StringVar(&home, "installation", v1beta1.InstallationNamespace, "The namespace of the installation")
	f.BoolVar(&own, "own-namespace", false, "Of namespaces, objects and sidecars, look only at those of the namespace of -n or of the context")
	f.IntVar(&parallel, "parallel", defaultParallel, fmt.Sprintf("How many pods are asked at the same time, %d at most", maxParallel))
	return c
}

func (a *app) inspect() (*inspection, error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	config, err := a.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	generic, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &inspection{client: client, dynamic: generic, open: a.open, now: time.Now()}, nil
}

// run looks at everything. An error is that the API server cannot be asked at all: what it refuses is unseen.
func (i *inspection) run(ctx context.Context) error {
	i.verdict = Verdict{Findings: []Finding{}, Looked: map[string]int{}, Unseen: []Unseen{}}
	for _, t := range topics {
		i.topic = t.name
		i.verdict.Looked[t.name] = 0
		switch err := t.look(i, ctx); {
		case ctx.Err() != nil:
			return errLeft
		case apierrors.IsForbidden(err):
			i.unseen(err.Error())
		case err != nil:
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	slices.SortStableFunc(i.verdict.Findings, func(a, b Finding) int {
		if a.Topic != b.Topic {
			return 0 // as they were looked at
		}
		return cmp.Compare(a.Object, b.Object)
	})
	seen := 0
	for _, n := range i.verdict.Looked {
		seen += n
	}
	i.verdict.Healthy = len(i.verdict.Findings) == 0 && seen > 0
	return nil
}

// verdict writes what was found: a line for each topic, and below it what is wrong.
func (p *page) verdict(v *Verdict, format string) error {
	if format == "json" {
		return p.json(v)
	}
	for _, t := range topics {
		found := slices.DeleteFunc(slices.Clone(v.Findings), func(f Finding) bool { return f.Topic != t.name })
		word := span{"ok     ", green}
		if len(found) > 0 {
			word = span{"wrong  ", red}
		} else if v.Looked[t.name] == 0 && slices.ContainsFunc(v.Unseen, func(u Unseen) bool { return u.Topic == t.name }) {
			word = span{"unseen ", yellow}
		}
		if err := p.line(word, span{fmt.Sprintf("%-12s", t.name), bold}, span{" " + number(v.Looked[t.name], "object") + " looked at", faint}); err != nil {
			return err
		}
		for _, f := range found {
			if err := p.line(span{text: "  "}, span{f.Object, bold}, span{text: ": " + f.Problem}); err != nil {
				return err
			}
			if err := p.line(span{"    → " + f.Remedy, cyan}); err != nil {
				return err
			}
		}
		for _, u := range v.Unseen {
			if u.Topic == t.name {
				if err := p.line(span{"  not looked at: " + strings.TrimSpace(u.Reason), yellow}); err != nil {
					return err
				}
			}
		}
	}
	switch {
	case v.Healthy && len(v.Unseen) == 0:
		return p.line(span{"healthy", green})
	case v.Healthy:
		return p.line(span{"nothing is wrong with what could be looked at", green})
	case len(v.Findings) == 0:
		return p.line(span{"nothing could be looked at: it takes the rights of the ClusterRole remora-viewer", red})
	}
	return p.line(span{number(len(v.Findings), "finding"), red})
}
