package routing_test

import (
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

// A gateway reaches what a VirtualService's own namespace has, what its own has, and what is exported.
func TestAGatewayReachesWhatIsExportedToTheNamespaceOfTheRule(t *testing.T) {
	f := func(services, host, want string) {
		t.Helper()
		in := decodeAll(t, []byte("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: edge}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}\n"+
			"---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [a.example.com], gateways: [edge/g], http: [{route: [{destination: {host: "+host+"}}]}]}\n---\n"+services))
		table, _ := routing.Compile(in, &routing.Workload{Namespace: "edge", Labels: map[string]string{"istio": "ingressgateway"}, Gateway: true})
		if got := backendOf(t, table); !strings.HasPrefix(got, want) {
			t.Errorf("%s, %s:\ngot  %s\nwant %s", services, host, got, want)
		}
	}
	const ports = "\nspec: {ports: [{port: 80}]}\n"
	service := func(meta string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: api, " + meta + "}" + ports
	}
	exported := func(to string) string {
		return service("namespace: other, annotations: {networking.istio.io/exportTo: '" + to + "'}")
	}
	const there, refused = "http://api.other.svc:80 servers=Service/other/api", "refused ServiceNotExported: Service other/api is of another namespace, and is not exported to default"
	f(service("namespace: default"), "api", "http://api.default.svc:80 servers=Service/default/api")
	f(service("namespace: edge"), "api.edge.svc.cluster.local", "http://api.edge.svc:80 servers=Service/edge/api")
	f(service("namespace: other"), "api.other.svc.cluster.local", refused)
	f(exported("*"), "api.other.svc.cluster.local", there)
	f(exported("x, default"), "api.other.svc", there)
	for _, to := range []string{"", ".", "edge", "defaul", "other", "~", "default.svc", "DEFAULT"} {
		f(exported(to), "api.other.svc.cluster.local", refused)
	}
	f(service("namespace: default"), "api.example.com", "refused ServiceNotFound")
	f(service("namespace: default"), "'*'", "refused ")

	external := func(name string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: out, namespace: default}\nspec: {type: ExternalName, externalName: " + name + ", ports: [{port: 443, appProtocol: https}]}\n---\n" + service("namespace: other")
	}
	f(external("llm.example.com"), "out", "https://llm.example.com:443")
	f(external("deepseek.com"), "out", "https://deepseek.com:443")
	f(external("api.other.svc.cluster.local"), "out", refused)
	f(external("API.other.svc."), "out", refused)
	for _, name := range []string{"localhost", "x.localhost", "127.0.0.1", "169.254.169.254", "0.0.0.0", "'::1'", "'a b'", "'*.example.com'"} {
		f(external(name), "out", "refused ")
	}
}
