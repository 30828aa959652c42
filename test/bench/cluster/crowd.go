package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/sidecar/watch"
	"remora.dev/remora/test/bench/figures"
)

// crowded is the namespace of the many sidecars.
const crowded = "crowd"

// crowds has many sidecars follow one namespace: their real source of configuration, each with connections of its own, in
// this process. It looks at what they cost the API server.
func (b *bench) crowds(ctx context.Context) error {
	fmt.Fprintf(b.progress, "%d sidecars\n", b.crowd)
	if out, err := b.Kubectl(ctx, "create", "namespace", crowded); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	objects := b.client.Resource(v1beta1.GroupVersion.WithResource("llmproviders")).Namespace(crowded)
	for i := range 10 {
		if _, err := objects.Create(ctx, object(fmt.Sprintf("provider-%d", i), fmt.Sprintf("host-%d.example.com", i), "model", 0), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	one, err := b.Sidecar(ctx, crowded) // its rights, and its token
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	before, err := b.usage(ctx)
	if err != nil {
		return err
	}
	idle, err := figures.CPUTime(b.APIServer.PID())
	if err != nil {
		return err
	}
	arrived := make(chan time.Time, b.crowd)
	start := time.Now()
	for range b.crowd {
		config, err := clientcmd.BuildConfigFromFlags("", one.Kubeconfig)
		if err != nil {
			return err
		}
		config.QPS = -1
		config.Dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext // connections of its own
		store := snapshot.NewStore()
		store.OnChange(func(s *snapshot.Snapshot) {
			if s.Ready {
				arrived <- time.Now()
			}
		})
		source := &watch.API{Config: config, Namespace: crowded, KeysSecret: v1beta1.KeysSecret, Log: logr.Discard(), Store: store}
		if err := source.Load(); err != nil {
			return err
		}
		running.Go(func() { source.Run(ctx) })
	}
	ready, err := collect(ctx, arrived, b.crowd, start)
	if err != nil {
		return err
	}
	started, err := figures.CPUTime(b.APIServer.PID())
	if err != nil {
		return err
	}
	after, err := b.usage(ctx)
	if err != nil {
		return err
	}
	if watches := after.watches - before.watches; watches < 3*b.crowd*9/10 { // those of others come and go
		return fmt.Errorf("%d sidecars have only %d watches more than there were", b.crowd, watches)
	}
	thousands := float64(b.crowd) / 1000
	b.say("\n%d sidecars with three watches each start at once: %s until each is ready", b.crowd, ready)
	b.say("they cost the API server, per 1,000: %.0f MiB resident, of it %.0f MiB heap and %.0f MiB stacks; %.1f s of CPU at their start",
		(after.resident-before.resident)/thousands, (after.heap-before.heap)/thousands, (after.stacks-before.stacks)/thousands, (started-idle).Seconds()/thousands)
	if err := b.rest(ctx, thousands); err != nil {
		return err
	}

	var reached figures.Times
	changes := 5
	began, err := figures.CPUTime(b.APIServer.PID())
	if err != nil {
		return err
	}
	for i := range changes {
		patch := fmt.Sprintf(`{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"model-%d"}}}}}`, i)
		start := time.Now()
		if _, err := objects.Patch(ctx, "provider-0", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			return err
		}
		took, err := collect(ctx, arrived, b.crowd, start)
		if err != nil {
			return err
		}
		reached = append(reached, took...)
	}
	ended, err := figures.CPUTime(b.APIServer.PID())
	if err != nil {
		return err
	}
	b.say("One change reaches all of them: %s; it costs the API server %.0f ms of CPU", reached, figures.Milliseconds(ended-began)/float64(changes))
	return nil
}

// rest says what the API server does for sidecars whose configuration does not change.
func (b *bench) rest(ctx context.Context, thousands float64) error {
	before, err := figures.CPUTime(b.APIServer.PID())
	if err != nil {
		return err
	}
	began := time.Now()
	select {
	case <-time.After(b.watched):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := figures.CPUTime(b.APIServer.PID())
	b.say("while nothing changes, all that it does, for others too, takes %.1f %% of one core per 1,000", 100*(after-before).Seconds()/time.Since(began).Seconds()/thousands)
	return err
}

func collect(ctx context.Context, arrived <-chan time.Time, n int, start time.Time) (all figures.Times, err error) {
	limit := time.NewTimer(3 * time.Minute)
	defer limit.Stop()
	for len(all) < n {
		select {
		case at := <-arrived:
			all = append(all, at.Sub(start))
		case <-limit.C:
			return nil, fmt.Errorf("after 3 minutes only %d of %d sidecars know", len(all), n)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return all, nil
}
