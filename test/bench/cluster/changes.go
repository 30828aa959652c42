package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/bench/figures"
)

const (
	namespace = "default"
	provider  = "bench" // the LLMProvider that is changed
)

func (b *bench) providers() dynamic.ResourceInterface {
	return b.client.Resource(v1beta1.GroupVersion.WithResource("llmproviders")).Namespace(namespace)
}

func object(name, host, model string, port int) *unstructured.Unstructured {
	spec := map[string]any{"host": host, "configs": map[string]any{"defaultConfig": map[string]any{"openAIConfig": map[string]any{"model": model}}}}
	if port > 0 {
		spec["port"] = int64(port)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1beta1.GroupVersion.String(), "kind": v1beta1.KindLLMProvider, "metadata": map[string]any{"name": name}, "spec": spec,
	}}
}

func (b *bench) createProvider(ctx context.Context) error {
	_, port, err := net.SplitHostPort(b.provider.Addr())
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	_, err = b.providers().Create(ctx, object(provider, providerHost, "model-0", number), metav1.CreateOptions{})
	return err
}

// change gives the provider another model, as kubectl patch does.
func (b *bench) change(ctx context.Context, model string, o metav1.PatchOptions) error {
	patch := fmt.Sprintf(`{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":%q}}}}}`, model)
	_, err := b.providers().Patch(ctx, provider, types.MergePatchType, []byte(patch), o)
	return err
}

// call gives the model that the provider was asked for.
func (b *bench) call(ctx context.Context, client *http.Client) (model string, err error) {
	resp, err := b.sidecar.Ask(ctx, client, providerHost)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var answer struct{ Model string }
	if err := json.Unmarshal(text, &answer); err != nil || resp.StatusCode != http.StatusOK || answer.Model == "" {
		return "", fmt.Errorf("answered %s: %.300s", resp.Status, text)
	}
	return answer.Model, nil
}

// effects takes the time from sending a change to the first request that shows it.
func (b *bench) effects(ctx context.Context) error {
	fmt.Fprintf(b.progress, "%d changes, one after the other\n", b.changes)
	client := b.sidecar.Client()
	var admitted, total figures.Times
	for i := range b.changes {
		model := fmt.Sprintf("effect-%d", i)
		start := time.Now()
		if err := b.change(ctx, model, metav1.PatchOptions{}); err != nil {
			return err
		}
		admitted = append(admitted, time.Since(start))
		for {
			seen, err := b.call(ctx, client)
			if err != nil {
				return err
			}
			if seen == model {
				break
			}
			if time.Since(start) > 30*time.Second {
				return fmt.Errorf("change %d has no effect within 30 s", i)
			}
		}
		total = append(total, time.Since(start))
	}
	b.say("From sending a change to the first request that shows it: %s over %d changes;\n  of it until the API server had answered, webhook included: %s", total, b.changes, admitted)
	return nil
}

// load changes the configuration all the time while apps call. The same changes as dry runs come first: they cost the API
// server and the webhook as much, and change nothing for the sidecar, so that the difference is the sidecar's.
func (b *bench) load(ctx context.Context) error {
	for _, p := range []struct {
		what    string
		options metav1.PatchOptions
	}{
		{"dry runs", metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}},
		{"changes", metav1.PatchOptions{}},
	} {
		if err := b.callsDuring(ctx, p.what, p.options); err != nil {
			return err
		}
	}
	return nil
}

// callsDuring has apps call as long as the configuration is patched.
func (b *bench) callsDuring(ctx context.Context, what string, options metav1.PatchOptions) error {
	fmt.Fprintf(b.progress, "%d %s while %d apps call\n", b.underLoad, what, callers)
	var calls [callers]figures.Times
	var failures [callers][]error
	done := make(chan struct{})
	var apps sync.WaitGroup
	for i := range callers {
		apps.Go(func() {
			client := b.sidecar.Client()
			for {
				select {
				case <-done:
					return
				default:
				}
				start := time.Now()
				if _, err := b.call(ctx, client); err != nil {
					failures[i] = append(failures[i], err)
				}
				calls[i] = append(calls[i], time.Since(start))
			}
		})
	}
	start := time.Now()
	var err error
	for i := 0; i < b.underLoad && err == nil; i++ {
		err = b.change(ctx, fmt.Sprintf("load-%d", i), options)
	}
	took := time.Since(start)
	close(done)
	apps.Wait()
	if err != nil {
		return err
	}
	all := slices.Concat(calls[:]...)
	failed := slices.Concat(failures[:]...)
	b.say("%d %s within %.0f s under load: %d requests, %d failed, %s", b.underLoad, what, took.Seconds(), len(all), len(failed), all)
	if len(failed) > 0 {
		return fmt.Errorf("requests failed while the configuration changed, the first with: %w", failed[0])
	}
	return nil
}

// callers is how many apps call at the same time.
const callers = 8

func (b *bench) memory(ctx context.Context) error {
	// A second after its configuration is there, a sidecar gives back what only its start has needed.
	select {
	case <-time.After(3 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	idle, err := figures.Resident(b.sidecar.PID())
	if err != nil {
		return err
	}
	if _, err := b.call(ctx, b.sidecar.Client()); err != nil {
		return err
	}
	used, err := figures.Resident(b.sidecar.PID())
	b.say("Resident memory of the sidecar while it watches: %.1f MiB idle, %.1f MiB after its first call", idle, used)
	return err
}
