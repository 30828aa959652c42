package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/controlplane"
)

// BenchmarkTenThousandObjectsAtStart is how long a controller that finds 10,000 objects without a status needs for them, how
// long an edit waits meanwhile, and how much memory it takes.
func BenchmarkTenThousandObjectsAtStart(b *testing.B) {
	for _, namespaces := range []int{1, 500} {
		b.Run(fmt.Sprintf("%d namespaces", namespaces), func(b *testing.B) {
			for b.Loop() {
				startWithMany(b, 10_000, namespaces)
			}
		})
	}
}

func startWithMany(b *testing.B, n, namespaces int) {
	b.Helper()
	r := newStatusRig(b)
	for i := range namespaces {
		if err := r.admin.Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}}); err != nil {
			b.Fatal(err)
		}
	}
	if err := inParallel(n/2, func(i int) error {
		at := metav1.ObjectMeta{Namespace: fmt.Sprintf("n%d", i%namespaces), Name: fmt.Sprintf("o%d", i)}
		p := &v1beta1.LLMProvider{ObjectMeta: at, Spec: v1beta1.LLMProviderSpec{Host: fmt.Sprintf("llm-%d.example.com", i), Path: v1beta1.DefaultPath}}
		route := &v1beta1.LLMRoute{ObjectMeta: at, Spec: v1beta1.LLMRouteSpec{Host: fmt.Sprintf("route-%d", i), Rules: []v1beta1.LLMRule{
			{Name: "vip", Matches: []v1beta1.LLMRequestMatch{{Headers: map[string]v1beta1.StringMatch{"user-type": {}}}}, BackendRefs: []v1beta1.LLMBackendRef{{ProviderHost: p.Spec.Host}}},
			{Name: "others", BackendRefs: []v1beta1.LLMBackendRef{{ProviderHost: p.Spec.Host}}},
		}}}
		if err := r.admin.Create(b.Context(), p); err != nil {
			return err
		}
		return r.admin.Create(b.Context(), route)
	}); err != nil {
		b.Fatal(err)
	}

	binary := filepath.Join(r.Folder(), "webhook")
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		b.Fatal(err)
	}
	health := fmt.Sprintf("127.0.0.1:%d", ports[0])
	r.metrics = fmt.Sprintf("127.0.0.1:%d", ports[1])
	p := controlplane.NewProcess(binary, filepath.Join(r.Folder(), "controller.log"), controlplane.Probe("http://"+health+"/readyz"),
		"control", "--kubeconfig", r.kubeconfig, "--health", health, "--metrics", r.metrics)
	b.Cleanup(p.Kill)
	begin := time.Now()
	if err := p.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	ready := time.Since(begin)

	// Somebody edits while it works.
	edited := time.Now()
	r.apply(b, "n0", providerYAML("new", "{host: new.example.com}"))
	r.await(b, provider, "n0", "new", func(s *shown) bool { return s.accepted("") })
	edit := time.Since(edited)

	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	look := time.NewTicker(time.Second) // each look costs the API server something
	defer look.Stop()
	for r.statusWrites(b) < n+1 {
		select {
		case <-look.C:
		case <-ctx.Done():
			b.Fatal("it takes too long")
		}
	}
	took := time.Since(begin)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ready.Seconds(), "s-ready")
	b.ReportMetric(took.Seconds(), "s-all")
	b.ReportMetric(float64(n)/(took-ready).Seconds(), "writes/s")
	b.ReportMetric(edit.Seconds(), "s-edit")
	// And once it has nothing to do.
	if out, err := r.KubectlWith(b.Context(), providerYAML("new", "{host: new.example.com, path: /a/../b}"), "-n", "n0", "apply", "-f", "-"); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	applied := time.Now()
	r.await(b, provider, "n0", "new", func(s *shown) bool { return s.refused("InvalidValue", "") })
	b.ReportMetric(float64(time.Since(applied).Milliseconds()), "ms-edit-idle")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		b.Fatal(err)
	}
	for line := range bytes.Lines(status) {
		for _, field := range []string{"VmRSS", "VmHWM"} {
			if fields := strings.Fields(string(line)); len(fields) > 1 && fields[0] == field+":" {
				var kb float64
				fmt.Sscan(fields[1], &kb)
				b.ReportMetric(kb/1024, "MB-"+field)
			}
		}
	}
	cpu, _ := r.metric(b.Context(), "process_cpu_seconds_total")
	var seconds float64
	fmt.Sscan(strings.TrimPrefix(cpu, "process_cpu_seconds_total "), &seconds)
	b.ReportMetric(seconds, "s-CPU")
	if writes := r.statusWrites(b); writes != n+2 {
		b.Errorf("%d writes for %d objects", writes, n)
	}
}
