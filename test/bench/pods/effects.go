//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/bench/figures"
)

// route is the LLMRoute that is changed.
const route = "bench"

// models are those that the route leads to in turn. Its rule has the name of the model.
var models = [2]string{"one", "other"}

// seen is what the app says: see the program caller.
type seen struct {
	Took     figures.Times
	Model    string
	Answered int64
	Failed   string
	Calls    int
}

// effects takes the time from sending a change of the route to the first answer in a pod that shows it. The app's clock is
// this program's.
func (b *bench) effects(ctx context.Context) error {
	b.step("%d changes of an LLMRoute while an app calls", b.changes)
	pods := b.client.CoreV1().Pods(withSidecars)
	pod := app("caller")
	pod.Spec.TerminationGracePeriodSeconds = nil // a call that is under way may end
	pod.Spec.Containers[0] = corev1.Container{
		Name: "app", Image: callerImage, ImagePullPolicy: corev1.PullIfNotPresent, Args: []string{host, fmt.Sprint(b.calls)},
	}
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	if out, err := b.cluster.Kubectl(ctx, "--namespace="+withSidecars, "wait", "--for=condition=Ready", "pod/"+pod.Name, "--timeout="+patience.String()); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	log, err := pods.GetLogs(pod.Name, &corev1.PodLogOptions{Container: "app", Follow: true}).Stream(ctx)
	if err != nil {
		return err
	}
	defer log.Close()
	lines := bufio.NewReader(log)
	first, err := next(lines)
	if err != nil {
		return err
	}
	if len(first.Took) != b.calls {
		return fmt.Errorf("the app says at first: %+v", first)
	}
	if now, err := next(lines); err != nil || now.Model != models[0] {
		return fmt.Errorf("before the first change: %+v, %w", now, err)
	}
	var effect, admitted figures.Times
	for i := range b.changes {
		model := models[(i+1)%len(models)]
		sent := time.Now()
		if err := b.send(ctx, model); err != nil {
			return err
		}
		admitted = append(admitted, time.Since(sent))
		now, err := next(lines)
		if err != nil {
			return err
		}
		took := time.Unix(0, now.Answered).Sub(sent)
		if now.Model != model || took <= 0 {
			return fmt.Errorf("change %d to %s, sent at %v, became %+v", i, model, sent.UnixNano(), now)
		}
		effect = append(effect, took)
	}
	if err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	last, err := next(lines)
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("from sending a change of an LLMRoute to the first answer in a pod that shows it, %d changes", b.changes), time.Millisecond, effect)
	b.row("of it, until the API server had answered, webhook included", time.Millisecond, admitted)
	b.row(fmt.Sprintf("a small call through the redirection, %d calls", b.calls), time.Millisecond, first.Took)
	b.remark("Of %d calls before, during and after the changes, 0 failed.", last.Calls)
	return nil
}

// send has the route lead to a model.
func (b *bench) send(ctx context.Context, model string) error {
	_, err := b.objects.Resource(v1beta1.GroupVersion.WithResource("llmroutes")).Namespace(withSidecars).Patch(ctx, route, types.MergePatchType,
		fmt.Appendf(nil, `{"spec":{"rules":[{"name":%q,"backendRefs":[{"providerHost":%q}]}]}}`, model, host), metav1.PatchOptions{})
	return err
}

// next gives what the app says next. A call that failed is an error.
func next(lines *bufio.Reader) (s seen, err error) {
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return s, fmt.Errorf("the app's log ends, or cannot be read: %w", err)
	}
	if err := json.Unmarshal(line, &s); err != nil {
		return s, fmt.Errorf("the app says %s", line)
	}
	if s.Failed != "" {
		return s, fmt.Errorf("call %d failed: %s", s.Calls, s.Failed)
	}
	return s, nil
}
