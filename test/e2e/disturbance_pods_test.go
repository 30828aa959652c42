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

// trials are what is tried all the time.
type trials struct {
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	made   int
	worst  time.Duration
	failed []error
}

// tryAllTheTime has some do the same at once, each after each rest. They are told their number, and how often they did it.
func tryAllTheTime(t *testing.T, some int, rest time.Duration, do func(ctx context.Context, n, i int) error) *trials {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	all := &trials{cancel: cancel}
	for n := range some {
		all.running.Go(func() {
			next := time.NewTicker(rest)
			defer next.Stop()
			for i := 0; ; i++ {
				select {
				case <-ctx.Done():
					return
				case <-next.C:
				}
				began := time.Now()
				err := do(context.WithoutCancel(ctx), n, i)
				all.mu.Lock()
				all.made++
				all.worst = max(all.worst, time.Since(began))
				if err != nil {
					all.failed = append(all.failed, fmt.Errorf("%s: %w", began.Format("15:04:05.000"), err))
				}
				all.mu.Unlock()
			}
		})
	}
	return all
}

// stop wants that none has failed, and that there were so many that they went on all the time.
func (a *trials) stop(t *testing.T, what string, least int) string {
	t.Helper()
	a.cancel()
	a.running.Wait()
	for i, err := range a.failed {
		if i < 5 {
			t.Errorf("a %s failed, at %v", what, err)
		}
	}
	said := fmt.Sprintf("%d %ss, %d of them failed, the slowest took %v", a.made, what, len(a.failed), a.worst.Round(time.Millisecond))
	if a.made < least {
		t.Errorf("they did not go on all the time: %s", said)
	}
	return said
}

// createAllTheTime creates pods, each as a trial run: admission does everything for it, and the node has nothing to run.
func createAllTheTime(t *testing.T, in string) *trials {
	t.Helper()
	tried := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "tried-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: stage.AppImage}}},
	}
	return tryAllTheTime(t, 2, 50*time.Millisecond, func(ctx context.Context, _, _ int) error {
		p, err := client.CoreV1().Pods(in).Create(ctx, tried.DeepCopy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && (len(p.Spec.InitContainers) != 2 || p.Spec.InitContainers[1].Name != v1beta1.SidecarContainer) {
			err = fmt.Errorf("a pod was let in without its sidecar: %+v", p.Spec.InitContainers)
		}
		return err
	})
}
