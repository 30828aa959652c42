package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/test/cluster/crds"
)

const chatService = "{apiVersion: v1, kind: Service, metadata: {name: chat}, spec: {selector: {app: chat}, ports: [{name: http, port: 80, targetPort: api}, {name: grpc, port: 9000, targetPort: 9001}, {name: dns, port: 53, protocol: UDP}]}}"

func withPort(port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "api", ContainerPort: port}}
	}
}

func TestTheControllerSaysWhoServesSubsetsAndPools(t *testing.T) {
	r := newServersRig(t)
	for name, try := range map[string]func(*testing.T, *serversRig, string){
		"subsets":      subsetsServed,
		"pools":        poolsServed,
		"interference": interferenceRepaired,
	} {
		t.Run(name, func(t *testing.T) { try(t, r, strings.ReplaceAll(name, " ", "-")) })
	}
}

func subsetsServed(t *testing.T, r *serversRig, ns string) {
	t.Helper()
	if err := r.admin.Create(t.Context(), &corev1.Node{ObjectMeta: metaOf("", "node-a", map[string]string{corev1.LabelTopologyZone: "z1"})}); err != nil {
		t.Fatal(err)
	}
	r.apply(t, ns, chatService+"\n---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}")
	v1, v2 := map[string]string{"app": "chat", "version": "v1"}, map[string]string{"app": "chat", "version": "v2"}
	first := r.serve(t, ns, "first", "10.0.0.1", v1, withPort(8080))
	second := r.serve(t, ns, "second", "10.0.0.2", v1, withPort(8081))
	r.serve(t, ns, "third", "10.0.0.3", v2, withPort(8080))
	r.serve(t, ns, "stranger", "10.0.0.4", map[string]string{"app": "other", "version": "v1"}, withPort(8080))
	if got := r.words(t.Context(), t, ns); got != "" {
		t.Errorf("what nobody names is written: %s", got)
	}
	r.name(ns, subsetOf(ns, "chat", "version=v1"), subsetOf(ns, "gone", "version=v1"))
	r.awaitWords(t, ns, "Service chat[version=v1]grpc: 10.0.0.1:9001 10.0.0.2:9001\nService chat[version=v1]http: 10.0.0.1:8080 10.0.0.2:8081")
	for _, s := range r.slices(t.Context(), t, ns) {
		owner := s.OwnerReferences
		if s.Labels[discoveryv1.LabelServiceName] != "" || s.Labels[discoveryv1.LabelManagedBy] != "remora-controller" || len(owner) != 1 || owner[0].Kind != "Service" || owner[0].UID == "" {
			t.Errorf("the metadata are %+v", s.ObjectMeta)
		}
		if zone := s.Endpoints[0].Zone; zone == nil || *zone != "z1" {
			t.Errorf("the endpoints are %+v", s.Endpoints)
		}
	}
	r.name(ns, subsetOf(ns, "chat", "version=v1"), subsetOf(ns, "chat", "version=v2"), subsetOf(ns, "chat", "version=v3"))
	const others = "\nService chat[version=v2]grpc: 10.0.0.3:9001\nService chat[version=v2]http: 10.0.0.3:8080\nService chat[version=v3]grpc:\nService chat[version=v3]http:"
	r.awaitWords(t, ns, "Service chat[version=v1]grpc: 10.0.0.1:9001 10.0.0.2:9001\nService chat[version=v1]http: 10.0.0.1:8080 10.0.0.2:8081"+others)

	versions := r.sliceVersions(t, ns)
	r.report(t, first, func(s *corev1.PodStatus) {
		s.Message = "nothing that matters"
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: "Sunny", Status: corev1.ConditionTrue})
	})
	r.report(t, second, func(s *corev1.PodStatus) { s.Conditions[0].Status = corev1.ConditionFalse })
	r.awaitWords(t, ns, "Service chat[version=v1]grpc: 10.0.0.1:9001\nService chat[version=v1]http: 10.0.0.1:8080"+others)
	changed := 0
	for name, version := range r.sliceVersions(t, ns) {
		if versions[name] != version {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d EndpointSlices were written for one pod", changed)
	}
	if err := r.admin.Delete(t.Context(), first, client.GracePeriodSeconds(1000)); err != nil {
		t.Fatal(err)
	}
	r.awaitWords(t, ns, "Service chat[version=v1]grpc: 10.0.0.1:9001-\nService chat[version=v1]http: 10.0.0.1:8080-"+others)

	r.name(ns, subsetOf(ns, "chat", "version=v2"))
	r.awaitWords(t, ns, "Service chat[version=v2]grpc: 10.0.0.3:9001\nService chat[version=v2]http: 10.0.0.3:8080")
	r.apply(t, ns, strings.Replace(chatService, "9001", "9002", 1))
	r.awaitWords(t, ns, "Service chat[version=v2]grpc: 10.0.0.3:9002\nService chat[version=v2]http: 10.0.0.3:8080")
	r.apply(t, ns, strings.Replace(chatService, "{app: chat}", "{app: nobody}", 1))
	r.awaitWords(t, ns, "Service chat[version=v2]grpc:\nService chat[version=v2]http:")
	r.delete(t, ns, "service", "chat")
	r.awaitWords(t, ns, "")
}

