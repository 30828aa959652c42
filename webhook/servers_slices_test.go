package main

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/sidecar/routing"
)

func TestOfTenThousandServersOnlyThoseThatChangeAreWritten(t *testing.T) {
	target := &thing{content: routing.Objects{InferencePools: []routing.InferencePool{{TargetPorts: []uint16{8000}}}}}
	id := routing.ServersID{Kind: routing.KindInferencePool, Namespace: "team", Name: "vllm"}
	podsFrom := func(from, to int) (all []*corev1.Pod) {
		for i := from; i < to; i++ {
			pod := &corev1.Pod{ObjectMeta: metaOf("team", fmt.Sprintf("pod-%05d", i), nil)}
			pod.UID = types.UID(pod.Name)
			pod.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)}}
			all = append(all, pod)
		}
		return all
	}
	zone := func(string) string { return "" }
	var have []*discoveryv1.EndpointSlice
	plan := func(pods []*corev1.Pod) slicePlan {
		began := time.Now()
		p := planSlices(have, groupServers(target, pods, zone), sliceForm(id, target))
		t.Logf("planned within %s: %d new, %d changed, %d gone", time.Since(began).Round(time.Millisecond), len(p.create), len(p.update), len(p.remove))
		kept := map[string]*discoveryv1.EndpointSlice{}
		for _, s := range have {
			kept[s.Name] = s
		}
		for _, s := range p.remove {
			delete(kept, s.Name)
		}
		for _, s := range append(p.create, p.update...) {
			kept[s.Name] = s
		}
		have = nil
		seen := map[string]bool{}
		for _, s := range kept {
			have = append(have, s)
			if len(s.Endpoints) > maxEndpoints {
				t.Errorf("%s has %d endpoints", s.Name, len(s.Endpoints))
			}
			for _, e := range s.Endpoints {
				if seen[e.Addresses[0]] {
					t.Errorf("%s is there twice", e.Addresses[0])
				}
				seen[e.Addresses[0]] = true
			}
		}
		if len(seen) != len(pods) {
			t.Errorf("there are %d servers of %d", len(seen), len(pods))
		}
		return p
	}
	f := func(what string, pods []*corev1.Pod, create, update, remove int) {
		t.Helper()
		if p := plan(pods); len(p.create) != create || len(p.update) != update || len(p.remove) != remove {
			t.Errorf("%s: %d new, %d changed, %d gone", what, len(p.create), len(p.update), len(p.remove))
		}
	}
	f("all", podsFrom(0, 10_000), 10, 0, 0)
	f("the same", podsFrom(0, 10_000), 0, 0, 0)
	f("one goes", podsFrom(1, 10_000), 0, 1, 0)
	f("one comes into the room that it left", podsFrom(1, 10_001), 0, 1, 0)
	f("one for another", podsFrom(2, 10_002), 0, 1, 0)
	f("one more than there is room for", podsFrom(2, 10_003), 1, 0, 0)
	f("none", nil, 0, 1, 10)
	f("still none", nil, 0, 0, 0)
}
