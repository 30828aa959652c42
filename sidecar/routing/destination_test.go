package routing_test

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/sidecar/routing"
)

const callingAPI = `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMRoute
metadata: {name: demo}
spec: {host: demo, rules: [{backendRefs: [{backendRef: {name: api, port: 80}}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {ports: [{name: http, port: 80}]}
---
`

// ruleOf gives a DestinationRule of namespace default.
func ruleOf(name, spec string) string {
	return "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

// backendOf gives the line of the table for the route's one backend, after its shares.
func backendOf(t *testing.T, table *routing.Table) string {
	t.Helper()
	var b bytes.Buffer
	if _, err := table.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(b.String(), "0: 1/1 ")
	line, _, _ = strings.Cut(line, "\n")
	return line
}

const callsAPI = "http://api.default.svc:80/v1/chat/completions servers=Service/default/api:http balance="

func TestADestinationRuleThatIsWrongIsTakenAsFarAsItGoes(t *testing.T) {
	f := func(spec, wantBackend string, wantSaid ...string) {
		t.Helper()
		in := decodeAll(t, []byte(callingAPI+ruleOf("r", spec)))
		table, problems := routing.Compile(in, &routing.Workload{Namespace: "default"})
		if got := backendOf(t, table); got != wantBackend {
			t.Errorf("%s:\ngot  %s\nwant %s", spec, got, wantBackend)
		}
		var said []string
		for _, p := range problems {
			if p.Object.Kind == istio.KindDestinationRule {
				if p.Severity != routing.Warning {
					t.Errorf("%s: %s is more than a warning", spec, p)
				}
				said = append(said, p.Field+": "+p.Message)
			}
		}
		if len(said) != len(wantSaid) {
			t.Fatalf("%s: said %q", spec, said)
		}
		for i := range said {
			if !strings.HasPrefix(said[i], wantSaid[i]) {
				t.Errorf("%s:\nsaid %s\nwant %s", spec, said[i], wantSaid[i])
			}
		}
	}
	const p = "spec.trafficPolicy."
	f("{host: api, trafficPolicy: {loadBalancer: {simple: RANDOM}}}", callsAPI+"RANDOM")
	f("{host: api, trafficPolicy: {loadBalancer: {simple: UNSPECIFIED}}}", callsAPI+"LEAST_REQUEST")
	f("{host: api, trafficPolicy: {loadBalancer: {simple: LEAST_TOKENS}}}", callsAPI+"LEAST_TOKENS")
	f("{host: API, trafficPolicy: {loadBalancer: {simple: RANDOM}}}", callsAPI+"RANDOM")
	f("{host: api, trafficPolicy: {loadBalancer: [RANDOM]}}", callsAPI+"LEAST_REQUEST", p+"loadBalancer: is a list")
	f("{host: api, trafficPolicy: RANDOM}", callsAPI+"LEAST_REQUEST", "spec.trafficPolicy: is a string")
	f("{host: api, trafficPolicy: null, subsets: null}", callsAPI+"LEAST_REQUEST")
	f("{host: api, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s, aggression: 1e308}}}}", callsAPI+"ROUND_ROBIN,warmup=30s", p+"loadBalancer.warmup.aggression: 1e+308 is out of range")
	f("{host: api, trafficPolicy: {loadBalancer: {warmup: {duration: 100000h}}}}", callsAPI+"LEAST_REQUEST", p+"loadBalancer.warmup.duration: 100000h0m0s is out of range")
	f("{host: api, trafficPolicy: {loadBalancer: {warmup: {duration: 99999999999h}}}}", callsAPI+"LEAST_REQUEST",
		p+"loadBalancer.warmup.duration: is not a duration", p+"loadBalancer.warmup.duration: is required")
	f("{host: api, trafficPolicy: {loadBalancer: {warmup: {duration: 30s, minimumPercent: -1}}}}", callsAPI+"LEAST_REQUEST,warmup=30s", p+"loadBalancer.warmup.minimumPercent: -1 is out of range")
	f("{host: api, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 9000000000000000000}}}}}",
		callsAPI+"CONSISTENT_HASH,source-ip,ring=131072", p+"loadBalancer.consistentHash.ringHash.minimumRingSize: 9000000000000000000 would take too much memory: 131072 is used")
	f("{host: api, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 655372}}}}}",
		callsAPI+"CONSISTENT_HASH,source-ip,maglev=655373", p+"loadBalancer.consistentHash.maglev.tableSize: 655372 is not a prime number")
	f("{host: api, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: -5}}}}}",
		callsAPI+"CONSISTENT_HASH,source-ip,maglev=65537", p+"loadBalancer.consistentHash.maglev.tableSize: -5 is negative")
	f("{host: api, trafficPolicy: {connectionPool: {tcp: {maxConnections: 2147483647}, http: {http1MaxPendingRequests: -1}}}}",
		callsAPI+"LEAST_REQUEST connections=65535", p+"connectionPool.http.http1MaxPendingRequests: -1 is out of range")
	f("{host: api, trafficPolicy: {connectionPool: {tcp: {maxConnections: 99999999999, connectTimeout: 0s}}}}", callsAPI+"LEAST_REQUEST",
		p+"connectionPool.tcp.connectTimeout: 0s is too short", p+"connectionPool.tcp.maxConnections: 99999999999 is far out of range")
	f("{host: api, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 4294967295, baseEjectionTime: 900h, maxEjectionPercent: 101, minHealthPercent: -1}}}",
		callsAPI+"LEAST_REQUEST,max-ejected=10% eject-after=65535 ejection=24h0m0s",
		p+"outlierDetection.baseEjectionTime: 900h0m0s is over 24h", p+"outlierDetection.maxEjectionPercent: 101 is not a percentage", p+"outlierDetection.minHealthPercent: -1 is not a percentage")
	f("{host: api, trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}, {port: {number: 80}}, {port: {number: 70000}}, {}]}}", callsAPI+"RANDOM",
		p+"portLevelSettings[1].port.number: 80 has settings already", p+"portLevelSettings[2].port.number: 70000 is not a port", p+"portLevelSettings[3].port.number: 0 is not a port")
	f("{host: api, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}, portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}}", callsAPI+"RANDOM")
	f("{host: api, subsets: [{name: a, labels: {v: 'x y'}}, {name: a}, {labels: {v: x}}]}", callsAPI+"LEAST_REQUEST",
		"spec.subsets[0].labels[v]: \"x y\" cannot be the value of a label", "spec.subsets[1].name: \"a\" is the name of an earlier subset", "spec.subsets[2].name: is required")
	f("{host: api, workloadSelector: {matchLabels: {app: other}}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}", callsAPI+"LEAST_REQUEST")
	f("{host: api, exportTo: [elsewhere], trafficPolicy: {loadBalancer: {simple: RANDOM}}}", callsAPI+"RANDOM") // its own namespace it is always for
	f("{host: '*', trafficPolicy: {loadBalancer: {simple: RANDOM}}}", callsAPI+"RANDOM")
	f("{host: '*.local', trafficPolicy: {loadBalancer: {simple: RANDOM}}}", callsAPI+"RANDOM")
	for _, host := range []string{"''", "5", "null", "other", "'*api'", "'*.*.local'", "api.other", "api.example.com", "'*.other.svc.cluster.local'", "'[::1]'"} {
		f("{host: "+host+", trafficPolicy: {loadBalancer: {simple: RANDOM}}}", callsAPI+"LEAST_REQUEST")
	}
	f("{host: api, trafficPolicy: {loadBalancer: {simple: FASTEST}}}", callsAPI+"LEAST_REQUEST", p+`loadBalancer.simple: "FASTEST" is not a policy`)
	// What says that there is TLS never leads to plain text.
	for _, tls := range []string{"{mode: 5}", "{mode: simple}", "SIMPLE", "{mode: ISTIO_MUTUAL}", "{mode: MUTUAL}", "{mode: MUTUAL, credentialName: 5}", "[]"} {
		in := decodeAll(t, []byte(callingAPI+ruleOf("r", "{host: api, trafficPolicy: {tls: "+tls+"}}")))
		table, _ := routing.Compile(in, &routing.Workload{Namespace: "default"})
		if got := backendOf(t, table); !strings.HasPrefix(got, "refused InvalidConfiguration: ") {
			t.Errorf("tls %s: %s", tls, got)
		}
	}
	f("{host: api, trafficPolicy: {tls: {mode: SIMPLE, sni: 'a b', insecureSkipVerify: true}}}",
		strings.Replace(callsAPI, "http:", "https:", 1)+"LEAST_REQUEST",
		p+"tls.insecureSkipVerify: is not honoured", p+"tls.sni: \"a b\" is not a host name")
}

func TestOfTwoDestinationRulesForOneHostTheOldestCountsAndTheOtherIsNamed(t *testing.T) {
	docs := callingAPI + ruleOf("b-older", "{host: api, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {v: '1'}}]}") +
		ruleOf("a-younger", "{host: api.default.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}, subsets: [{name: v1, labels: {v: x}}, {name: v2}]}") +
		ruleOf("c-general", "{host: '*.svc.cluster.local', trafficPolicy: {loadBalancer: {simple: LEAST_TOKENS}}}")
	in := decodeAll(t, []byte(docs))
	for i := range in.DestinationRules {
		r := &in.DestinationRules[i]
		r.CreationTimestamp.Time = time.Date(2026, 1, map[string]int{"b-older": 1, "a-younger": 2, "c-general": 3}[r.Name], 0, 0, 0, 0, time.UTC)
	}
	for range 2 {
		table, problems := routing.Compile(in, nil)
		if got := backendOf(t, table); got != callsAPI+"RANDOM" {
			t.Errorf("got %s", got)
		}
		var said []string
		for _, p := range problems {
			said = append(said, p.Object.Name+" "+p.Field+" "+string(p.Code))
			if !strings.Contains(p.Message, "DestinationRule default/b-older") {
				t.Errorf("the other is not named: %s", p)
			}
		}
		if want := []string{"a-younger spec.subsets[0].name HostConflict", "a-younger spec.trafficPolicy HostConflict"}; !slices.Equal(said, want) {
			t.Errorf("said %q, want %q", said, want)
		}
		slices.Reverse(in.DestinationRules)
	}
}

func TestTenThousandSubsetsAndRulesAreSoonDone(t *testing.T) {
	var spec strings.Builder
	spec.WriteString("{host: api, unknown: 1, subsets: [")
	for i := range 10_000 {
		fmt.Fprintf(&spec, "{name: s%d, labels: {v: 'bad value %d'}, trafficPolicy: {tunnel: {}, loadBalancer: {simple: X}}},", i%9000, i)
	}
	spec.WriteString("]}")
	docs := callingAPI + ruleOf("large", spec.String())
	in := decodeAll(t, []byte(docs))
	for i := range 10_000 {
		in.DestinationRules = append(in.DestinationRules, istio.DestinationRule{Spec: istio.DestinationRuleSpec{Host: fmt.Sprintf("*.s%d.local", i)}})
		in.DestinationRules[i+1].Name, in.DestinationRules[i+1].Namespace = fmt.Sprintf("r%d", i), "default"
	}
	before := time.Now()
	_, problems := routing.Compile(in, &routing.Workload{Namespace: "default"})
	if took := time.Since(before); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if len(problems) == 0 || len(problems) > 200 {
		t.Errorf("%d problems", len(problems))
	}
}

// Whatever DestinationRules, Services and pools there are, they own no host in a sidecar, the input stays as it is, Judge says what
// Compile says, and twice the same comes out.
func TestWhatIsKnownOfTheClusterChangesNoHost(t *testing.T) {
	own := "---\napiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: p}\nspec: {host: api, port: 80, tls: {mode: DISABLE}, trafficPolicy: {loadBalancer: {}}}\n" +
		"---\napiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: r}\nspec: {host: demo, rules: [{backendRefs: [{backendRef: {name: api}}, {backendRef: {name: gone, port: 80}}, {backendRef: {group: inference.networking.k8s.io, name: pool}}]}]}\n"
	service := func(spec string) string {
		return "---\napiVersion: v1\nkind: Service\nmetadata: {name: api}\nspec: " + spec + "\n"
	}
	bare := decodeAll(t, []byte(own))
	w := &routing.Workload{Namespace: "default"}
	table, _ := routing.Compile(bare, w)
	hosts := func(table *routing.Table) (names []string) {
		for _, name := range []string{"api", "api.default.svc", "demo", "gone", "pool", "reviews", "api.default.inferencepool.invalid", "x.svc", "*"} {
			if table.Host([]byte(name)) != nil {
				names = append(names, name)
			}
		}
		return names
	}
	want := hosts(table)
	for _, more := range []string{
		"", service("{}"), service("{clusterIP: None}"), service("{ports: [{port: 0}, {port: 99999}]}"), service("{ports: [{port: 80}, {port: 80, name: twin}]}"),
		service("{ports: [{port: 80}]}") + service("{ports: [{port: 81}]}"), service("{type: ExternalName, externalName: 'x y'}"), service("{type: ExternalName, externalName: api}"),
		service("{ports: [{port: 80}]}") + ruleOf("r", "{host: api, trafficPolicy: {loadBalancer: {simple: RANDOM}}}") + ruleOf("r", "{host: api}"),
		service("{ports: [{port: 80}]}") + ruleOf("r", "{host: reviews, trafficPolicy: {tls: {mode: SIMPLE}}}") + ruleOf("s", "{host: '*'}"),
		"---\napiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: pool}\nspec: {targetPorts: [{number: 0}]}\n",
		"---\napiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\nmetadata: {name: pool}\nspec: 5\n",
	} {
		in, same := decodeAll(t, []byte(own+more)), decodeAll(t, []byte(own+more))
		table, problems := routing.Compile(in, w)
		if got := hosts(table); !slices.Equal(got, want) {
			t.Errorf("%s: owned %q, want %q", more, got, want)
		}
		if !reflect.DeepEqual(in, same) {
			t.Errorf("%s: the input is changed", more)
		}
		again, _ := routing.Compile(in, w)
		if again.Generation() != table.Generation() {
			t.Errorf("%s: it comes out differently", more)
		}
		_, any := routing.Compile(in, nil)
		if judged := routing.Judge(in); !slices.Equal(judged, any) {
			t.Errorf("%s: Judge says %v, Compile %v", more, judged, any)
		}
		for _, p := range problems {
			if p.Message == "" || p.Code == "" || strings.Contains(p.String(), "%!") {
				t.Errorf("a problem without words: %#v", p)
			}
		}
	}
}

func TestAChangeOfAnyPartOfADestinationRuleChangesTheGeneration(t *testing.T) {
	seen := map[string]string{}
	for _, spec := range []string{
		"{host: other}", "{host: api, trafficPolicy: {loadBalancer: {simple: RANDOM}}}", "{host: api, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}",
		"{host: api, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: a}}}}", "{host: api, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: b}}}}",
		"{host: api, trafficPolicy: {loadBalancer: {consistentHash: {httpQueryParameterName: a}}}}", "{host: api, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: a}}}}}",
		"{host: api, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: a, ttl: 0s}}}}}", "{host: api, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: a, ttl: 5s}}}}}",
		"{host: api, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: a, path: /}}}}}", "{host: api, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: a, maglev: {}}}}}",
		"{host: api, trafficPolicy: {loadBalancer: {localityLbSetting: {}}}}", "{host: api, trafficPolicy: {loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}}}",
		"{host: api, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 100}}]}}}}", "{host: api, trafficPolicy: {loadBalancer: {warmupDurationSecs: 5s}}}",
		"{host: api, trafficPolicy: {outlierDetection: {}}}", "{host: api, trafficPolicy: {outlierDetection: {minHealthPercent: 5}}}", "{host: api, trafficPolicy: {outlierDetection: {consecutiveErrors: 5}}}",
		"{host: api, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 5}}}}", "{host: api, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 5}}}}",
		"{host: api, trafficPolicy: {connectionPool: {http: {idleTimeout: 5s}}}}", "{host: api, trafficPolicy: {tls: {mode: SIMPLE}}}", "{host: api, trafficPolicy: {tls: {mode: SIMPLE, sni: a.example}}}",
	} {
		table, _ := routing.Compile(decodeAll(t, []byte(callingAPI+ruleOf("r", spec))), &routing.Workload{Namespace: "default"})
		if other := seen[table.Generation()]; other != "" {
			t.Errorf("%s is the same as %s", spec, other)
		}
		seen[table.Generation()] = spec
	}
}