// The kind is not there when the controller starts.
func poolsServed(t *testing.T, r *serversRig, ns string) {
	t.Helper()
	r.apply(t, ns, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}")
	r.name(ns, poolOf(ns, "vllm"))
	r.serve(t, ns, "first", "10.0.0.1", map[string]string{"app": "vllm"})
	r.serve(t, ns, "second", "10.0.0.2", map[string]string{"app": "vllm"})
	define(t, r.statusRig, crds.InferencePools)
	r.apply(t, ns, `{apiVersion: inference.networking.k8s.io/v1, kind: InferencePool, metadata: {name: vllm}, spec: {selector: {matchLabels: {app: vllm}}, targetPorts: [{number: 8000}, {number: 8001}], endpointPickerRef: {name: epp, port: {number: 9002}}}}`)
	r.awaitWords(t, ns, "InferencePool vllm[]8000: 10.0.0.1:8000 10.0.0.2:8000\nInferencePool vllm[]8001: 10.0.0.1:8001 10.0.0.2:8001\n"+
		"InferencePool vllm[]: 10.0.0.1:8000 10.0.0.1:8001 10.0.0.2:8000 10.0.0.2:8001")
	if out, err := r.Kubectl(t.Context(), "delete", "crd", crds.InferencePools); err != nil {
		t.Fatal(out)
	}
	r.awaitWords(t, ns, "")
	if strings.Contains(r.log.all(), `"error"`) {
		t.Errorf("an absent kind is no error:\n%s", r.log)
	}
}

func interferenceRepaired(t *testing.T, r *serversRig, ns string) {
	t.Helper()
	r.apply(t, ns, chatService+"\n---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}")
	r.serve(t, ns, "first", "10.0.0.1", map[string]string{"app": "chat", "version": "v1"}, withPort(8080))
	id := subsetOf(ns, "chat", "version=v1")
	r.name(ns, id)
	want := "Service chat[version=v1]grpc: 10.0.0.1:9001\nService chat[version=v1]http: 10.0.0.1:8080"
	r.awaitWords(t, ns, want)
	// Somebody who may write EndpointSlices is refused; and what was forged before the policy is put right.
	forged := `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: forged, labels: {remora.dev/servers: subset}, annotations: {remora.dev/servers-of: chat, remora.dev/servers-subset: version=v1}},
		addressType: IPv4, endpoints: [{addresses: [203.0.113.9]}], ports: [{name: http, port: 8080}]}`
	r.eventually(t, "a refusal", func(ctx context.Context) error {
		if out, err := r.KubectlWith(ctx, forged, "-n", ns, "create", "--dry-run=server", "-f", "-"); err == nil || !strings.Contains(out, "remora-guard-servers") {
			return errors.New("it is let in: " + out)
		}
		return nil
	})
	if out, err := r.Kubectl(t.Context(), "delete", "-f", "../config/guard/servers.yaml"); err != nil {
		t.Fatal(out)
	}
	r.eventually(t, "no policy", func(ctx context.Context) error {
		if out, err := r.KubectlWith(ctx, forged, "-n", ns, "create", "-f", "-"); err != nil {
			return errors.New(out)
		}
		return nil
	})
	r.awaitWords(t, ns, want)
}

func (r *serversRig) sliceVersions(tb testing.TB, namespace string) map[string]string {
	tb.Helper()
	versions := map[string]string{}
	for _, s := range r.slices(tb.Context(), tb, namespace) {
		versions[s.Name] = s.ResourceVersion
	}
	return versions
}
