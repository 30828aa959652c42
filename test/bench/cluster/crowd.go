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

	memory, err := figures.Resident(b.APIServer.PID())
	if err != nil {
		return err
	}
	before, err := figures.CPUTime(b.APIServer.PID())
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
	after, err := figures.CPUTime(b.APIServer.PID())
	if err != nil {
		return err
	}
	grown, err := figures.Resident(b.APIServer.PID())
	if err != nil {
		return err
	}
	b.say("\n%d sidecars start at once: %s until each is ready; they cost the API server %.1f ms of CPU each,\n  and %.0f MiB of resident memory together",
		b.crowd, ready, figures.Milliseconds(after-before)/float64(b.crowd), grown-memory)

	var reached figures.Times
	changes := 5
	if before, err = figures.CPUTime(b.APIServer.PID()); err != nil {
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
	if after, err = figures.CPUTime(b.APIServer.PID()); err != nil {
		return err
	}
	b.say("One change reaches all of them: %s; it costs the API server %.0f ms of CPU", reached, figures.Milliseconds(after-before)/float64(changes))
	return nil
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
