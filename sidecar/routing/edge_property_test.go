package routing_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

// wild draws a tree that looks like a spec of Istio's: fields that there are, with values that fit and values that do not.
type wild struct{ *rand.Rand }

func (w wild) one(of ...any) any {
	switch v := of[w.IntN(len(of))].(type) {
	case func() any:
		return v()
	default:
		return v
	}
}

func (w wild) host() any {
	if w.IntN(2) == 0 {
		return w.one("api", "a.example.com", "canary", "*.example.com")
	}
	return w.one("api", "api.default", "api.default.svc.cluster.local", "gone", "canary", "*", "*.example.com", "a.example.com", "a.*.com", "BÜCHER.example", "[::1]", "other.elsewhere", "",
		"x/y", "./a.example.com", "default/*", 7, nil)
}

func (w wild) text() any {
	if w.IntN(2) == 0 {
		return w.one("/", "/v1", "x")
	}
	return w.one("/", "/v1", "/v1/chat/completions", "", "x", "a b", "[", "(a|b)*", `\pL{900}`, strings.Repeat("a", 2000), "https", 5, nil, []any{})
}

func (w wild) match() any {
	return w.one(map[string]any{"exact": w.text()}, map[string]any{"prefix": w.text()}, map[string]any{"regex": w.text()}, map[string]any{}, map[string]any{"exact": "a", "prefix": "b"}, w.text())
}

// some draws a map with some of these fields: mostly those without which there is nothing else to see.
func (w wild) some(fields map[string]func() any) any {
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		often := slices.Contains([]string{"hosts", "gateways", "http", "route", "destination", "tls"}, name)
		if often && w.IntN(10) > 0 || !often && w.IntN(6) == 0 {
			out[name] = fields[name]()
		}
	}
	if w.IntN(60) == 0 {
		out["unheard"] = 1
	}
	return out
}

func (w wild) list(f func() any) func() any {
	return func() any {
		var out []any
		for range w.IntN(3) + w.IntN(2) {
			out = append(out, f())
		}
		if w.IntN(30) == 0 {
			return w.one(nil, "x")
		}
		return out
	}
}

func (w wild) number() any {
	if w.IntN(2) == 0 {
		return w.one(1, 80, 443, 200, 50, 301)
	}
	return w.one(0, 1, 80, 443, 8000, 14001, 70000, -1, 0.5, 1e300, "80", nil)
}

func (w wild) destination() any {
	return w.some(map[string]func() any{
		"destination": func() any {
			return map[string]any{"host": w.host(), "subset": w.one("v1", "", nil), "port": map[string]any{"number": w.one(80, 8000, nil, w.number())}}
		},
		"weight": w.number, "headers": w.headers,
	})
}

func (w wild) headers() any {
	edit := func() any {
		return map[string]any{"set": map[string]any{"x": w.text(), ":authority": w.text(), "Host": "b"}, "add": map[string]any{"content-length": "5"}, "remove": []any{"x", "connection", 5}}
	}
	return map[string]any{"request": edit(), "response": edit()}
}

func (w wild) http() any {
	matches := func() any {
		return w.some(map[string]func() any{
			"uri": w.match, "method": w.match, "authority": w.match, "scheme": w.match, "port": w.number, "ignoreUriCase": func() any { return true },
			"headers": func() any { return map[string]any{"x": w.match(), "te": w.match(), "a b": w.match()} }, "withoutHeaders": func() any { return map[string]any{"x": w.match()} },
			"queryParams": func() any { return map[string]any{"": w.match(), "q": w.match()} }, "gateways": w.list(func() any { return w.one("mesh", "edge", "default/edge", "/", "") }),
			"sourceLabels": func() any { return map[string]any{"app": w.one("chat", "x y", 5)} }, "sourceNamespace": func() any { return w.one("default", "x") }, "statPrefix": w.text,
		})
	}
	return w.some(map[string]func() any{
		"name": w.text, "match": w.list(matches), "route": w.list(w.destination), "timeout": func() any { return w.one("5s", "-5s", "x", 0) }, "headers": w.headers,
		"redirect": func() any {
			return map[string]any{"uri": w.text(), "redirectCode": w.number(), "prefixRewrite": w.one("/x", nil), "port": w.number(), "derivePort": w.text()}
		},
		"directResponse": func() any {
			return map[string]any{"status": w.number(), "body": w.one(nil, map[string]any{"string": w.text()}, map[string]any{"bytes": w.text()})}
		},
		"rewrite": func() any {
			return map[string]any{"uri": w.text(), "authority": w.text(), "uriRegexRewrite": w.one(nil, map[string]any{"match": w.text(), "rewrite": w.text()})}
		},
		"fault": func() any {
			return map[string]any{"delay": map[string]any{"fixedDelay": w.one("1s", "-1s", "x"), "percentage": map[string]any{"value": w.number()}}, "abort": map[string]any{"httpStatus": w.number(), "percentage": map[string]any{"value": w.number()}}}
		},
		"mirror": func() any { return map[string]any{"host": w.host()} }, "mirrors": w.list(w.destination), "mirrorPercentage": func() any { return map[string]any{"value": w.number()} },
		"retries":  func() any { return map[string]any{"attempts": w.number(), "retryOn": w.text(), "perTryTimeout": "1s"} },
		"delegate": func() any { return map[string]any{"name": "x"} },
	})
}

