package routing_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/sidecar/routing"
)

var ingress = &routing.Workload{Namespace: "remora-gateway", Labels: map[string]string{"istio": "ingressgateway"}, Gateway: true}

// edge compiles what a gateway has, with a Service named api in namespace default.
func edge(tb testing.TB, yaml string) (*routing.Table, []routing.Problem) {
	tb.Helper()
	in := routing.Objects{Secrets: []routing.Secret{}}
	for doc := range strings.SplitSeq("apiVersion: v1\nkind: Service\nmetadata: {name: api}\nspec: {ports: [{name: http, port: 80}]}\n---\n"+yaml, "\n---\n") {
		if _, err := in.Decode([]byte(doc), "default"); err != nil {
			tb.Fatal(err)
		}
	}
	return routing.Compile(in, ingress)
}

func gatewayWith(name, servers string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: %s}\nspec: {selector: {istio: ingressgateway}, servers: [%s]}\n---\n", name, servers)
}

func virtualWith(name, hosts, http string) string {
	return fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: %s}\nspec: {hosts: [%s], gateways: [edge], http: [%s]}\n---\n", name, hosts, http)
}

const (
	plainServer = `{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}`
	toAPI       = `{route: [{destination: {host: api}}]}`
)

func has(problems []routing.Problem, text string) bool {
	for _, p := range problems {
		if strings.Contains(fmt.Sprintf("%s %s %s", p.Severity, p.Object, p), text) {
			return true
		}
	}
	return false
}

func TestTheMostSpecificHostAtAGatewayIsCalled(t *testing.T) {
	table, problems := edge(t, gatewayWith("edge", plainServer)+
		virtualWith("a", "api.example.com", `{name: exact, route: [{destination: {host: api}}]}`)+
		virtualWith("b", `"*.example.com"`, `{name: suffix, route: [{destination: {host: api}}]}`)+
		virtualWith("c", `"*.deep.example.com"`, `{name: deep, route: [{destination: {host: api}}]}`)+
		virtualWith("d", `short`, `{name: short, route: [{destination: {host: api}}]}`))
	if len(problems) > 0 {
		t.Error(problems)
	}
	f := func(authority, want string) {
		t.Helper()
		l := table.Listener(80)
		got := "none"
		if h := l.Server([]byte(authority)).Host([]byte(authority)); h != nil {
			got = h.Match(bare{}, nil).Name
		}
		if got != want {
			t.Errorf("%s: %s, want %s", authority, got, want)
		}
	}
	f("api.example.com", "exact")
	f("API.Example.com:80", "exact")
	f("api.example.com.", "exact")
	f("x.example.com", "suffix")
	f("x.y.example.com", "suffix")
	f("deep.example.com", "suffix")
	f("x.deep.example.com", "deep")
	f("example.com", "none")
	f(".example.com", "none")
	f("xexample.com", "none")
	f("short", "short")
	f("short.default.svc.cluster.local:80", "short")
	f("short.other", "none")
	f("", "none")
	f("*", "none")
	f("*.example.com", "suffix")
	f("[::1]:80", "none")
	f(strings.Repeat("a.", 400)+"example.com", "none")
	f("bücher.example.com", "suffix")
}

