package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// app is what all commands have.
type app struct {
	streams genericiooptions.IOStreams
	flags   *genericclioptions.ConfigFlags
	page    *page
	// open reaches into a pod. It is the cluster's; tests of what pods say have pods without a cluster.
	open func(ctx context.Context, pod podID) (*tunnel, error)
}

func newCommand(streams genericiooptions.IOStreams) *cobra.Command {
	a := &app{streams: streams, flags: genericclioptions.NewConfigFlags(true), page: newPage(streams.Out)}
	a.open = a.forward
	return a.command()
}

func (a *app) command() *cobra.Command {
	a.flags.WrapConfigFn = quicker
	root := &cobra.Command{
		Use:   "kubectl-remora",
		Short: "See what Remora's sidecars and gateways do with calls to models",
		Long: `See what Remora's sidecars and gateways do with calls to models.

All of it is read from the pods themselves, through the API server, with the rights of whoever calls it. Nothing is changed.`,
		Example: `  # What is going on now in the namespace, pod by pod
  kubectl remora top

  # Which provider would this call of a pod go to, and why?
  kubectl remora explain request --from pod/sleep --host demo-llm-server -H 'user-type: subscriber'

  # Failed calls of a whole Deployment, as they happen
  kubectl remora tail deploy/sleep --errors

  # Is the installation healthy?
  kubectl remora check`,
		Version:           version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl remora"},
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.page.setColour() },
	}
	root.SetIn(a.streams.In)
	root.SetOut(a.streams.Out)
	root.SetErr(a.streams.ErrOut)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%w", err) })
	root.SetVersionTemplate("kubectl remora {{.Version}}\n")
	a.flags.AddFlags(root.PersistentFlags())
	root.PersistentFlags().StringVar(&a.page.colours, "color", "auto", "When to use colours: auto (on a terminal, unless NO_COLOR is set), always or never")
	root.AddCommand(a.topCommand(), a.explainCommand(), a.configCommand(), a.tailCommand(), a.checkCommand())
	a.completions(root)
	for _, c := range root.Commands() {
		if c.Args == nil && c.RunE != nil {
			c.Args = noArgs
		}
	}
	return root
}

// noArgs is cobra's NoArgs, with an error that is one of the command line.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%q is one argument too many: there are none", args[0])
	}
	return nil
}

// oneOf judges the value of a flag.
func oneOf(flag, value string, known ...string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return usage("--%s %q is not known: use %s", flag, value, strings.Join(known[:len(known)-1], ", ")+" or "+known[len(known)-1])
}

// errLeft says that whoever called has had enough: by a signal.
var errLeft = errors.New("interrupted")
