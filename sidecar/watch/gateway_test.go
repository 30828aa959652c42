package watch

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/cluster/crds"
)

const (
	rightOfAllObjects = `{apiGroups: [istio.alibabacloud.com], resources: [llmproviders, llmroutes], verbs: [list, watch]}`
	rightOfServices   = `{apiGroups: [""], resources: [services], verbs: [list, watch]}`
	rightOfSlices     = `{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}`
	rightOfPools      = `{apiGroups: [inference.networking.k8s.io], resources: [inferencepools], verbs: [list, watch]}`
	rightOfIstio      = `{apiGroups: [networking.istio.io], resources: [virtualservices, destinationrules, gateways], verbs: [list, watch]}`
)

// gateway is an API of a gateway in the namespace, as its service account, with these rights in the whole cluster.
func (n *namespace) gateway(rules ...string) *API {
	n.t.Helper()
	n.allowEverywhere(rules...)
	n.t.Cleanup(func() {
		n.kubectl("delete", "clusterrolebinding", n.name)
		n.kubectl("delete", "clusterrole", n.name)
	})
	n.kubectl("create", "clusterrolebinding", n.name, "--clusterrole="+n.name, "--serviceaccount="+n.name+":remora-sidecar")
	a := n.api()
	// Other tests leave Gateways of no interest.
	a.Gateway, a.Labels, a.Members = true, map[string]string{"gateway": n.name}, snapshot.NewMembers()
	return a
}

func (n *namespace) allowEverywhere(rules ...string) {
	n.t.Helper()
	n.apply("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: " + n.name + "}\nrules:\n- " + strings.Join(rules, "\n- ") + "\n")
}

