package test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/cases"
)

func compile(t *testing.T, c cases.Case, workload *routing.Workload) (routing.Objects, *routing.Table, []routing.Problem) {
	t.Helper()
	in := routing.Objects{Secrets: []routing.Secret{}}
	for _, doc := range c.Documents(t) {
		if _, err := in.Decode(doc, "default"); err != nil {
			t.Fatal(err)
		}
	}
	table, problems := routing.Compile(in, workload)
	if judged := routing.Judge(in); !slices.Equal(judged, problems) {
		t.Errorf("Judge says otherwise than Compile: %v", judged)
	}
	return in, table, problems
}

func TestWhatIsInvalidIsRefusedWithFieldAndRemedy(t *testing.T) {
	for _, c := range cases.All(t) {
		if c.Valid {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			_, _, problems := compile(t, c, nil)
			matchProblems(t, c.Said, slices.DeleteFunc(problems, func(p routing.Problem) bool { return p.Severity != routing.Invalid }))
		})
	}
}

func TestWhatIsValidIsAccepted(t *testing.T) {
	schemas := readSchemas(t)
	for _, c := range cases.All(t) {
		if !c.Valid {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			for _, tree := range c.Trees(t) {
				for _, fault := range schemas.faults(tree) {
					t.Errorf("the schema refuses it: %s", fault)
				}
			}
			_, _, problems := compile(t, c, nil)
			if c.Said != nil {
				matchProblems(t, c.Said, problems)
			}
			for _, p := range problems {
				if p.Severity == routing.Invalid {
					t.Errorf("Compile refuses %s: %s", p.Object, p)
				}
			}
		})
	}
}

// Every comment must find its problem, and every problem its comment.
func matchProblems(t *testing.T, comments []cases.Said, problems []routing.Problem) {
	t.Helper()
	if len(comments) == 0 && len(problems) == 0 {
		return
	}
	found := make([]bool, len(comments))
	for _, p := range problems {
		i := slices.IndexFunc(comments, func(s cases.Said) bool { return s.Field == p.Field && strings.Contains(p.Message, s.Part) })
		if i < 0 {
			t.Errorf("not expected: %s", p)
			continue
		}
		found[i] = true
	}
	for i, s := range comments {
		if !found[i] {
			t.Errorf("not said: %s: %s", s.Field, s.Part)
		}
	}
}

func TestWhatIsValidIsServed(t *testing.T) {
	for _, c := range cases.All(t) {
		if !c.Valid {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			in, _, _ := compile(t, c, nil)
			hosts := map[string]string{} // their namespaces
			for i := range in.Providers {
				hosts[in.Providers[i].Spec.Host] = in.Providers[i].Namespace
			}
			for i := range in.Routes {
				hosts[in.Routes[i].Spec.Host] = in.Routes[i].Namespace
			}
			if len(hosts) == 0 {
				t.Error("there is no object in it")
			}
			for name, namespace := range hosts {
				if h := whoServes(t, c, &in, name, namespace); h == nil {
					t.Errorf("%s is foreign", name)
				} else if h.Refusal != nil {
					t.Errorf("%s is refused: %s", name, h.Refusal.Message)
				}
			}
		})
	}
}

// whoServes finds a host in a sidecar; or at the gateway, where the case has one and no route for sidecars.
func whoServes(t *testing.T, c cases.Case, in *routing.Objects, name, namespace string) *routing.Host {
	t.Helper()
	forSidecars := func(r v1beta1.LLMRoute) bool {
		return len(r.Spec.Gateways) == 0 || slices.Contains(r.Spec.Gateways, v1beta1.GatewayMesh)
	}
	if len(in.Gateways) == 0 || len(in.Routes) == 0 || slices.ContainsFunc(in.Routes, forSidecars) {
		_, table, _ := compile(t, c, &routing.Workload{Namespace: namespace, Labels: map[string]string{"app": "sleep"}})
		return table.Host([]byte(name))
	}
	_, table, _ := compile(t, c, &routing.Workload{Namespace: namespace, Labels: in.Gateways[0].Spec.Selector, Gateway: true})
	for _, l := range table.Listeners() {
		if s := l.Server([]byte(name)); s != nil {
			return s.Host([]byte(name))
		}
	}
	return nil
}

func TestNoProblemShowsAKey(t *testing.T) {
	for _, c := range cases.All(t) {
		_, table, problems := compile(t, c, nil)
		var shown bytes.Buffer
		fmt.Fprintf(&shown, "%+v %v %#v", problems, problems, problems)
		if _, err := table.WriteTo(&shown); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(shown.Bytes(), []byte("sk-")) {
			t.Errorf("%s: a key is shown:\n%s", c.Name, shown.Bytes())
		}
	}
}
