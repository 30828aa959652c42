package routing_test

import (
	"fmt"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

func manyRoutes(n int) routing.Objects {
	in := routing.Objects{Secrets: []routing.Secret{}}
	for i := range n {
		var p v1beta1.LLMProvider
		p.Name, p.Namespace = fmt.Sprintf("p%d", i), "default"
		p.Spec.Host = fmt.Sprintf("llm-%d.example.com", i)
		var r v1beta1.LLMRoute
		r.Name, r.Namespace = fmt.Sprintf("r%d", i), "default"
		r.Spec.Host = fmt.Sprintf("route-%d", i)
		subscriber, gold := "subscriber", "gold|silver"
		backends := []v1beta1.LLMBackendRef{{ProviderHost: p.Spec.Host}, {ProviderHost: "llm-0.example.com"}, {ProviderHost: "gone.example.com"}}
		r.Spec.Rules = []v1beta1.LLMRule{
			{Name: "vip", BackendRefs: backends, Matches: []v1beta1.LLMRequestMatch{{Headers: map[string]v1beta1.StringMatch{"user-type": {Exact: &subscriber}}}}},
			{Name: "tier", BackendRefs: backends, Matches: []v1beta1.LLMRequestMatch{{Headers: map[string]v1beta1.StringMatch{"x-tier": {Regex: &gold}}}}},
			{BackendRefs: backends},
		}
		in.Providers, in.Routes = append(in.Providers, p), append(in.Routes, r)
	}
	return in
}

type oneHeader struct {
	bare
	value []byte
}

func (h *oneHeader) Header(name string) ([]byte, bool) { return h.value, name == "X-Tier" }

// One request's way through the table: whose host, which rule, which backend, which operation.
func way(table *routing.Table, authority, path []byte, request *oneHeader, draw uint64) *routing.Target {
	host := table.Host(authority)
	operation, model := host.Operation(path)
	level := &host.Match(request, nil).Levels[0]
	target := level.Backends[level.Pick(draw, 1<<2)].Target
	if _, ok := target.PathFor(operation, model); !ok {
		return nil
	}
	return target
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("%d routes", n), func(b *testing.B) {
			table, _ := routing.Compile(manyRoutes(n), &routing.Workload{Namespace: "default"})
			authority := []byte(fmt.Sprintf("Route-%d.default.svc:80", n-1))
			path, request := []byte("/v1/chat/completions"), &oneHeader{value: []byte("silver")}
			b.ReportAllocs()
			for draw := uint64(0); b.Loop(); draw++ {
				if way(table, authority, path, request, draw) == nil {
					b.Fatal("there is no target")
				}
			}
		})
	}
}

func TestARequestFindsItsWayWithoutAllocation(t *testing.T) {
	table, _ := routing.Compile(manyRoutes(100), &routing.Workload{Namespace: "default"})
	authority, path, request := []byte("ROUTE-99.default.svc:80"), []byte("/v1/chat/completions"), &oneHeader{value: []byte("silver")}
	foreign := []byte(strings.Repeat("foreign.", 20) + "example.org")
	allocations := testing.AllocsPerRun(100, func() {
		if way(table, authority, path, request, 1) == nil || table.Host(foreign) != nil {
			t.Error("the way is lost")
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations for each request", allocations)
	}
}

func BenchmarkCompile(b *testing.B) {
	in := manyRoutes(500)
	b.Run("1000 objects", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			routing.Compile(in, &routing.Workload{Namespace: "default"})
		}
	})
}
