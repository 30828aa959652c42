package routing

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestAServiceIsReadWithItsPortsAndWhoMayUseIt(t *testing.T) {
	f := func(doc, want string) {
		t.Helper()
		var in Objects
		if _, err := in.Decode([]byte("apiVersion: v1\nkind: Service\nmetadata: {name: api"+doc), "team"); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%+v", in.Services); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", doc, got, want)
		}
	}
	f("}\nspec: {type: LoadBalancer, selector: {app: x}, ports: [{port: 80, targetPort: 8080, name: http, appProtocol: https}]}",
		"[{Namespace:team Name:api ExternalName: Headless:false Ports:[{Name:http Number:80 AppProtocol:https}] ExportTo:[]}]")
	f(", namespace: other, annotations: {networking.istio.io/exportTo: ' a ,., * ,'}}\nspec: {clusterIP: None, ports: [{port: 53, protocol: UDP}, {port: 70000}, {port: 0}, {port: -1}, {port: 81}]}",
		"[{Namespace:other Name:api ExternalName: Headless:true Ports:[{Name: Number:81 AppProtocol:}] ExportTo:[a . *]}]")
	f("}\nspec: {type: ExternalName, externalName: LLM.Example.com.}",
		"[{Namespace:team Name:api ExternalName:llm.example.com Headless:false Ports:[] ExportTo:[]}]")
	f("}\nspec: {externalName: ignored.example.com, ports: [5, {port: x}, {port: 80.0}], type: 7}",
		"[{Namespace:team Name:api ExternalName: Headless:false Ports:[{Name: Number:80 AppProtocol:}] ExportTo:[]}]")
	f("}", "[{Namespace:team Name:api ExternalName: Headless:false Ports:[] ExportTo:[]}]")
	f("}\nspec: 5\nspec: {ports: [{port: 80}]}", "[{Namespace:team Name:api ExternalName: Headless:false Ports:[{Name: Number:80 AppProtocol:}] ExportTo:[]}]")
}