func (w wild) objects() (docs []map[string]any) {
	names := func() any { return w.one("mesh", "edge", "edge", "edge", "default/edge", "second", "./edge", "", 5) }
	for i := range 4 {
		docs = append(docs, map[string]any{"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": map[string]any{"name": fmt.Sprintf("v%d", i), "namespace": w.one("default", "elsewhere")},
			"spec": w.some(map[string]func() any{
				"hosts": w.list(w.host), "gateways": w.list(names), "http": w.list(w.http), "exportTo": w.list(func() any { return w.one(".", "*", "default") }),
				"tls": w.list(func() any {
					return map[string]any{"match": w.list(func() any { return map[string]any{"sniHosts": w.list(w.host)(), "port": w.number()} })(), "route": w.list(w.destination)()}
				}),
			})})
	}
	for _, name := range []string{"edge", "second"} {
		docs = append(docs, map[string]any{"apiVersion": "networking.istio.io/v1alpha3", "kind": "Gateway", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"selector": w.one(nil, map[string]any{"istio": "ingressgateway"}, map[string]any{"istio": 5}), "servers": w.list(func() any {
				return map[string]any{"name": w.text(), "hosts": w.list(w.host)(), "bind": w.one(nil, nil, "x"), "port": map[string]any{"number": w.number(), "protocol": w.one("HTTP", "HTTPS", "TLS", "x", nil, 5)},
					"tls": w.one(nil, map[string]any{"mode": w.one("SIMPLE", "PASSTHROUGH", "MUTUAL", "x", nil), "credentialName": w.one("c", "", nil), "httpsRedirect": w.one(true, "x")})}
			})()}})
	}
	for _, name := range []string{"api", "canary"} {
		docs = append(docs, map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": name}, "spec": map[string]any{"ports": []any{map[string]any{"name": "http", "port": 80}}}})
	}
	return append(docs, w.routes()...)
}

func (w wild) routes() (docs []map[string]any) {
	for i, gateways := range [][]any{nil, {"mesh", "edge"}, {"default/edge"}} {
		docs = append(docs, map[string]any{"apiVersion": "istio.alibabacloud.com/v1beta1", "kind": "LLMRoute", "metadata": map[string]any{"name": fmt.Sprintf("r%d", i)}, "spec": map[string]any{
			"host": w.one("a.example.com", "api", "r"), "gateways": gateways, "rules": []any{map[string]any{"backendRefs": []any{
				map[string]any{"backendRef": map[string]any{"name": "api", "port": 80}}, map[string]any{"backendRef": map[string]any{"name": w.one("canary", "gone")}, "priority": w.one(0, 1)}}},
			}}}, map[string]any{"apiVersion": "istio.alibabacloud.com/v1beta1", "kind": "LLMRoute", "metadata": map[string]any{"name": fmt.Sprintf("one%d", i)}, "spec": map[string]any{
			"host": w.one("b.example.com", "one"), "gateways": gateways, "rules": []any{map[string]any{"backendRefs": []any{map[string]any{"backendRef": map[string]any{"name": "api", "port": 80}}}}}}})
	}
	return docs
}

// Whatever is written: nothing panics, every rule has something that answers, and the same comes out whatever the order.
func TestWhateverIsWrittenIntoIstiosObjectsCompiles(t *testing.T) {
	random := wild{rand.New(rand.NewPCG(7, 7))}
	for n := range 500 {
		docs := random.objects()
		build := func() routing.Objects {
			in := routing.Objects{Secrets: []routing.Secret{}}
			for _, doc := range docs {
				text, err := json.Marshal(doc)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := in.DecodeJSON(text, "default"); err != nil {
					t.Fatal(err)
				}
			}
			return in
		}
		for _, w := range []*routing.Workload{nil, ingress, {Namespace: "default", Labels: map[string]string{"app": "chat"}}} {
			table, problems := routing.Compile(build(), w)
			first := text(t, table, problems)
			soundListeners(t, table)
			if t.Failed() {
				shown, _ := json.MarshalIndent(docs, "", " ")
				t.Fatalf("round %d: %s\n%s", n, shown, first)
			}
			random.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
			table, problems = routing.Compile(build(), w)
			if again := text(t, table, problems); again != first {
				t.Fatalf("round %d: in another order it is\n%s\nand not\n%s", n, again, first)
			}
		}
	}
}

func soundListeners(t *testing.T, table *routing.Table) {
	t.Helper()
	for _, l := range table.Listeners() {
		if l.Port == 0 || len(l.Servers) == 0 {
			t.Errorf("listener %+v", l)
		}
		for _, name := range []string{"a.example.com", "api", "x.y.z", "api.default.svc.cluster.local"} {
			s := l.Server([]byte(name))
			if s == nil {
				continue
			}
			if l.TLS && !s.Passthrough && s.Refusal == nil && len(s.Certificate) == 0 {
				t.Errorf("server %s has neither certificate nor refusal", s.Name)
			}
			h := s.Host([]byte(name))
			if h == nil {
				continue
			}
			for _, r := range h.Rules {
				answers := r.Action != nil && (r.Action.Redirect != nil || r.Action.Direct != nil)
				if len(r.Levels) == 0 && !answers {
					t.Errorf("nothing answers by rule %q of %s", r.Name, r.Owner)
				}
				for _, level := range r.Levels {
					if level.Pick(0, 0) < 0 {
						t.Errorf("no backend of %s has a share", r.Owner)
					}
					for _, b := range level.Backends {
						if (b.Target == nil) == (b.Refusal == nil) {
							t.Errorf("a backend of %s has both a target and a refusal, or neither", r.Owner)
						}
					}
				}
			}
		}
	}
}
