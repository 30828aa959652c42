package routing_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

// Each testdata/plan/NAME.txt is an edit: objects that stay, one that is there before and one that is
// there after, and what the plan says. Secrets are not known, as at admission.
func TestAPlanSaysWhatItsGoldenFileSays(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			edit, want, _ := strings.Cut(string(content), "== plan\n")
			before, after := decodeEdit(t, edit)
			got := strings.Join(routing.Plan(before, after), "\n")
			if got != "" {
				got += "\n"
			}
			if *update {
				if err := os.WriteFile(file, []byte(edit+"== plan\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func decodeEdit(t *testing.T, text string) (before, after routing.Objects) {
	t.Helper()
	text = strings.TrimPrefix(text, "== stays\n")
	stays, text, ok := strings.Cut(text, "== before\n")
	old, edited, ok2 := strings.Cut(text, "== after\n")
	if !ok || !ok2 {
		t.Fatal("there is no part before, or none after")
	}
	before, after = decodeAll(t, []byte(stays+"\n---\n"+old)), decodeAll(t, []byte(stays+"\n---\n"+edited))
	before.Secrets, after.Secrets = nil, nil
	return before, after
}

// A namespace with 10,000 objects: the plan looks at those that the edit has to do with.
func BenchmarkPlan(b *testing.B) {
	for _, edit := range []struct {
		name string
		do   func(*routing.Objects)
	}{
		{"a route", func(in *routing.Objects) {
			rules := slices.Clone(in.Routes[77].Spec.Rules)
			rules[2].BackendRefs = rules[2].BackendRefs[:1]
			in.Routes[77].Spec.Rules = rules
		}},
		{"a provider of one route", func(in *routing.Objects) { in.Providers[77].Spec.Path = "/v2/chat/completions" }},
		{"a provider of 5000 routes", func(in *routing.Objects) { in.Providers[0].Spec.Path = "/v2/chat/completions" }},
	} {
		b.Run(edit.name, func(b *testing.B) {
			before := manyRoutes(5000)
			before.Secrets = nil
			after := before
			after.Providers, after.Routes = slices.Clone(before.Providers), slices.Clone(before.Routes)
			edit.do(&after)
			b.ReportAllocs()
			for b.Loop() {
				if len(routing.Plan(before, after)) == 0 {
					b.Fatal("nothing is said")
				}
			}
		})
	}
}

func TestAPlanSaysWhatItHasNotCompared(t *testing.T) {
	before := manyRoutes(300)
	after := before
	after.Providers = slices.Clone(before.Providers)
	after.Providers[0].Spec.Configs.DefaultConfig.OpenAIConfig.Model = "large"
	want := []string{
		"llm-0.example.com: model large instead of the app's own model",
		"200 more hosts have routes to the same provider and were not compared",
	}
	if got := routing.Plan(before, after); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
