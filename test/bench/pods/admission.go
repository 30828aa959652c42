//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/bench/figures"
)

var dryRun = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}

// try has a pod admitted, without it ever being there, and compares what became of it with what should have.
func (b *bench) try(ctx context.Context, namespace string, pod *corev1.Pod) error {
	made, err := b.client.CoreV1().Pods(namespace).Create(ctx, pod.DeepCopy(), dryRun) // to send it, the client writes its kind into it
	if err != nil {
		return err
	}
	if err := judge(made); err != nil {
		return wrong{err}
	}
	return nil
}

// wrong is an answer that should have been another one, and not none.
type wrong struct{ error }

// admission has many pods admitted at a pace, with and without injection.
func (b *bench) admission(ctx context.Context) error {
	webhooks, err := b.system(ctx, v1beta1.WebhookName, "webhook")
	if err != nil {
		return err
	}
	apiServer, err := b.component("kube-apiserver")
	if err != nil {
		return err
	}
	for _, rate := range b.rates {
		n := 2 * b.seconds * rate
		b.step("%d admissions of each kind, %d a second", n, rate)
		var plain, injected burst
		for range 2 {
			if err := b.pace(ctx, rate, without, &plain, webhooks, apiServer); err != nil {
				return err
			}
			if err := b.pace(ctx, rate, withSidecars, &injected, webhooks, apiServer); err != nil {
				return err
			}
		}
		b.row(fmt.Sprintf("admission of a pod without injection (dry run), %d at %d/s, %d failed", n, rate, plain.failed), time.Millisecond, plain.took)
		b.row(fmt.Sprintf("the same with injection, %d failed", injected.failed), time.Millisecond, injected.took)
		each := func(d time.Duration) float64 { return figures.Milliseconds(d) / float64(n) }
		b.remark("CPU for each pod that is injected, at %d/s: %.2f ms of the webhook, %.2f ms of the API server; for each that is not: %.2f and %.2f ms.",
			rate, each(injected.webhook), each(injected.apiServer), each(plain.webhook), each(plain.apiServer))
	}
	if err := b.largePods(ctx); err != nil {
		return err
	}
	return b.loadedMemory(ctx)
}

// burst is what came of many tries.
type burst struct {
	took               figures.Times
	failed             int
	webhook, apiServer time.Duration // the CPU that they used
}

// pace adds tries at a rate, whether or not those before are answered. A pod's time begins when it is due.
//
// API servers keep 25 idle connections to a webhook. Where more wait for answers than that, each further question shakes hands
// anew, on both sides: a machine that falls behind falls behind further.
func (b *bench) pace(ctx context.Context, rate int, namespace string, sum *burst, webhooks []int, apiServer int) error {
	webhook, err := used(webhooks...)
	if err != nil {
		return err
	}
	api, err := used(apiServer)
	if err != nil {
		return err
	}
	sum.webhook, sum.apiServer = sum.webhook-webhook, sum.apiServer-api
	type result struct {
		took time.Duration
		err  error
	}
	n := b.seconds * rate
	results := make(chan result, n)
	pod := app("paced")
	start := time.Now()
	for i := range n {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return ctx.Err()
		}
		go func() {
			err := b.try(ctx, namespace, pod)
			results <- result{time.Since(due), err}
		}()
	}
	var failure error
	for range n {
		r := <-results
		if w := (wrong{}); errors.As(r.err, &w) {
			return r.err
		}
		if r.err != nil {
			sum.failed++
			failure = r.err
			continue
		}
		sum.took = append(sum.took, r.took)
	}
	if failure != nil {
		b.step("of those in %s, %d have failed, one of them with: %v", namespace, sum.failed, failure)
	}
	if webhook, err = used(webhooks...); err != nil {
		return err
	}
	if api, err = used(apiServer); err != nil {
		return err
	}
	sum.webhook, sum.apiServer = sum.webhook+webhook, sum.apiServer+api
	return nil
}

func used(pids ...int) (all time.Duration, err error) {
	for _, pid := range pids {
		one, err := figures.CPUTime(pid)
		if err != nil {
			return 0, err
		}
		all += one
	}
	return all, nil
}

// turns has a pod admitted in two namespaces, one after the other, so that a machine that is slow for a while is slow for both.
func (b *bench) turns(ctx context.Context, n int, pod *corev1.Pod, first, second string) (ofFirst, ofSecond figures.Times, err error) {
	for range n {
		for namespace, times := range map[string]*figures.Times{first: &ofFirst, second: &ofSecond} {
			start := time.Now()
			if err := b.try(ctx, namespace, pod); err != nil {
				return nil, nil, err
			}
			*times = append(*times, time.Since(start))
		}
	}
	return ofFirst, ofSecond, nil
}

func (b *bench) largePods(ctx context.Context) error {
	b.step("%d large pods of each kind", b.large)
	plain, injected, err := b.turns(ctx, b.large, largeApp(), without, withSidecars)
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("admission of a pod with %d variables without injection, %d in turn", variables, b.large), time.Millisecond, plain)
	b.row("the same with injection", time.Millisecond, injected)
	return nil
}

// guardsOfPods are the bindings of the policies that look at pods when they are created.
var guardsOfPods = []string{"remora-guard-pods", "remora-guard-nodes"}

// guards compares pods that nobody injects with those of a namespace that the guards are told to leave alone.
func (b *bench) guards(ctx context.Context) error {
	b.step("%d admissions with the guards, and without", b.guarded)
	bindings := b.client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	exception := fmt.Appendf(nil, `{"spec":{"matchResources":{"namespaceSelector":{"matchExpressions":[{"key":%q,"operator":"NotIn","values":[%q]}]}}}}`,
		corev1.LabelMetadataName, unguarded)
	for _, name := range guardsOfPods {
		if _, err := bindings.Patch(ctx, name, types.MergePatchType, exception, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	// A pod that they forbid tells whether they look.
	forbidden := app("forbidden")
	forbidden.Spec.Containers[0].Name = v1beta1.SidecarContainer
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		err := b.try(ctx, unguarded, forbidden)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the guards still look at %s: %w", unguarded, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := b.try(ctx, without, forbidden); err == nil {
		return errors.New("the guards look at no namespace at all")
	}
	with, bare, err := b.turns(ctx, b.guarded, app("guarded"), without, unguarded)
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("admission of a pod that nobody injects, where the guards look, %d one after the other", b.guarded), time.Millisecond, with)
	b.row("the same where they do not", time.Millisecond, bare)
	return nil
}
