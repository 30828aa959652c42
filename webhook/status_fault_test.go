package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/controlplane"
)

func TestTheStatusIsRightWhateverFails(t *testing.T) {
	r := newStatusRig(t)
	f := func(name string, test func(*testing.T, *statusRig, string)) {
		t.Run(name, func(t *testing.T) { test(t, r, strings.ToLower(name)) })
	}
	f("AControllerThatStartsAgainWritesNothing", startsAgain)
	f("AnObjectThatNoSchemaWouldAdmitIsRefusedAlone", unreadableObject)
	f("AnObjectThatIsGoneIsNoError", goneObject)
	f("AnAPIServerThatStartsAgainIsFollowed", serverStartsAgain)
	f("AReplicaThatDiesIsReplaced", replicaDies)
}

func startsAgain(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.start(t)
	r.apply(t, ns, providerYAML("good", "{host: a.example.com}")+providerYAML("bad", "{host: b.example.com, path: /a/../b}")+
		providerYAML("keyless", "{host: c.example.com, configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: missing}}}}}")+
		routeYAML("r", "{host: chat, rules: [{backendRefs: [{providerHost: gone.example.com}]}]}"))
	judged := func() {
		r.eventually(t, "the metric", func(ctx context.Context) error {
			got, err := r.metric(ctx, "remora_objects{")
			for _, want := range []string{
				`remora_objects{accepted="true",code="",kind="LLMProvider",resolved="true"} 1`,
				`remora_objects{accepted="false",code="InvalidValue",kind="LLMProvider",resolved="true"} 1`,
				`remora_objects{accepted="true",code="SecretNotFound",kind="LLMProvider",resolved="false"} 1`,
				`remora_objects{accepted="true",code="ProviderNotFound",kind="LLMRoute",resolved="false"} 1`,
			} {
				if err == nil && !strings.Contains(got, want+"\n") {
					err = fmt.Errorf("there is no %s in\n%s", want, got)
				}
			}
			return err
		})
	}
	judged()
	r.await(t, provider, ns, "bad", func(s *shown) bool { return s.refused("InvalidValue", "") })
	r.await(t, provider, ns, "good", func(s *shown) bool { return s.accepted("") })
	r.await(t, provider, ns, "keyless", func(s *shown) bool { return s.unresolved("SecretNotFound", "") })
	r.await(t, route, ns, "r", func(s *shown) bool { return s.unresolved("ProviderNotFound", "") })
	r.eventually(t, "the events", func(ctx context.Context) error {
		if n := len(r.eventsOf(ctx, t, provider, ns, "bad")) + len(r.eventsOf(ctx, t, provider, ns, "keyless")) + len(r.eventsOf(ctx, t, route, ns, "r")); n != 3 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	r.stop()
	versions, writes := r.versions(t), r.statusWrites(t)
	if writes != 4 {
		t.Errorf("four objects took %d writes", writes)
	}

	r.start(t)
	judged()
	r.stop() // which waits for what it is about to write
	if got := r.statusWrites(t); got != writes {
		t.Errorf("%d writes for nothing", got-writes)
	}
	if got := r.versions(t); !maps.Equal(got, versions) {
		t.Errorf("objects have changed: %v, before: %v", got, versions)
	}
	if got := r.eventsOf(t.Context(), t, provider, ns, "bad"); len(got) != 1 {
		t.Errorf("the events are %q", got)
	}
}

// An earlier CRD, or another product's of the same name, let in what ours would not.
func unreadableObject(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	crd := &unstructured.Unstructured{}
	crd.SetAPIVersion("apiextensions.k8s.io/v1")
	crd.SetKind("CustomResourceDefinition")
	if err := r.admin.Get(t.Context(), client.ObjectKey{Name: "llmroutes.istio.alibabacloud.com"}, crd); err != nil {
		t.Fatal(err)
	}
	lax := crd.DeepCopy()
	versions := lax.Object["spec"].(map[string]any)["versions"].([]any)
	schema := versions[0].(map[string]any)["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)
	schema["properties"].(map[string]any)["spec"] = map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	if err := r.admin.Update(t.Context(), lax); err != nil {
		t.Fatal(err)
	}
	if out, err := r.Kubectl(t.Context(), "create", "namespace", ns); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	odd := routeYAML("odd", "{host: [chat], rules: [{backendRefs: [{providerHost: p.example.com}], timeouts: {idle: 99999999999h}, weights: none}]}")
	r.eventually(t, "the lax schema", func(ctx context.Context) error {
		out, err := r.KubectlWith(ctx, odd, "-n", ns, "apply", "-f", "-")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	if err := r.admin.Get(t.Context(), client.ObjectKeyFromObject(lax), lax); err != nil {
		t.Fatal(err)
	}
	crd.SetResourceVersion(lax.GetResourceVersion())
	if err := r.admin.Update(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	r.eventually(t, "the strict schema", func(ctx context.Context) error {
		if out, err := r.KubectlWith(ctx, strings.ReplaceAll(odd, "odd", "other"), "-n", ns, "apply", "--dry-run=server", "-f", "-"); err == nil {
			return fmt.Errorf("it is admitted: %s", out)
		}
		return nil
	})
	r.apply(t, ns, routeYAML("even", "{host: chat, rules: [{backendRefs: [{providerHost: p.example.com}]}]}")+providerYAML("p", "{host: p.example.com}"))
	r.start(t)
	r.await(t, route, ns, "even", func(s *shown) bool { return s.accepted("") && s.resolved() })
	s := r.await(t, route, ns, "odd", func(s *shown) bool {
		return s.refused("InvalidValue", "spec.host: is a list") || s.refused("UnreadableObject", "")
	})
	t.Logf("it says: %s", s.condition("Accepted").Message)
	r.delete(t, ns, "llmroute", "odd")
	r.stop()
}

func goneObject(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.apply(t, ns, providerYAML("p", "{host: a.example.com}")+providerYAML("q", "{host: b.example.com}"))
	w := &statusWriter{writer: r.admin.Status(), log: logr.Discard(), gauge: newObjectsGauge()}
	w.secrets, _ = newSecretKnowledge(r.admin, r.admin)
	objects, err := readObjects(t.Context(), r.admin, ns, nil)
	if err != nil || len(objects) != 2 {
		t.Fatalf("%d objects, %v", len(objects), err)
	}
	due := w.judge(ns, objects, nil)
	r.delete(t, ns, "llmprovider", "p", "q")
	r.apply(t, ns, providerYAML("q", "{host: c.example.com}")) // another one of that name
	result, err := w.writeAll(t.Context(), ns, due)
	if err != nil || len(due) != 2 || result.RequeueAfter == 0 {
		t.Errorf("%d objects are due; %+v, %v", len(due), result, err)
	}
	if s := r.get(t, provider, ns, "q"); len(s.Status.Conditions) != 0 {
		t.Errorf("the new object got the old one's status: %+v", s.Status)
	}
}

func serverStartsAgain(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	r.start(t, "--leader-elect=false") // a leader that cannot renew its Lease ends, and is started again by the kubelet
	r.apply(t, ns, providerYAML("p", "{host: a.example.com}"))
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.accepted("") })
	writes := r.versions(t)
	r.APIServer.Kill()
	if err := r.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.apply(t, ns, providerYAML("q", "{host: a.example.com}"))
	r.await(t, provider, ns, "q", func(s *shown) bool { return s.refused("HostConflict", "") })
	r.stop()
	for name, version := range r.versions(t) {
		if before, ok := writes[name]; ok && before != version {
			t.Errorf("%s was written again", name)
		}
	}
}

func replicaDies(t *testing.T, r *statusRig, ns string) {
	t.Helper()
	binary := filepath.Join(r.Folder(), "webhook")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	replica := func(port int) *controlplane.Process {
		health := fmt.Sprintf("127.0.0.1:%d", port)
		p := controlplane.NewProcess(binary, filepath.Join(r.Folder(), fmt.Sprintf("replica-%d.log", port)), controlplane.Probe("http://"+health+"/readyz"),
			"control", "--kubeconfig", r.kubeconfig, "--health", health, "--metrics", "0")
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		return p
	}
	holder := func() string {
		var lease coordinationv1.Lease
		if err := r.admin.Get(t.Context(), client.ObjectKey{Namespace: v1beta1.InstallationNamespace, Name: v1beta1.ControllerName}, &lease); err != nil || lease.Spec.HolderIdentity == nil {
			return ""
		}
		return *lease.Spec.HolderIdentity
	}
	first := replica(ports[0])
	r.apply(t, ns, providerYAML("p", "{host: a.example.com}"))
	r.await(t, provider, ns, "p", func(s *shown) bool { return s.accepted("") })
	leader := holder()
	second := replica(ports[1]) // ready, and not the leader
	r.apply(t, ns, providerYAML("q", "{host: a.example.com}"))
	r.await(t, provider, ns, "q", func(s *shown) bool { return s.refused("HostConflict", "") })
	if got := holder(); got != leader {
		t.Errorf("the leader changed from %q to %q with nothing wrong", leader, got)
	}

	first.Kill()
	begin := time.Now()
	r.delete(t, ns, "llmprovider", "p")
	r.await(t, provider, ns, "q", func(s *shown) bool { return s.accepted("") })
	t.Logf("after a kill, the other replica wrote %v later", time.Since(begin))
	if got := holder(); got == leader {
		t.Errorf("%q is still the leader", got)
	}

	// One that ends in an orderly way gives up its Lease.
	third := replica(ports[0])
	if err := second.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	begin = time.Now()
	r.apply(t, ns, providerYAML("q", "{host: a.example.com, path: /a/../b}"))
	r.await(t, provider, ns, "q", func(s *shown) bool { return s.refused("InvalidValue", "") })
	if took := time.Since(begin); took > 12*time.Second {
		t.Errorf("the next replica wrote only after %v", took)
	} else {
		t.Logf("after an orderly end, the other replica wrote %v later", took)
	}
	third.Kill()
	for _, port := range ports {
		log, err := os.ReadFile(filepath.Join(r.Folder(), fmt.Sprintf("replica-%d.log", port)))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(log)) {
			var entry map[string]any
			// controller-runtime also calls it an error that a leader that was asked to end leads no more.
			if json.Unmarshal([]byte(line), &entry) != nil || entry["level"] == "error" && entry["error"] != "leader election lost" {
				t.Errorf("the log of a replica has: %s", line)
			}
		}
	}
}
