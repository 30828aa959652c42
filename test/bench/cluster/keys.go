package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/bench/figures"
)

const (
	keyed      = "keyed" // the namespace, its provider and its Secret
	soonEnough = time.Second
)

// keys takes the time from the change of a Secret, and from its end, to the last request that bears the old key. What is changed
// is the user's own: the controller has to carry it to the sidecars.
func (b *bench) keys(ctx context.Context) (err error) {
	fmt.Fprintf(b.progress, "%d sidecars whose key changes\n", b.sidecars)
	c, err := newCrew(providerHost, b.sidecars)
	if err != nil {
		return err
	}
	defer func() {
		for _, s := range c.sidecars {
			s.Kill()
		}
		c.provider.Close()
	}()
	secrets := b.client.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(keyed)
	if err := b.raiseCrew(ctx, c, secrets); err != nil {
		return err
	}
	calling, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { c.run(calling) })

	if err := c.allWith(ctx, key(0)); err != nil {
		return err
	}
	c.count()
	return errors.Join(b.rotations(ctx, c, secrets), b.strictRotations(ctx, c, secrets), b.revocations(ctx, c, secrets))
}

func key(i int) string { return fmt.Sprintf("sk-bench-%06d", i) }

func secretWith(value string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": keyed}, "stringData": map[string]any{v1beta1.DefaultAPIKeyName: value},
	}}
}

func rotate(ctx context.Context, secrets dynamic.ResourceInterface, value string) error {
	_, err := secrets.Patch(ctx, keyed, types.MergePatchType, fmt.Appendf(nil, `{"stringData":{%q:%q}}`, v1beta1.DefaultAPIKeyName, value), metav1.PatchOptions{})
	return err
}

// raiseCrew makes the namespace and starts its sidecars.
func (b *bench) raiseCrew(ctx context.Context, c *crew, secrets dynamic.ResourceInterface) error {
	for _, args := range [][]string{{"create", "namespace", keyed}, {"label", "namespace", keyed, v1beta1.InjectLabel + "=" + v1beta1.InjectEnabled}} {
		if out, err := b.Kubectl(ctx, args...); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
	}
	// What the controller makes is there before Sidecar adds to it.
	if out, err := b.Kubectl(ctx, "-n", keyed, "wait", "--for=create", "secret/"+v1beta1.AccessSecret, "--timeout=2m"); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if _, err := secrets.Create(ctx, secretWith(key(0)), metav1.CreateOptions{}); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(c.provider.Addr())
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	o := object(keyed, providerHost, "model", number)
	if err := unstructured.SetNestedField(o.Object, keyed, "spec", "configs", "defaultConfig", "openAIConfig", "apiKeyRef", "name"); err != nil {
		return err
	}
	if _, err := b.client.Resource(v1beta1.GroupVersion.WithResource("llmproviders")).Namespace(keyed).Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return err
	}
	ca := filepath.Join(b.Folder(), "keyed-ca.pem")
	if err := c.provider.WriteCA(ca); err != nil {
		return err
	}
	one, err := b.Sidecar(ctx, keyed, "--trusted-ca="+ca)
	if err != nil {
		return err
	}
	for s := one; ; {
		c.sidecars = append(c.sidecars, s)
		if err := s.Start(ctx); err != nil || len(c.sidecars) == b.sidecars {
			return err
		}
		if s, err = b.SidecarWith(one.Kubeconfig, keyed, "--trusted-ca="+ca); err != nil {
			return err
		}
	}
}

// rotations change the key while the provider takes both, as one rotates.
func (b *bench) rotations(ctx context.Context, c *crew, secrets dynamic.ResourceInterface) error {
	fmt.Fprintf(b.progress, "%d rotations\n", b.rounds)
	var olds []string
	var began []time.Time
	for i := range b.rounds {
		olds, began = append(olds, key(i)), append(began, time.Now())
		if err := rotate(ctx, secrets, key(i+1)); err != nil {
			return err
		}
		if err := c.allWith(ctx, key(i+1)); err != nil {
			return err
		}
	}
	calls, failed := c.count()
	b.row("from sending a changed Secret to the last request with the old key, %d sidecars, %d rounds", c.after(olds, began), b.sidecars, b.rounds)
	b.say("%d rotations under load: %d requests, %d failed", b.rounds, calls, len(failed))
	if len(failed) > 0 {
		return fmt.Errorf("requests failed while the key changed, the first with: %s", failed[0])
	}
	return nil
}

// strictRotations have the provider refuse the old key a moment after the Secret was written. What fails is told and no error: it
// says how long a moment is on this machine.
func (b *bench) strictRotations(ctx context.Context, c *crew, secrets dynamic.ResourceInterface) error {
	fmt.Fprintf(b.progress, "%d rotations after which the old key is refused\n", b.strict)
	for i := range b.strict {
		next := fmt.Sprintf("sk-strict-%06d", i)
		if err := rotate(ctx, secrets, next); err != nil {
			return err
		}
		written := time.Now()
		c.set(func() { c.refused = func(key string) bool { return key != next && time.Since(written) > soonEnough } })
		ended := time.NewTimer(soonEnough + 2*callEvery) // each app calls at least once without the old key
		select {
		case <-ended.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := c.allWith(ctx, next); err != nil {
			return err
		}
		c.set(func() { c.refused = nil })
	}
	calls, failed := c.count()
	b.say("%d rotations after each of which the provider refuses the old key within %s: %d requests, %d failed", b.strict, soonEnough, calls, len(failed))
	return nil
}

// revocations delete the Secret.
func (b *bench) revocations(ctx context.Context, c *crew, secrets dynamic.ResourceInterface) error {
	fmt.Fprintf(b.progress, "%d revocations\n", b.rounds)
	name := func(i int) string { return fmt.Sprintf("sk-revoked-%06d", i) }
	var revoked []string
	var began []time.Time
	for i := range b.rounds {
		if i == 0 {
			if err := rotate(ctx, secrets, name(0)); err != nil {
				return err
			}
		} else if _, err := secrets.Create(ctx, secretWith(name(i)), metav1.CreateOptions{}); err != nil {
			return err
		}
		if err := c.allWith(ctx, name(i)); err != nil {
			return err
		}
		c.set(func() { c.revoked, c.code = true, make([]string, len(c.code)) })
		revoked, began = append(revoked, name(i)), append(began, time.Now())
		if err := secrets.Delete(ctx, keyed, metav1.DeleteOptions{}); err != nil {
			return err
		}
		if err := c.allRefused(ctx); err != nil {
			return err
		}
	}
	_, failed := c.count()
	b.row("from sending the deletion of a Secret to the last use of its key, %d sidecars, %d rounds", c.after(revoked, began), b.sidecars, b.rounds)
	if len(failed) > 0 {
		return fmt.Errorf("calls whose key was deleted are answered otherwise than as revoked, the first with: %s", failed[0])
	}
	return nil
}

// row says a figure as the README's table has it.
func (b *bench) row(what string, all []time.Duration, args ...any) {
	t := figures.Times(all)
	b.say("| %s, ms | %.0f | %.0f |", fmt.Sprintf(what, args...), figures.Milliseconds(t.Quantile(0.5)), figures.Milliseconds(t.Quantile(0.99)))
}
