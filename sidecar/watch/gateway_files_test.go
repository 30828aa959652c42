package watch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// service gives a Service with one port.
func service(name, port string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: {ports: [{name: " + port + ", port: 80}]}\n"
}

// sliceOf gives an EndpointSlice of a Service, whose endpoints are ready.
func sliceOf(name, service, port string, number int, addresses ...string) string {
	text := fmt.Sprintf("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: %s\n  labels: {kubernetes.io/service-name: %s}\naddressType: IPv4\nports: [{name: %s, port: %d, protocol: TCP}]\nendpoints:\n", name, service, port, number)
	for _, a := range addresses {
		text += "- {addresses: [" + a + "], conditions: {ready: true}}\n"
	}
	if len(addresses) == 0 {
		text = strings.TrimSuffix(text, "\n") + " []\n"
	}
	return text
}

func in(namespace, object string) string {
	return strings.Replace(object, "metadata: {", "metadata: {namespace: "+namespace+", ", 1)
}

// routeTo gives an LLMRoute with one Service behind it.
func routeTo(host, service string) string {
	return "apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: " + strings.ReplaceAll(host, ".", "-") + "}\nspec:\n  host: " + host +
		"\n  rules:\n  - name: all\n    backendRefs: [{backendRef: {name: " + service + ", port: 80}}]\n"
}

// awaitServers waits until the servers of a Service are these, as ADDRESS:PORT.
func awaitServers(t *testing.T, members *snapshot.Members, id routing.ServersID, want string) {
	t.Helper()
	changed := make(chan struct{}, 1)
	members.OnChange(func(routing.ServersID) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	limit := time.After(30 * time.Second)
	for {
		got, known := members.Of(id)
		if known && addressesOf(got) == want {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%+v: known %v, %s, want %s", id, known, addressesOf(got), want)
		}
	}
}

func addressesOf(servers routing.Servers) string {
	var all []string
	for _, s := range servers {
		text := fmt.Sprintf("%s:%d", s.Address, s.Port)
		if s.Draining {
			text += " draining"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func TestOfAServiceWithoutSlicesInFilesNothingIsKnown(t *testing.T) {
	f := newFollower(t, "all.yaml", routeTo("llm.example", "llm")+"---\n"+service("llm", "http"))
	f.members = snapshot.NewMembers()
	f.follow(f.dir)
	if _, known := f.members.Of(routing.ServersID{Kind: routing.KindService, Namespace: "default", Name: "llm", Port: "http"}); known {
		t.Error("its servers are known to be none")
	}
}

func TestAFolderOfAGatewayMayHoldSeveralNamespaces(t *testing.T) {
	f := func(want namespaces, docs ...string) {
		t.Helper()
		follower := newFollower(t, "all.yaml", strings.Join(docs, "---\n"))
		s := newSource(follower.dir, &routing.Workload{Gateway: true})
		if _, err := s.read(time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := s.chooseNamespaces(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		_, findings, all := s.compile(time.Now())
		for _, f := range findings {
			if f.Field == "metadata.namespace" {
				t.Errorf("%s", f.Problem)
			}
		}
		if all.objects != len(docs) {
			t.Errorf("%d objects of %d", all.objects, len(docs))
		}
	}
	f(namespaces{own: "default", unnamed: "default", many: true}, service("a", "http"))
	f(namespaces{own: "team", unnamed: "team", many: true}, in("team", service("a", "http")), service("b", "http"))
	f(namespaces{own: "remora-gateway", unnamed: "default", many: true}, in("team", service("a", "http")), in("other", service("a", "http")), service("a", "http"))
}

func TestWhatAFileHasOfOtherNamespacesIsNoFaultOfASidecars(t *testing.T) {
	f := newFollower(t, "all.yaml", provider("a", "a.example", "one")+"---\n"+in("other", service("a", "http")))
	f.follow(f.dir)
	if s := f.store.Load(); len(s.Problems) > 0 {
		t.Errorf("%v", s.Problems)
	}
	f.hasNot(f.store.Load(), "other")
}
func TestFilesSayWhoTheServersOfAServiceAreWhileTheyChange(t *testing.T) {
	f := newFollower(t, "all.yaml", routeTo("llm.example", "llm")+"---\n"+service("llm", "http"), "slice.yaml", sliceOf("llm-1", "llm", "http", 8080, "10.0.0.1", "10.0.0.2"))
	members := snapshot.NewMembers()
	f.members = members
	f.follow(f.dir)
	id := routing.ServersID{Kind: routing.KindService, Namespace: "default", Name: "llm", Port: "http"}
	awaitServers(t, members, id, "10.0.0.1:8080, 10.0.0.2:8080")
	before := f.store.Load().Table.Generation()
	f.write("slice.yaml", sliceOf("llm-1", "llm", "http", 8080, "10.0.0.3"))
	awaitServers(t, members, id, "10.0.0.3:8080")
	f.write("slice.yaml", sliceOf("llm-1", "llm", "http", 8080))
	awaitServers(t, members, id, "")
	if f.store.Load().Table.Generation() != before {
		t.Error("other servers made another table")
	}
}

// What files say must not depend on what they said before: a process that is started anew knows nothing of those servers either.
func TestAServiceWhoseSlicesAreTakenAwayIsOneWithoutSlices(t *testing.T) {
	f := newFollower(t, "all.yaml", routeTo("llm.example", "llm")+"---\n"+service("llm", "http"), "slice.yaml", sliceOf("llm-1", "llm", "http", 8080, "10.0.0.1"))
	members := snapshot.NewMembers()
	f.members = members
	told := make(chan struct{}, 10)
	members.OnChange(func(routing.ServersID) { told <- struct{}{} })
	f.follow(f.dir)
	id := routing.ServersID{Kind: routing.KindService, Namespace: "default", Name: "llm", Port: "http"}
	<-told
	f.write("slice.yaml", sliceOf("llm-1", "other", "http", 8080, "10.0.0.1"))
	<-told
	if got, known := members.Of(id); known {
		t.Errorf("its servers are %s", addressesOf(got))
	}
	f.write("slice.yaml", sliceOf("llm-1", "llm", "http", 8080, "10.0.0.2"))
	<-told
	awaitServers(t, members, id, "10.0.0.2:8080")
}
