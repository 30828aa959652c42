package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/test/bench/figures"
)

// admission compares a write that the webhook judges with one that it does not see. Both are dry runs, so that etcd has
// no part in it.
func (b *bench) admission(ctx context.Context) error {
	fmt.Fprintf(b.progress, "%d admissions\n", b.admissions)
	maps := b.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(namespace)
	_, err := maps.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": provider},
	}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	judged, plain, err := b.compare(ctx, func(i int) error {
		_, err := maps.Patch(ctx, provider, types.MergePatchType, fmt.Appendf(nil, `{"data":{"model":"admission-%d"}}`, i), dryRun)
		return err
	})
	if err != nil {
		return err
	}
	b.say("Admission of an LLMProvider (dry run): %s; a ConfigMap, which no webhook sees: %s", judged, plain)
	return nil
}

var dryRun = metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}

// compare takes turns, so that a machine that is slow for a while is slow for both.
func (b *bench) compare(ctx context.Context, other func(int) error) (judged, plain figures.Times, err error) {
	for i := range b.admissions {
		start := time.Now()
		if err := b.change(ctx, fmt.Sprintf("admission-%d", i), dryRun); err != nil {
			return nil, nil, err
		}
		judged = append(judged, time.Since(start))
		start = time.Now()
		if err := other(i); err != nil {
			return nil, nil, err
		}
		plain = append(plain, time.Since(start))
	}
	return judged, plain, nil
}

// manyObjects fills the namespace and asks again how long a change takes.
func (b *bench) manyObjects(ctx context.Context) error {
	fmt.Fprintf(b.progress, "%d objects more\n", b.objects)
	start := time.Now()
	room := make(chan struct{}, 16)
	failed := make(chan error, 1)
	var all sync.WaitGroup
	for i := range b.objects {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			_, err := b.providers().Create(ctx, object(fmt.Sprintf("other-%d", i), fmt.Sprintf("host-%d.example.com", i), "m", 0), metav1.CreateOptions{})
			if err != nil {
				select {
				case failed <- err:
				default: // one is enough
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	b.say("\nWith %d objects more in the namespace (created, judged one by one, within %.0f s):", b.objects, time.Since(start).Seconds())
	client := b.sidecar.Client()
	var effect, judged figures.Times
	for i := range max(10, b.changes/10) {
		start := time.Now()
		if err := b.change(ctx, fmt.Sprintf("full-dry-%d", i), dryRun); err != nil {
			return err
		}
		judged = append(judged, time.Since(start))
		model := fmt.Sprintf("full-%d", i)
		start = time.Now()
		if err := b.change(ctx, model, metav1.PatchOptions{}); err != nil {
			return err
		}
		for seen := ""; seen != model; {
			var err error
			if seen, err = b.call(ctx, client); err != nil {
				return err
			}
		}
		effect = append(effect, time.Since(start))
	}
	rss, err := figures.Resident(b.sidecar.PID())
	if err != nil {
		return err
	}
	b.say("  admission %s; change to effect %s; the sidecar has %.1f MiB resident", judged, effect, rss)
	return nil
}
