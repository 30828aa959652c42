//go:build linux

package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/stage"
)

// creators create pods all the time, each as a trial: admission does everything for it, and the node has nothing to run.
type creators struct {
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	made   int
	worst  time.Duration
	failed []error
}

func createAllTheTime(t *testing.T, in string) *creators {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	c := &creators{cancel: cancel}
	tried := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "tried-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: stage.AppImage}}},
	}
	for range 2 {
		c.running.Go(func() {
			next := time.NewTicker(50 * time.Millisecond)
			defer next.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-next.C:
				}
				began := time.Now()
				p, err := client.CoreV1().Pods(in).Create(context.WithoutCancel(ctx), tried.DeepCopy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				if err == nil && (len(p.Spec.InitContainers) != 2 || p.Spec.InitContainers[1].Name != v1beta1.SidecarContainer) {
					err = fmt.Errorf("a pod was let in without its sidecar: %+v", p.Spec.InitContainers)
				}
				c.mu.Lock()
				c.made++
				c.worst = max(c.worst, time.Since(began))
				if err != nil {
					c.failed = append(c.failed, fmt.Errorf("%s: %w", began.Format("15:04:05.000"), err))
				}
				c.mu.Unlock()
			}
		})
	}
	return c
}

func (c *creators) stop(t *testing.T) string {
	t.Helper()
	c.cancel()
	c.running.Wait()
	for i, err := range c.failed {
		if i < 5 {
			t.Errorf("a pod was refused, at %v", err)
		}
	}
	said := fmt.Sprintf("%d pods, %d of them refused, the slowest took %v", c.made, len(c.failed), c.worst.Round(time.Millisecond))
	if c.made < 10 {
		t.Errorf("pods were not created all the time: %s", said)
	}
	return said
}
