//go:build linux

// Pods measures what injection costs on a real node: pods with and without a sidecar, and what it takes until a change of the
// configuration is seen inside one. It fails when an answer is wrong, and never for slowness.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"remora.dev/remora/test/bench/figures"
	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/node"
	"remora.dev/remora/test/netns"
	"remora.dev/remora/test/stage"
)

// plan says how much is measured.
type plan struct {
	warming int // pods of each kind that are not measured: they unpack the images
	starts  int // pods of each kind
	seconds int // of dry runs of each kind and rate, in each of two rounds
	rates   []int
	large   int // dry runs of each kind, with many variables
	guarded int // dry runs of each kind, one after the other
	changes int // of an LLMRoute
	calls   int // of each way to the sidecar
	images  int // that are weighed
}

var (
	fullPlan  = plan{warming: 1, starts: 15, seconds: 5, rates: []int{50, 200}, large: 50, guarded: 500, changes: 100, calls: 1000, images: 3}
	quickPlan = plan{starts: 1, seconds: 1, rates: []int{20}, large: 2, guarded: 10, changes: 5, calls: 10, images: 1}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	_, err := assets.Dir(ctx, os.Stderr, assets.Node...) // outside of the namespace: it may have to download
	if err == nil {
		netns.Enter(nil)
		err = run(ctx, ".", os.Args[1:], os.Stdout, os.Stderr)
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what the measurements share.
type bench struct {
	plan
	root      string // the folder of the module
	cluster   *node.Node
	client    *kubernetes.Clientset
	objects   dynamic.Interface
	archives  stage.Archives
	beginning time.Time
	progress  io.Writer
	table     [][3]string // the rows: what, p50, p99
	remarks   []string    // what is said below it
}

func run(ctx context.Context, root string, args []string, out, progress io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "seconds instead of minutes: judges the answers, its figures mean nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &bench{plan: fullPlan, root: root, beginning: time.Now(), progress: progress}
	if *quick {
		b.plan = quickPlan
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.step("a node with Remora installed")
	defer func() { err = errors.Join(err, b.down(ctx)) }()
	if err := b.raise(ctx, dir); err != nil {
		return err
	}
	for _, measure := range []func(context.Context) error{b.startUp, b.effects, b.guards, b.admission} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	b.write(out)
	return nil
}

// connect gives the clients, which know no limit of their own.
func (b *bench) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", b.cluster.Kubeconfig())
	if err != nil {
		return err
	}
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{} // every change is announced, which is not what is measured
	if b.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	b.objects, err = dynamic.NewForConfig(config)
	return err
}

func (b *bench) step(format string, args ...any) {
	fmt.Fprintf(b.progress, "%5.1f s  %s\n", time.Since(b.beginning).Seconds(), fmt.Sprintf(format, args...))
}

// row puts times of the same thing into the table, in a unit.
func (b *bench) row(what string, unit time.Duration, t figures.Times) {
	name, digits := "ms", 1
	if unit == time.Second {
		name, digits = "s", 2
	}
	cell := func(q float64) string {
		return strconv.FormatFloat(float64(t.Quantile(q))/float64(unit), 'f', digits, 64)
	}
	b.table = append(b.table, [3]string{what + ", " + name, cell(0.5), cell(0.99)})
}

func (b *bench) remark(format string, args ...any) {
	b.remarks = append(b.remarks, fmt.Sprintf(format, args...))
}

func (b *bench) write(out io.Writer) {
	fmt.Fprint(out, "A real node, pods and sidecars, the installation as config/default has it, and what measures it, all on the same cores.\n\n")
	fmt.Fprint(out, "| injection on a real node | p50 | p99 |\n|---|---:|---:|\n")
	for _, row := range b.table {
		fmt.Fprintf(out, "| %s | %s | %s |\n", row[0], row[1], row[2])
	}
	fmt.Fprintln(out)
	for _, remark := range b.remarks {
		fmt.Fprintln(out, remark)
	}
}
