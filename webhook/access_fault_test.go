package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"remora.dev/remora/apis/v1beta1"
)

func TestAccessIsKeptWhateverFails(t *testing.T) {
	r := newAccessRig(t)
	f := func(name string, test func(*testing.T, *accessRig, string)) {
		t.Run(name, func(t *testing.T) { test(t, r, strings.ToLower(name)) })
	}
	f("ASkippedPodIsToldOfOnce", skippedPod)
}

func skippedPod(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.start(t)
	r.label(t, ns, v1beta1.InjectEnabled)
	skipped := func(p *corev1.Pod) {
		p.Labels[v1beta1.InjectedLabel] = "false"
		p.Annotations[v1beta1.SkipReason] = "HostNetwork: the pod uses the network of its node.\x1b[2J\u202E"
	}
	const want = `Warning NotInjected: HostNetwork: the pod uses the network of its node.\x1b[2J\u202e`
	r.pod(t, ns, "skipped", skipped)
	r.pod(t, ns, "injected", injected)
	events := func(ctx context.Context) error {
		if got := r.eventsOf(ctx, t, "Pod", ns, "skipped"); !slices.Equal(got, []string{want}) {
			return fmt.Errorf("the events are %q", got)
		}
		return nil
	}
	r.eventually(t, "the event", events)
	r.stop()
	r.start(t)
	r.pod(t, ns, "another", skipped)
	r.eventually(t, "the second event", func(ctx context.Context) error {
		if got := r.eventsOf(ctx, t, "Pod", ns, "another"); len(got) != 1 {
			return fmt.Errorf("the events are %q", got)
		}
		return nil
	})
	if err := events(t.Context()); err != nil {
		t.Error(err)
	}
	if got := r.eventsOf(t.Context(), t, "Pod", ns, "injected"); len(got) != 0 {
		t.Errorf("the events of an injected pod are %q", got)
	}
	r.stop()
}
