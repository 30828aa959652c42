// Command cluster measures what it costs that the configuration lives in Kubernetes: on a real API server, with the real
// webhook, controller and sidecar. It fails when an answer is wrong, and never for slowness.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/cluster/controlplane"
	"remora.dev/remora/test/installation"
	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/netns"
)

// providerHost is the host of the one provider that is called.
const providerHost = "dashscope.aliyuncs.com"

// plan says how much is measured.
type plan struct {
	changes, admissions, underLoad, objects, crowd int

	sidecars, rounds, strict int           // whose key changes; how often; how often the old key is refused soon
	watched                  time.Duration // how long the crowd is looked at while nothing changes

	manyEndpoints, churnRate, replaced int           // behind a gateway; how many change in a second; how often one is waited for
	churned                            time.Duration // while nothing else happens
}

var (
	fullPlan = plan{
		changes: 500, admissions: 500, underLoad: 1000, objects: 10_000, crowd: 1000,
		sidecars: 50, rounds: 100, strict: 30, watched: 30 * time.Second,
		manyEndpoints: 10_000, churnRate: 500, replaced: 500, churned: 20 * time.Second,
	}
	quickPlan = plan{
		changes: 20, admissions: 20, underLoad: 50, objects: 200, crowd: 20,
		sidecars: 3, rounds: 5, strict: 1, watched: time.Second,
		manyEndpoints: 2000, churnRate: 50, replaced: 10, churned: time.Second,
	}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	binaries, err := assets.Dir(ctx, os.Stderr) // outside of the namespace: it may have to download
	if err == nil {
		netns.Enter(map[string]string{providerHost: "127.0.0.1"})
		err = run(ctx, binaries, os.Args[1:], os.Stdout, os.Stderr)
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
	*installation.Installation
	client   dynamic.Interface
	provider *llmserver.Server
	sidecar  *installation.Sidecar
	progress io.Writer
	out      io.Writer
}

func run(ctx context.Context, binaries string, args []string, out, progress io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "seconds instead of minutes: judges the answers, its figures mean nothing")
	only := flags.String("only", "", "one of the measurements (memory, effects, load, admission, keys, endpoints, objects, crowds); default all")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &bench{plan: fullPlan, progress: progress, out: out}
	if *quick {
		b.plan = quickPlan
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // every change is announced, which is not what is measured
	fmt.Fprintln(progress, "a control plane with Remora installed")
	cp, err := controlplane.Start(ctx, controlplane.Options{Binaries: binaries})
	if err != nil {
		return err
	}
	defer cp.Stop()
	if b.Installation, err = installation.Start(ctx, cp); err != nil {
		return err
	}
	if b.client, err = dynamic.NewForConfig(cp.Config()); err != nil {
		return err
	}
	if b.provider, err = llmserver.Start(llmserver.Options{Hosts: []string{providerHost}, Quiet: true}); err != nil {
		return err
	}
	defer b.provider.Close()
	ca := filepath.Join(cp.Folder(), "provider-ca.pem")
	if err := b.provider.WriteCA(ca); err != nil {
		return err
	}
	if err := b.createProvider(ctx); err != nil {
		return err
	}
	if b.sidecar, err = b.Sidecar(ctx, namespace, "--trusted-ca="+ca); err != nil {
		return err
	}
	if err := b.sidecar.Start(ctx); err != nil {
		return err
	}
	fmt.Fprint(out, "A real kube-apiserver, etcd, webhook, controller and sidecar, all on the same cores.\n\n")
	for _, m := range b.measurements() {
		if *only != "" && m.name != *only {
			continue
		}
		if err := m.measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// measurement is one part of the benchmark.
type measurement struct {
	name    string
	measure func(context.Context) error
}

// measurements are all of them, in the order in which they disturb each other least.
func (b *bench) measurements() []measurement {
	return []measurement{
		{"memory", b.memory}, {"effects", b.effects}, {"load", b.load}, {"admission", b.admission}, {"keys", b.keys},
		{"endpoints", b.endpoints}, {"objects", b.manyObjects}, {"crowds", b.crowds},
	}
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.out, format+"\n", args...) }
