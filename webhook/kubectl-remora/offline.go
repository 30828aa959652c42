package main

import (
	"fmt"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/sidecar/watch"
)

// offline compiles a configuration here, as a sidecar does that is started with --config.
type offline struct {
	path    string
	labels  string
	gateway bool
}

func (o *offline) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&o.path, "config", "f", "", "A file or folder with LLMProviders and LLMRoutes, instead of a pod")
	f.StringVar(&o.labels, "labels", "", "With --config: the labels of the pod, as NAME=VALUE,…")
	f.BoolVar(&o.gateway, "gateway", false, "With --config: it is a gateway, of those labels")
}

// load gives what a sidecar would run.
func (o *offline) load() (*snapshot.Snapshot, error) {
	of, err := labels.ConvertSelectorToLabelsMap(o.labels)
	if err != nil {
		return nil, usage("--labels %q: write NAME=VALUE, separated by commas", o.labels)
	}
	store := snapshot.NewStore()
	files := &watch.Files{Path: o.path, Labels: of, Gateway: o.gateway, Log: logr.Discard(), Store: store}
	if err := files.Load(); err != nil {
		return nil, fmt.Errorf("--config %s: %w", o.path, err)
	}
	return store.Load(), nil
}

// explain answers a question, and says on the error output what is wrong with the configuration: the answer holds all the same.
func (o *offline) explain(a *app, q *routing.Question) (*routing.Explanation, error) {
	current, err := o.load()
	if err != nil {
		return nil, err
	}
	fault := newPage(a.streams.ErrOut)
	fault.coloured = a.page.coloured && fault.terminal
	for i := range current.Problems {
		p := &current.Problems[i]
		if err := fault.line(span{fmt.Sprint(p.Severity), yellow}, span{text: "  " + p.Object.String() + "  " + p.String()}); err != nil {
			return nil, err
		}
	}
	answer := current.Table.Explain(q)
	return &answer, nil
}