// The name of a call is a stranger's: it may cost nothing but a few look-ups.
func TestAHostAtAGatewayIsFoundWithoutAllocation(t *testing.T) {
	table, _ := edge(t, gatewayWith("edge", plainServer)+virtualWith("a", "api.example.com", toAPI)+virtualWith("b", `"*.example.com"`, toAPI))
	l := table.Listener(80)
	known, foreign := []byte("Api.Example.Com:80"), []byte(strings.Repeat("a.", 120)+"example.org")
	allocations := testing.AllocsPerRun(100, func() {
		if l.Server(known).Host(known) == nil || l.Server(foreign).Host(foreign) != nil {
			t.Error("the host is lost")
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations for each call", allocations)
	}
}

func TestServersThatCannotShareAPortAreSettledByAge(t *testing.T) {
	table, problems := edge(t, gatewayWith("edge, creationTimestamp: '2024-01-01T00:00:00Z'", plainServer)+
		gatewayWith("younger, creationTimestamp: '2024-01-02T00:00:00Z'", `{port: {number: 80, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: x}}, {port: {number: 81, name: other, protocol: HTTP}, hosts: ["*"]}`))
	if l := table.Listener(80); l == nil || l.TLS || len(l.Servers) != 1 {
		t.Errorf("port 80 is %+v", l)
	}
	if table.Listener(81) == nil {
		t.Error("the rest of the younger Gateway is not served")
	}
	if !has(problems, "invalid Gateway default/younger spec.servers[0].port: port 80 is that of Gateway default/edge (server http)") {
		t.Error(problems)
	}
}

func TestAHostOfTwoGatewaysOverTLSIsTheOlderOnes(t *testing.T) {
	server := `{port: {number: 443, name: https, protocol: TLS}, hosts: [a.example.com%s], tls: {mode: PASSTHROUGH}}`
	table, problems := edge(t, gatewayWith("edge, creationTimestamp: '2024-01-01T00:00:00Z'", fmt.Sprintf(server, ""))+
		gatewayWith("younger, creationTimestamp: '2024-01-02T00:00:00Z'", fmt.Sprintf(server, ", b.example.com")))
	l := table.Listener(443)
	if a, b := l.Server([]byte("a.example.com")), l.Server([]byte("b.example.com")); a.Gateway.Name != "edge" || b.Gateway.Name != "younger" {
		t.Errorf("a is of %s, b of %s", a.Gateway, b.Gateway)
	}
	if !has(problems, `invalid Gateway default/younger spec.servers[0].hosts[0]: "a.example.com" at port 443 is that of Gateway default/edge`) {
		t.Error(problems)
	}
}

func TestVirtualServicesOfTwoGatewaysForAllHostsShareAPort(t *testing.T) {
	table, problems := edge(t, gatewayWith("edge", plainServer)+gatewayWith("second", plainServer)+virtualWith("a", "a.example.com", toAPI)+
		strings.Replace(virtualWith("b", "b.example.com", toAPI), "[edge]", "[second]", 1))
	l := table.Listener(80)
	for _, name := range []string{"a.example.com", "b.example.com"} {
		if l.Server([]byte(name)).Host([]byte(name)) == nil {
			t.Errorf("%s is not served", name)
		}
	}
	if !has(problems, `warning Gateway default/second spec.servers[0].hosts[0]: "*" at port 80 is also that of Gateway default/edge`) {
		t.Error(problems)
	}
}

// What each of these is said about, and that nothing else suffers from it.
func TestBadServersOfAGatewayAreNamed(t *testing.T) {
	f := func(server, want string) {
		t.Helper()
		table, problems := edge(t, gatewayWith("edge", server+", {port: {number: 8080, name: good, protocol: HTTP}, hosts: [good.example.com]}")+virtualWith("a", "good.example.com", toAPI))
		if !has(problems, "Gateway default/edge spec.servers[0]"+want) {
			t.Errorf("%s: %v", server, problems)
		}
		if l := table.Listener(8080); l == nil || l.Server([]byte("good.example.com")).Host([]byte("good.example.com")) == nil {
			t.Errorf("%s: the good server suffers from it", server)
		}
	}
	f(`{port: {number: 0, name: x, protocol: HTTP}, hosts: ["*"]}`, ".port.number: 0 is not a port")
	f(`{port: {number: 70000, name: x, protocol: HTTP}, hosts: ["*"]}`, ".port.number: 70000 is not a port")
	f(`{port: {number: 14020, name: x, protocol: HTTP}, hosts: ["*"]}`, ".port.number: 14020 is a port of the gateway itself")
	f(`{port: {number: 80, name: x, protocol: MONGO}, hosts: ["*"]}`, `.port.protocol: "MONGO" is not served`)
	f(`{port: {number: 80, name: x}, hosts: ["*"]}`, `.port.protocol: is required`)
	f(`{port: {number: 80, name: x, protocol: HTTP}}`, `.hosts: is required`)
	f(`{port: {number: 80, name: x, protocol: HTTP}, hosts: ["a.*.example.com"]}`, `.hosts[0]: "a.*.example.com" has a wildcard`)
	f(`{port: {number: 80, name: x, protocol: HTTP}, hosts: ["bücher.example"]}`, `.hosts[0]: "bücher.example" has letters that DNS does not have: write it as DNS has it: xn--bcher-kva.example`)
	f(`{port: {number: 80, name: x, protocol: HTTP}, hosts: ["~/a.example.com"]}`, `.hosts[0]: "~/a.example.com" names no namespace`)
	f(`{port: {number: 80, name: x, protocol: HTTP}, hosts: ["a"], bind: 127.0.0.1}`, `.bind: is not honoured`)
	f(`{port: {number: 443, name: x, protocol: HTTPS}, hosts: ["a"]}`, `.tls: is required`)
	f(`{port: {number: 443, name: x, protocol: HTTPS}, hosts: ["a"], tls: {mode: SIMPLE}}`, `.tls.credentialName: is required`)
	f(`{port: {number: 443, name: x, protocol: HTTPS}, hosts: ["a"], tls: {mode: SIMPLE, credentialName: gone}}`, `.tls.credentialName: Secret remora-gateway/gone is not there`)
	f(`{port: {number: 443, name: x, protocol: HTTPS}, hosts: ["a"], tls: {mode: AUTO_PASSTHROUGH}}`, `.tls.mode: is none that`)
	f(`{port: {number: 443, name: x, protocol: HTTPS}, hosts: ["a"], tls: {mode: MUTUAL, credentialName: x, caCrl: /crl}}`, `.tls.caCrl: is not honoured, so the server lets nobody in`)
	f(`{port: {number: 443, name: x, protocol: HTTPS}, hosts: ["a"], tls: {mode: SIMPLE, credentialName: x, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}}`, `.tls.maxProtocolVersion: is lower`)
	f(`{port: {number: 443, name: x, protocol: HTTPS}, hosts: ["a"], tls: {mode: SIMPLE, credentialName: x, cipherSuites: [DES]}}`, `.tls.cipherSuites: has none that`)
	f(`{port: {number: 443, name: x, protocol: TLS}, hosts: ["a"], tls: {mode: SIMPLE, credentialName: x}}`, `.tls.mode: is SIMPLE with protocol TLS`)
	f(`{port: {number: 80, name: x, protocol: HTTP, targetPort: 8080}, hosts: ["a"]}`, `.port.targetPort: is not honoured`)
	f(`{port: {number: 80, name: x, protocol: HTTP}, hosts: ["a"], defaultEndpoint: "127.0.0.1:80"}`, `.defaultEndpoint: is not honoured`)
}

func TestAServerThatLetsNobodyInSaysWhy(t *testing.T) {
	table, _ := edge(t, gatewayWith("edge", `{port: {number: 443, name: x, protocol: HTTPS}, hosts: ["a.example.com"], tls: {mode: MUTUAL, credentialName: x, verifyCertificateSpki: [x]}}`))
	s := table.Listener(443).Server([]byte("a.example.com"))
	if s.Refusal == nil || !strings.Contains(s.Refusal.Message, "verifyCertificateSpki") {
		t.Errorf("the refusal is %+v", s.Refusal)
	}
}

// A fault in one route refuses the calls that it takes, and no others.
func TestBadRoutesOfAVirtualServiceAreRefusedAlone(t *testing.T) {
	f := func(route, want string) {
		t.Helper()
		bad := "match: [{uri: {prefix: /bad}}]"
		if strings.Contains(route, "match:") {
			bad = ""
		} else {
			route = ", " + route
		}
		table, problems := edge(t, gatewayWith("edge", plainServer)+virtualWith("a", "api.example.com", "{"+bad+route+"}, "+toAPI))
		if !has(problems, "VirtualService default/a spec.http[0]"+want) {
			t.Errorf("%s: %v", route, problems)
		}
		rules := table.Listener(80).Server([]byte("api.example.com")).Host([]byte("api.example.com")).Rules
		if len(rules) == 0 || rules[len(rules)-1].Levels[0].Backends[0].Target == nil {
			t.Fatalf("%s: the other route suffers from it", route)
		}
		for _, r := range rules[:len(rules)-1] {
			if r.Action != nil || len(r.Levels) != 1 || r.Levels[0].Backends[0].Refusal == nil {
				t.Errorf("%s: its calls are not refused: %+v", route, r)
			}
		}
	}
	destination := "route: [{destination: {host: api}}]"
	f("route: []", ".route: is required")
	f("route: [{destination: {host: gone}}]", ".route[0].destination: ")
	f("route: [{destination: {host: ''}}]", ".route[0].destination.host: is required")
	f("route: [{destination: {host: api, port: {number: 99999}}}]", ".route[0].destination.port.number: 99999 is not a port")
	f("route: [{destination: {host: '*.example.com'}}]", ".route[0].destination: ")
	f("route: [{destination: {host: api}}, {destination: {host: api}}]", ".route: every weight is 0")
	f("route: [{destination: {host: api}, weight: -1}, {destination: {host: api}, weight: 5}]", ".route[0].weight: -1 is out of range")
	f("redirect: {uri: /x}, "+destination, ": has more than one of")
	f("redirect: {uri: /x, redirectCode: 200}", ".redirect.redirectCode: 200 is no redirect")
	f("redirect: {uri: \"/x\\r\\nSet-Cookie: a=b\"}", ".redirect.uri: has characters")
	f("redirect: {authority: \"a\\r\\nb\"}", ".redirect.authority: is no host")
	f("redirect: {scheme: javascript}", ".redirect.scheme: is neither")
	f("redirect: {port: 70000}", ".redirect.port: 70000")
	f("directResponse: {status: 101}", ".directResponse.status: 101")
	f("directResponse: {status: 200, body: {bytes: '*'}}", ".directResponse.body.bytes: is not base64")
	f("rewrite: {uri: 'x y'}, "+destination, ".rewrite.uri: does not start with /")
	f("rewrite: {uri: '/x?y'}, "+destination, ".rewrite.uri: has a query")
	f("rewrite: {authority: 'a b'}, "+destination, ".rewrite.authority: is no host")
	f("rewrite: {uriRegexRewrite: {match: '[', rewrite: /}}, "+destination, ".rewrite.uriRegexRewrite.match.regex: is not a regular expression")
	f("fault: {abort: {httpStatus: 99, percentage: {value: 5}}}, "+destination, ".fault.abort.httpStatus: 99")
	f("fault: {delay: {fixedDelay: 1s, percentage: {value: 101}}}, "+destination, ".fault.delay.percentage.value: 101 is out of range")
	f("timeout: -1s, "+destination, ".timeout: -1s is negative")
	f("delegate: {name: x}", ".delegate: is not honoured")
	f("match: [{headers: {x: {regex: '('}}}], "+destination, ".match[0].headers[x].regex: is not a regular expression")
	f("match: [{headers: {x: {regex: '((a{30}){30}){30}'}}}], "+destination, ".match[0].headers[x].regex: ")
	f("match: [{headers: {Connection: {exact: x}}}], "+destination, ".match[0].headers[Connection]: Connection belongs to the connection")
	f("match: [{uri: {prefix: /a, exact: /b}}], "+destination, ".match[0].uri: gives more than one")
	f("match: [{uri: {glob: /a}}], "+destination, ".match[0].uri.glob: is not honoured")
	f("match: [{clientCertificate: {}}], "+destination, ".match[0].clientCertificate: is not honoured")
}

// The expressions of everybody are held by one process.
func TestRegularExpressionsOfAllVirtualServicesTogetherAreBounded(t *testing.T) {
	in := routing.Objects{Services: []routing.Service{{Namespace: "default", Name: "api", Ports: []routing.ServicePort{{Number: 80}}}}}
	regex := strings.Repeat(`\pL`, 300)
	for i := range 500 {
		v := istio.VirtualService{}
		v.Name, v.Namespace = fmt.Sprintf("v%d", i), "default"
		v.Spec.Hosts, v.Spec.Gateways = []string{fmt.Sprintf("h%d.example.com", i)}, []string{"edge"}
		v.Spec.HTTP = []istio.HTTPRoute{{Match: []istio.HTTPMatchRequest{{URI: &istio.StringMatch{Regex: &regex}}}, Route: []istio.HTTPRouteDestination{{Destination: istio.Destination{Host: "api"}}}}}
		in.VirtualServices = append(in.VirtualServices, v)
	}
	if problems := routing.Judge(in); !has(problems, "regex: does not fit any more") || !has(problems, "VirtualService default/v99 ") {
		t.Errorf("%d problems, none of which is that", len(problems))
	}
}

func TestTenThousandVirtualServicesAreCompiledInReasonableTime(t *testing.T) {
	in := routing.Objects{Secrets: []routing.Secret{}}
	g := istio.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "edge", Namespace: "default"}}
	g.Spec.Servers = []istio.Server{{Port: istio.Port{Number: 80, Protocol: "HTTP"}, Hosts: []string{"*"}}}
	in.Gateways = append(in.Gateways, g)
	prefix := "/v1/"
	for i := range 10_000 {
		v := istio.VirtualService{}
		v.Name, v.Namespace = fmt.Sprintf("v%d", i), "default"
		v.Spec.Hosts, v.Spec.Gateways = []string{fmt.Sprintf("h%d.example.com", i)}, []string{"edge"}
		service := fmt.Sprintf("api-%d", i%1000)
		route := []istio.HTTPRouteDestination{{Destination: istio.Destination{Host: service}}}
		v.Spec.HTTP = []istio.HTTPRoute{{Match: []istio.HTTPMatchRequest{{URI: &istio.StringMatch{Prefix: &prefix}}}, Route: route}, {Route: route}}
		in.VirtualServices = append(in.VirtualServices, v)
		if i < 1000 {
			in.Services = append(in.Services, routing.Service{Namespace: "default", Name: service, Ports: []routing.ServicePort{{Number: 80}}})
		}
	}
	start := time.Now()
	table, problems := routing.Compile(in, ingress)
	if took := time.Since(start); took > 20*time.Second { // it is under a second on one core that is free
		t.Errorf("they take %s", took)
	} else {
		t.Logf("they take %s", took)
	}
	if len(problems) > 0 {
		t.Errorf("%d problems, the first: %s", len(problems), problems[0])
	}
	l, name := table.Listener(80), []byte("h9999.example.com")
	if h := l.Server(name).Host(name); h == nil || h.Rules[0].Levels[0].Backends[0].Target == nil {
		t.Error("the last of them is not served")
	}
}

func BenchmarkEdgeHost(b *testing.B) {
	var yaml strings.Builder
	for i := range 1000 {
		yaml.WriteString(virtualWith(fmt.Sprintf("v%d", i), fmt.Sprintf("h%d.example.com", i), toAPI))
	}
	table, _ := edge(b, gatewayWith("edge", plainServer)+yaml.String()+virtualWith("wild", `"*.example.org"`, toAPI))
	for name, authority := range map[string]string{"exact": "h999.example.com:80", "suffix": "x.example.org", "deep and foreign": strings.Repeat("a.", 120) + "example.net"} {
		b.Run(name, func(b *testing.B) {
			asked := []byte(authority)
			b.ReportAllocs()
			for b.Loop() {
				l := table.Listener(80)
				if h := l.Server(asked).Host(asked); h != nil {
					h.Match(bare{}, nil)
				}
			}
		})
	}
}
