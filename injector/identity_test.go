package injector

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestAWorkloadIsWhatAPodWasMadeFor(t *testing.T) {
	f := func(kind, name, hash, want string) {
		t.Helper()
		pod := &metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Kind: "Other", Name: "o"}, {Kind: kind, Name: name, Controller: ptr.To(true)}}}
		if hash != "" {
			pod.Labels = map[string]string{"pod-template-hash": hash}
		}
		if got := workloadOf(pod); got != want {
			t.Errorf("%s %s: %q, want %q", kind, name, got, want)
		}
	}
	f("ReplicaSet", "sleep-7d4b9c", "7d4b9c", "Deployment/sleep")
	f("ReplicaSet", "by-hand", "", "ReplicaSet/by-hand")
	f("ReplicaSet", "by-hand-", "", "ReplicaSet/by-hand-")
	f("ReplicaSet", "other-123", "7d4b9c", "ReplicaSet/other-123")
	f("ReplicaSet", "-7d4b9c", "7d4b9c", "ReplicaSet/-7d4b9c")
	f("StatefulSet", "db", "", "StatefulSet/db")
	f("DaemonSet", "agent", "", "DaemonSet/agent")
	f("Job", "report-29403120", "", "CronJob/report")
	f("Job", "report-1", "", "Job/report-1")
	f("Job", "29403120", "", "Job/29403120")
	f("Rollout", "canary", "x", "Rollout/canary")
	if got := workloadOf(&metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Kind: "Job", Name: "a"}}}); got != "" {
		t.Errorf("an owner that does not control it: %q", got)
	}
}

func TestPrometheusIsToldOfTheSidecarOnlyWhereAPodTellsItNothing(t *testing.T) {
	f := func(said, want map[string]string) {
		t.Helper()
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: said}}
		announce(pod)
		announce(pod)
		if !maps.Equal(pod.Annotations, want) {
			t.Errorf("%v, want %v", pod.Annotations, want)
		}
	}
	f(nil, map[string]string{"prometheus.io/scrape": "true", "prometheus.io/port": "14021", "prometheus.io/path": "/metrics"})
	for _, own := range []map[string]string{{"prometheus.io/scrape": "false"}, {"prometheus.io/port": "8080"}, {"prometheus.io/path": ""}, {"prometheus.io/scheme": "https"}} {
		f(own, maps.Clone(own))
	}
}
