//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/bench/figures"
)

// patience is for what takes seconds.
const patience = 2 * time.Minute

// startUp has pods with and without a sidecar start in turn, each when the one before is ready. They stay until all are
// measured, and do nothing.
func (b *bench) startUp(ctx context.Context) error {
	b.step("%d pods of each kind", b.starts)
	var plain, injected, redirected, begun, configured, began, ready figures.Times
	var idle []float64
	for i := range b.warming + b.starts {
		bare, err := b.start(ctx, without, i)
		if err != nil {
			return err
		}
		with, err := b.start(ctx, withSidecars, i)
		if err != nil {
			return err
		}
		if i < b.warming {
			continue
		}
		at, err := b.watchStart(ctx, with)
		if err != nil {
			return err
		}
		plain, injected = append(plain, bare.ready.Sub(bare.created)), append(injected, with.ready.Sub(with.created))
		redirected = append(redirected, at.redirected.Sub(at.sandbox))
		begun = append(begun, at.sidecar.Sub(at.redirected))
		configured = append(configured, at.configured.Sub(at.sidecar))
		began = append(began, at.app.Sub(at.configured))
		ready = append(ready, with.ready.Sub(at.app))
		idle = append(idle, at.resident)
	}
	b.row(fmt.Sprintf("a pod without a sidecar, from create to Ready, %d pods", b.starts), time.Second, plain)
	b.row(fmt.Sprintf("a pod with one, %d pods in turn with those", b.starts), time.Second, injected)
	b.row("of it, from the pod's network to its redirection: the container `remora-redirect`", time.Second, redirected)
	b.row("until the kubelet runs the sidecar", time.Second, begun)
	b.row("until the sidecar has its configuration", time.Second, configured)
	b.row("until the kubelet runs the app", time.Second, began)
	b.row("until the API server says Ready", time.Second, ready)
	b.remark("A sidecar adds %.2f s to the start of a pod (p50).", (injected.Quantile(0.5) - plain.Quantile(0.5)).Seconds())
	if err := b.idleMemory(ctx, idle); err != nil {
		return err
	}
	return b.clear(ctx, without, withSidecars)
}

// begun is a pod that is ready, and when it was created and ready.
type begun struct {
	pod            *corev1.Pod
	created, ready time.Time
}

// start creates a pod and follows it until it is ready.
func (b *bench) start(ctx context.Context, namespace string, i int) (one begun, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	name := fmt.Sprintf("start-%d", i)
	pods := b.client.CoreV1().Pods(namespace)
	changes, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		return one, err
	}
	defer changes.Stop()
	one.created = time.Now()
	if _, err := pods.Create(ctx, app(name), metav1.CreateOptions{}); err != nil {
		return one, err
	}
	for change := range changes.ResultChan() {
		pod, ok := change.Object.(*corev1.Pod)
		if !ok || change.Type == watch.Deleted {
			return one, fmt.Errorf("pod %s of %s: %s %v", name, namespace, change.Type, change.Object)
		}
		one.pod = pod
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				one.ready = time.Now()
				return one, judge(pod)
			}
		}
	}
	return one, fmt.Errorf("pod %s of %s is not ready within %v: %+v", name, namespace, patience, one.pod)
}

// course is when the parts of an injected pod came to be, and what its sidecar has resident, in MiB.
type course struct {
	sandbox, redirected, sidecar, configured, app time.Time
	resident                                      float64
}

// watchStart finds out afterwards, by the processes and by what the two containers said.
func (b *bench) watchStart(ctx context.Context, one begun) (at course, err error) {
	all, err := processes(one.pod)
	if err != nil {
		return at, err
	}
	var failed [6]error
	at.sandbox, failed[0] = started(all[""])
	at.sidecar, failed[1] = started(all[v1beta1.SidecarContainer])
	at.app, failed[2] = started(all["app"])
	at.redirected, failed[3] = b.said(ctx, one.pod, v1beta1.RedirectContainer, "goes: ")
	at.configured, failed[4] = b.said(ctx, one.pod, v1beta1.SidecarContainer, "configuration in use")
	at.resident, failed[5] = figures.Resident(all[v1beta1.SidecarContainer])
	return at, errors.Join(failed[:]...)
}

// said gives when a container wrote the first line with these words.
func (b *bench) said(ctx context.Context, pod *corev1.Pod, container, words string) (time.Time, error) {
	log, err := b.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: container, Timestamps: true}).Stream(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer log.Close()
	var all strings.Builder
	for lines := bufio.NewScanner(log); lines.Scan(); {
		at, line, _ := strings.Cut(lines.Text(), " ")
		if strings.Contains(line, words) {
			return time.Parse(time.RFC3339Nano, at)
		}
		fmt.Fprintln(&all, line)
	}
	return time.Time{}, fmt.Errorf("%s of pod %s does not say %q:\n%s", container, pod.Name, words, all.String())
}

// clear removes the pods of namespaces, and returns when they have gone.
func (b *bench) clear(ctx context.Context, namespaces ...string) error {
	gone := make(chan error, len(namespaces))
	for _, namespace := range namespaces {
		go func() {
			out, err := b.cluster.Kubectl(ctx, "--namespace="+namespace, "delete", "pods", "--all", "--timeout="+patience.String())
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, out)
			}
			gone <- err
		}()
	}
	var failed error
	for range namespaces {
		failed = errors.Join(failed, <-gone)
	}
	return failed
}
