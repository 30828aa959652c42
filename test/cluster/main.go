//go:build linux

// Cluster starts and ends a real Kubernetes on this machine, for trying things out by hand. Tests use package node directly.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/crds"
	"remora.dev/remora/test/cluster/node"
)

const usage = `A real Kubernetes of one node on this machine, as root; nothing is installed, and nothing of the machine is changed.

  go run ./test/cluster up [--control-plane] [--name NAME] [IMAGE.tar...]   start one, and leave it running
  go run ./test/cluster load [--name NAME] IMAGE.tar...                     bring images into it
  go run ./test/cluster status                                              list those that there are
  go run ./test/cluster kubeconfig [--name NAME]                            print the path of its kubeconfig
  go run ./test/cluster down [--name NAME]                                  end it; nothing is left
  go run ./test/cluster assets                                              build the programs only, and print their folder;
                                                                            the definitions of Istio's kinds are downloaded, too

--control-plane leaves it at etcd and the API server, on which no pod runs. NAME is "remora" where it is not given.
The first time, the programs are built from source, which takes minutes; $` + assets.Variable + ` may name a folder that has them.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	verb := "help"
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	name := flags.String("name", "remora", "")
	controlPlane := flags.Bool("control-plane", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch verb {
	case "up":
		return up(ctx, stdout, stderr, node.Options{
			Name: *name, ControlPlane: *controlPlane, Images: flags.Args(), Detached: true, Progress: stderr,
		})
	case "down":
		return down(ctx, stderr, *name)
	case "load":
		if flags.NArg() == 0 {
			return errors.New("which image? Name an archive, as `docker save` or package test/cluster/image writes it")
		}
		n, err := node.Find(*name)
		if err != nil {
			return err
		}
		return n.Load(ctx, flags.Args()...)
	case "kubeconfig":
		n, err := node.Find(*name)
		if err != nil {
			return err
		}
		fmt.Fprintln(stdout, n.Kubeconfig())
		return nil
	case "status":
		return status(stdout)
	case "assets":
		dir, err := assets.Dir(ctx, stderr, assets.Node...)
		if err != nil {
			return err
		}
		fmt.Fprintln(stdout, dir)
		_, err = crds.Files(ctx) // tests run where nothing can be downloaded
		return err
	case "help", "-h", "--help":
		fmt.Fprint(stdout, usage)
		return nil
	}
	fmt.Fprint(stderr, usage)
	return fmt.Errorf("there is no command %q", verb)
}

func up(ctx context.Context, stdout, stderr io.Writer, o node.Options) error {
	n, err := node.Start(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "\nKubernetes %s runs at %s until it is told to end. Its logs: %s\nTo use it:\n\n", n.Name(), n.URL(), n.Logs())
	fmt.Fprintf(stdout, "export KUBECONFIG=%s PATH=$PATH:%s\n", n.Kubeconfig(), strings.TrimSuffix(n.Binary(""), "/"))
	try := []string{"kubectl get pods --all-namespaces", "kubectl create namespace demo", "go run ./test/cluster down"}
	if o.ControlPlane {
		try[0] = "kubectl api-resources"
	}
	if o.Name != "remora" {
		try[2] += " --name " + o.Name
	}
	fmt.Fprintf(stderr, "\nand then, for example:\n\n  %s\n", strings.Join(try, "\n  "))
	return nil
}

func down(ctx context.Context, stderr io.Writer, name string) error {
	began := time.Now()
	n, err := node.Find(name)
	if errors.Is(err, node.ErrNone) {
		fmt.Fprintf(stderr, "no cluster %s is there; nothing to do\n", name)
		return nil
	}
	if err != nil {
		return err
	}
	if err := n.Down(ctx); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%5.1f s  ended; nothing is left of cluster %s\n", time.Since(began).Seconds(), name)
	return nil
}

func status(stdout io.Writer) error {
	all, err := node.List()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		fmt.Fprintln(stdout, "no cluster is there; `go run ./test/cluster up` starts one")
	}
	for _, s := range all {
		kind, is := "node", "runs"
		if s.ControlPlane {
			kind = "control plane"
		}
		switch {
		case s.Failed != "":
			is = "has ended: " + s.Failed
		case !s.Running:
			is = "has ended"
		case !s.Detached:
			is = "runs, of a test"
		}
		fmt.Fprintf(stdout, "%s\t%s\t%s\n\tkubeconfig %s\n\tlogs       %s\n", s.Name, kind, is, s.Kubeconfig, s.Logs)
	}
	return nil
}
