//go:build linux

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"remora.dev/remora/apis/v1beta1"
)

// An app that calls notices nothing, whoever writes an LLMProvider succeeds, and every pod gets its sidecar.
func TestNothingFailsWhileTheInstallationComesAndGoes(t *testing.T) {
	t.Parallel()
	in := namespace(t, "e2e-writers")
	for n := range writing {
		apply(t, strings.NewReplacer("name: example", "name: "+written(n), "api.example.com", written(n)+".example.com").Replace(provider), "-n", in)
	}
	calling := injected(t, "e2e-bystanders")
	apply(t, exampleProvider("sk-of-bystanders"), "-n", calling)
	apply(t, pod("app", container("app", idle)), "-n", calling)
	awaitReady(t, calling, "pod/app")
	calls := callAllTheTime(t, calling, "app", example, "of a bystander")
	settled := func() {
		t.Helper()
		for _, name := range []string{v1beta1.WebhookName, v1beta1.ControllerName} {
			kubectl(t, "-n", system, "rollout", "status", "deployment/"+name, "--timeout="+patience.String())
		}
	}
	f := func(what string, disturb func(pods []string)) {
		t.Helper()
		settled()
		w, c := writeAllTheTime(t, in), createAllTheTime(t, calling)
		began := time.Now()
		disturb(pods(t, v1beta1.WebhookName))
		settled()
		t.Logf("%s: %v until all is as before; %s; %s", what, time.Since(began).Round(100*time.Millisecond), w.stop(t, "write", 20), c.stop(t, "pod", 10))
	}
	f("an eviction", func(pods []string) {
		evict := func(pod string) error {
			return client.PolicyV1().Evictions(system).Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: system}})
		}
		if err := evict(pods[0]); err != nil {
			t.Errorf("one of two cannot be evicted: %v", err)
		}
		if err := evict(pods[1]); !apierrors.IsTooManyRequests(err) {
			t.Errorf("the other one's eviction: %v; want it refused until there are two again", err)
		}
	})
	f("a deletion of one", func(pods []string) { kubectl(t, "-n", system, "delete", "pod", pods[1]) })
	f("a restart of all", func([]string) { kubectl(t, "-n", system, "rollout", "restart", "deployment") })
	calls.awaitMore(t, 5)
	t.Log(calls.stop(t))
}

// writing is how many write at once, each to a provider of its own.
const writing = 6

func written(n int) string { return fmt.Sprintf("written-%d", n) }

// writeAllTheTime changes providers again and again. Each change is judged by the webhook.
func writeAllTheTime(t *testing.T, in string) *trials {
	t.Helper()
	client := dynamic.NewForConfigOrDie(config).Resource(schema.GroupVersionResource{
		Group: v1beta1.GroupVersion.Group, Version: v1beta1.GroupVersion.Version, Resource: "llmproviders",
	}).Namespace(in)
	return tryAllTheTime(t, writing, 20*time.Millisecond, func(ctx context.Context, n, i int) error {
		patch := fmt.Sprintf(`{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"m-%d"}}}}}`, i)
		_, err := client.Patch(ctx, written(n), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	})
}

func TestAnotherControllerTakesOver(t *testing.T) {
	t.Parallel()
	in := namespace(t, "e2e-leader")
	leader := func() string {
		holder := kubectl(t, "-n", system, "get", "lease", v1beta1.ControllerName, "-o", "jsonpath={.spec.holderIdentity}")
		pod, _, _ := strings.Cut(holder, "_")
		return pod
	}
	first := leader()
	if first == "" {
		t.Fatal("there is no leader")
	}
	began := time.Now()
	kubectl(t, "-n", system, "delete", "pod", first, "--wait=false")
	eventually(t, "another leads", func() (string, bool) {
		now := leader()
		return now, now != first && now != ""
	})
	t.Logf("%v from the deletion of a leader to the next", time.Since(began).Round(time.Millisecond))
	apply(t, route, "-n", in)
	kubectl(t, "-n", in, "wait", "--for=condition=Accepted", "llmroute/chat", "--timeout="+patience.String())
	t.Logf("%v to a status that it has written", time.Since(began).Round(time.Millisecond))
}