// define has the kinds of Istio and InferencePool be defined.
func define(t *testing.T, n *namespace) {
	t.Helper()
	manifest, err := crds.Manifest(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := n.cp.KubectlWith(context.Background(), manifest, "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n.kubectl(append([]string{"wait", "--for=condition=Established", "--timeout=30s", "crd"}, crds.All...)...)
}

func undefine(n *namespace) {
	n.t.Helper()
	n.kubectl(append([]string{"delete", "crd", "--ignore-not-found"}, crds.All...)...)
}

// edge gives a Gateway for the gateway of the test, a VirtualService, and the Service behind it.
func (n *namespace) edge(host, service string) string {
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: edge}
spec: {selector: {gateway: %[1]s}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: %[2]s}
spec: {hosts: [%[2]s], gateways: [edge], http: [{route: [{destination: {host: %[3]s, port: {number: 80}}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: %[3]s}
spec: {ports: [{name: http, port: 80}, {name: grpc, port: 81}]}
`, n.name, host, service)
}

func (n *namespace) servers(service, port string) routing.ServersID {
	return routing.ServersID{Kind: routing.KindService, Namespace: n.name, Name: service, Port: port}
}

func TestAGatewayFollowsAllNamespacesAndKindsThatAppearLater(t *testing.T) {
	n, other := newNamespace(t), newNamespace(t)
	undefine(n)
	a := n.gateway(rightOfAllObjects, rightOfServices, rightOfSlices, rightOfPools, rightOfIstio)
	w := watch(t, a)
	s := w.awaitReady()
	if len(s.Problems) > 0 || s.Outage != nil {
		t.Errorf("kinds that are not there are trouble: %v %v", s.Problems, s.Outage)
	}
	define(t, n)
	defer undefine(n)
	other.apply(n.edge("api.example", "api") + "---\n" + sliceOf("api-1", "api", "http", 8080, "10.0.0.1", "10.0.0.2"))
	w.awaitText("api.example")
	awaitServers(t, a.Members, other.servers("api", "http"), "10.0.0.1:8080, 10.0.0.2:8080")
	if log := w.logged(); strings.Contains(log, "refuses") || strings.Contains(log, "cannot be reached") {
		t.Errorf("kinds that are not there are trouble:\n%s", log)
	}

	// The namespace of the objects is not that of the gateway; a Gateway that selects another gateway's labels is none of ours.
	n.apply(strings.Replace(n.edge("second.example", "second"), "{gateway: "+n.name+"}", "{gateway: nobody}", 1))
	other.apply(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec: {host: api, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
`)
	other.kubectl("delete", "crd", crds.VirtualServices)
	s = w.awaitNo("api.example")
	w.hasNot(s, "second.example")
	define(t, n)
	other.apply(n.edge("again.example", "api"))
	w.awaitText("again.example")
	awaitServers(t, a.Members, other.servers("api", "http"), "10.0.0.1:8080, 10.0.0.2:8080")
}

func TestServersAreFollowedSliceBySliceAndNoTableIsMadeForThem(t *testing.T) {
	n := newNamespace(t)
	define(t, n)
	defer undefine(n)
	a := n.gateway(rightOfAllObjects, rightOfServices, rightOfSlices, rightOfPools, rightOfIstio)
	n.apply(n.edge("api.example", "api"))
	n.apply(strings.NewReplacer("name: edge", "name: edge2", "number: 80,", "number: 8081,", "[edge]", "[edge2]", "{number: 80}", "{number: 81}").Replace(n.edge("grpc.example", "api")))
	n.apply(strings.NewReplacer("name: edge", "name: edge3", "number: 80,", "number: 8082,", "[edge]", "[edge3]").Replace(n.edge("other.example", "other")))
	w := watch(t, a)
	w.awaitReady()
	api, grpc, other := n.servers("api", "http"), n.servers("api", "grpc"), n.servers("other", "http")
	for _, id := range []routing.ServersID{api, grpc, other} {
		awaitServers(t, a.Members, id, "")
	}
	generation := w.store.Load().Table.Generation()
	var ofGRPC atomic.Int32
	a.Members.OnChange(func(id routing.ServersID) {
		if id == grpc {
			ofGRPC.Add(1)
		}
	})

	// Ports in different slices, each with servers of its own, and an endpoint that two slices have.
	n.apply(sliceOf("api-1", "api", "http", 8080, "10.0.0.1", "10.0.0.2") + "---\n" + sliceOf("api-2", "api", "grpc", 9090, "10.0.0.3"))
	awaitServers(t, a.Members, api, "10.0.0.1:8080, 10.0.0.2:8080")
	awaitServers(t, a.Members, grpc, "10.0.0.3:9090")
	n.apply(sliceOf("api-3", "api", "http", 8080, "10.0.0.2", "10.0.0.4"))
	awaitServers(t, a.Members, api, "10.0.0.1:8080, 10.0.0.2:8080, 10.0.0.4:8080")

	// One slice comes to be another Service's.
	n.kubectl("label", "endpointslice", "api-1", "-n", n.name, "--overwrite", "kubernetes.io/service-name=other")
	awaitServers(t, a.Members, api, "10.0.0.2:8080, 10.0.0.4:8080")
	awaitServers(t, a.Members, other, "10.0.0.1:8080, 10.0.0.2:8080")

	// IPv6 beside IPv4 is the same servers again; names are servers, too.
	n.apply(strings.Replace(sliceOf("other-6", "other", "http", 8080, `"fd00::1"`), "IPv4", "IPv6", 1))
	n.apply(strings.Replace(sliceOf("other-n", "other", "http", 8080, "pod.example"), "IPv4", "FQDN", 1))
	awaitServers(t, a.Members, other, "10.0.0.1:8080, 10.0.0.2:8080, pod.example:8080")
	n.kubectl("delete", "endpointslice", "api-1", "other-n", "-n", n.name)
	awaitServers(t, a.Members, other, "fd00::1:8080")

	// Not ready, about to end, gone.
	n.apply(strings.NewReplacer("[10.0.0.2], conditions: {ready: true}", "[10.0.0.2], conditions: {ready: false}",
		"[10.0.0.4], conditions: {ready: true}", "[10.0.0.4], conditions: {ready: false, serving: true, terminating: true}").
		Replace(sliceOf("api-3", "api", "http", 8080, "10.0.0.2", "10.0.0.4")))
	awaitServers(t, a.Members, api, "10.0.0.4:8080 draining")
	n.kubectl("delete", "endpointslice", "api-3", "-n", n.name)
	awaitServers(t, a.Members, api, "")
	awaitServers(t, a.Members, grpc, "10.0.0.3:9090")
	if got := ofGRPC.Load(); got != 1 {
		t.Errorf("servers that changed once were published %d times", got)
	}
	if now := w.store.Load().Table.Generation(); now != generation {
		t.Errorf("tables %s and %s for other servers", generation, now)
	}
}

func TestAMissingRightOfAGatewayIsNamedOnceAndTheRestIsServed(t *testing.T) {
	n := newNamespace(t)
	define(t, n)
	defer undefine(n)
	a := n.gateway(rightOfAllObjects, rightOfServices, strings.Replace(rightOfIstio, "destinationrules, ", "", 1), rightOfPools)
	n.apply(n.edge("api.example", "api") + "---\n" + sliceOf("api-1", "api", "http", 8080, "10.0.0.1"))
	w := watch(t, a)
	w.awaitReady()
	s := w.awaitText("endpointslices.discovery.k8s.io")
	w.has(s, "api.example",
		"the right to list and watch destinationrules.networking.istio.io in all namespaces is missing: bind a ClusterRole with verbs [list, watch] on them; until then, it is as if there were none",
		"the right to list and watch endpointslices.discovery.k8s.io in all namespaces is missing: bind a ClusterRole with verbs [list, watch] on them; until then, nothing is known of Services")
	if _, known := a.Members.Of(n.servers("api", "http")); known {
		t.Error("servers are known that may not be read")
	}
	n.allowEverywhere(rightOfAllObjects, rightOfServices, rightOfSlices, rightOfPools, rightOfIstio)
	awaitServers(t, a.Members, n.servers("api", "http"), "10.0.0.1:8080")
	w.awaitNo("is missing")
	for _, resource := range []string{"destinationrules", "endpointslices"} {
		if got := strings.Count(w.logged(), `"resource"="`+resource); got != 1 {
			t.Errorf("%s: it was said %d times:\n%s", resource, got, w.logged())
		}
	}
}

func TestServersStayWhileTheAPIServerIsAwayAndOverARestartOfTheGateway(t *testing.T) {
	n := newNamespace(t)
	define(t, n)
	defer undefine(n)
	a := n.gateway(rightOfAllObjects, rightOfServices, rightOfSlices, rightOfPools, rightOfIstio)
	a.LastGood = filepath.Join(t.TempDir(), "own", "last.json")
	n.apply(n.edge("api.example", "api") + "---\n" + sliceOf("api-1", "api", "http", 8080, "10.0.0.1", "10.0.0.2"))
	config := a.Config
	w := watch(t, a)
	w.awaitText("api.example")
	awaitServers(t, a.Members, n.servers("api", "http"), "10.0.0.1:8080, 10.0.0.2:8080")

	n.cp.APIServer.Kill()
	w.await("an outage", func(s *snapshot.Snapshot) bool { return s.Outage != nil })
	awaitServers(t, a.Members, n.servers("api", "http"), "10.0.0.1:8080, 10.0.0.2:8080")
	w.stop()

	b := n.restarted(a, config)
	v := watch(t, b)
	v.awaitText("api.example")
	awaitServers(t, b.Members, n.servers("api", "http"), "10.0.0.1:8080, 10.0.0.2:8080")
	if err := n.cp.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.apply(sliceOf("api-1", "api", "http", 8080, "10.0.0.3"))
	awaitServers(t, b.Members, n.servers("api", "http"), "10.0.0.3:8080")
	v.await("no outage", func(s *snapshot.Snapshot) bool { return s.Outage == nil })
}

// restarted is the same as another process.
func (n *namespace) restarted(a *API, config *rest.Config) *API {
	return &API{
		Config: config, Namespace: a.Namespace, KeysSecret: a.KeysSecret, Labels: a.Labels, LastGood: a.LastGood, Gateway: a.Gateway,
		Members: snapshot.NewMembers(),
	}
}