func TestAnInferencePoolIsReadWithItsPorts(t *testing.T) {
	var in Objects
	for _, version := range []string{"inference.networking.k8s.io/v1", "inference.networking.x-k8s.io/v1alpha2"} {
		if _, err := in.Decode([]byte("apiVersion: "+version+"\nkind: InferencePool\nmetadata: {name: vllm}\nspec: {selector: {matchLabels: {app: vllm}}, targetPorts: [{number: 8000}, {number: 8001}, {number: 8000}, {number: 99999}], endpointPickerRef: {name: epp, port: {number: 9002}}}"), "team"); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := fmt.Sprintf("%+v", in.InferencePools), "[{Namespace:team Name:vllm TargetPorts:[8000 8001] Selector:map[app:vllm]}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func slice(t *testing.T, doc string) EndpointSlice {
	t.Helper()
	s, err := DecodeEndpointSlice([]byte("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s\n"+doc), "team")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const ofAPI = "  labels: {kubernetes.io/service-name: api}\n"

func TestServersAreTheEndpointsThatTakeCallsByPort(t *testing.T) {
	f := func(name string, want map[string]string, docs ...string) {
		t.Helper()
		var all []EndpointSlice
		for _, doc := range docs {
			all = append(all, slice(t, doc))
		}
		for range 2 { // the order of slices decides nothing
			got := map[string]string{}
			for id, servers := range ServersOf(all) {
				var list []string
				for _, s := range servers {
					text := fmt.Sprintf("%s:%d", s.Address, s.Port)
					if s.Draining {
						text += " draining"
					}
					if s.Zone+s.Node != "" || s.ForZones != nil {
						text += fmt.Sprintf(" zone=%s node=%s for=%s", s.Zone, s.Node, s.ForZones)
					}
					list = append(list, text)
				}
				got[strings.Join([]string{id.Kind, id.Namespace, id.Name, id.Subset, id.Port}, "/")] = strings.Join(list, ", ")
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s:\ngot  %q\nwant %q", name, got, want)
			}
			slices.Reverse(all)
		}
	}
	f("ready, by their ports", map[string]string{"Service/team/api//http": "10.0.0.1:8080, 10.0.0.2:8080", "Service/team/api//": "10.0.0.1:9090, 10.0.0.2:9090"},
		ofAPI+"ports: [{name: http, port: 8080}, {port: 9090, protocol: TCP}, {name: dns, port: 53, protocol: UDP}, {name: all}, {name: bad, port: 70000}]\nendpoints: [{addresses: [10.0.0.2]}, {addresses: [10.0.0.1, 10.9.9.9]}]")
	f("not ready, terminating, draining", map[string]string{"Service/team/api//": "10.0.0.1:1, 10.0.0.3:1 draining"},
		ofAPI+"ports: [{port: 1}]\nendpoints: [{addresses: [10.0.0.1], conditions: {ready: true}}, {addresses: [10.0.0.2], conditions: {ready: false}}, {addresses: [10.0.0.3], conditions: {ready: false, serving: true, terminating: true}}, {addresses: [10.0.0.4], conditions: {ready: false, serving: false, terminating: true}}]")
	f("with zones and hints", map[string]string{"Service/team/api//": "10.0.0.1:1 zone=z1 node=n1 for=[z1 z2]"},
		ofAPI+"ports: [{port: 1}]\nendpoints: [{addresses: [10.0.0.1], zone: z1, nodeName: n1, hints: {forZones: [{name: z2}, {name: z1}]}}]")
	f("in two families", map[string]string{"Service/team/api//": "10.0.0.1:1"},
		ofAPI+"addressType: IPv4\nports: [{port: 1}]\nendpoints: [{addresses: [10.0.0.1]}]", ofAPI+"addressType: IPv6\nports: [{port: 1}]\nendpoints: [{addresses: ['fd00::1']}]")
	f("in IPv6 only", map[string]string{"Service/team/api//": "fd00::1:1"}, ofAPI+"ports: [{port: 1}]\nendpoints: [{addresses: ['fd00::1']}]")
	f("by name, and what is no address", map[string]string{"Service/team/api//": "a.example.com:1"},
		ofAPI+"ports: [{port: 1}]\nendpoints: [{addresses: [a.example.com]}, {addresses: ['a b']}, {addresses: []}, {addresses: ['0.0.0.0']}, {addresses: ['']}, {addresses: ['fe80::1%eth0']}]")
	f("moving between slices", map[string]string{"Service/team/api//": "10.0.0.1:1"},
		ofAPI+"ports: [{port: 1}]\nendpoints: [{addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}]", ofAPI+"ports: [{port: 1}]\nendpoints: [{addresses: [10.0.0.1]}]")
	f("none", map[string]string{"Service/team/api//": ""}, ofAPI+"ports: [{port: 1}]\nendpoints: null")
	f("of nobody", map[string]string{}, "ports: [{port: 1}]\nendpoints: [{addresses: [10.0.0.1]}]")
	f("of a subset and a pool", map[string]string{
		"Service/team/api/version=v1/http": "10.0.0.1:1", "InferencePool/team/vllm//8000": "10.0.0.1:8000", "InferencePool/team/vllm//8001": "10.0.0.1:8001",
		"InferencePool/team/vllm//": "10.0.0.1:8000, 10.0.0.1:8001",
	},
		"  labels: {remora.dev/servers: subset}\n  annotations: {remora.dev/servers-of: api, remora.dev/servers-subset: version=v1}\nports: [{name: http, port: 1}]\nendpoints: [{addresses: [10.0.0.1]}]",
		"  labels: {remora.dev/servers: pool}\n  annotations: {remora.dev/servers-of: vllm}\nports: [{name: '8000', port: 8000}, {name: '8001', port: 8001}]\nendpoints: [{addresses: [10.0.0.1]}]")
}

func TestWhatIsNoEndpointSliceIsAnError(t *testing.T) {
	for _, doc := range []string{"", "5", "{", "[]", "metadata: {name: s}\nendpoints: 5", "metadata: {}", `{"metadata":{"name":"s"},"ports":[{"port":"x"}]}`, "a: b: c"} {
		if s, err := DecodeEndpointSlice([]byte(doc), "team"); !errors.Is(err, ErrNotAnObject) {
			t.Errorf("%q: %+v, %v", doc, s, err)
		}
	}
}
