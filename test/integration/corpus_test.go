package integration

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/cases"
)

// resolvedBefore are the cases that kubectl or the API server have resolved before anybody judges: a repeated field and a
// repeated object (the last wins), a null entry of a map (it is dropped). Only files can hold these.
var resolvedBefore = []string{"field-twice.yaml", "two-objects-of-one-name.yaml", "header-null.yaml", "query-null.yaml"}

// The corpus as a user meets it: by kubectl apply, judged by the schema, its CEL rules and the webhook.
func TestKubectlApplyRefusesAndAcceptsTheCorpus(t *testing.T) {
	for _, c := range cases.All(t) {
		valid := c.Valid || slices.Contains(resolvedBefore, path.Base(c.Name))
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			namespace := v1beta1.InstallationNamespace
			if !strings.Contains(string(c.Text), "namespace: "+namespace) {
				namespace = newNamespace(t)
			}
			text := strings.ReplaceAll(string(c.Text), ".default.", "."+namespace+".")
			out, err := installed.KubectlWith(t.Context(), text, "-n", namespace, "apply", "-f", "-")
			unread := strings.Contains(out, "strict decoding error") // then nothing else has been looked at, and fields are shown as written
			if strings.Contains(out, "sk-") && !unread {
				t.Errorf("a key is shown:\n%s", out)
			}
			if valid {
				if err != nil {
					t.Errorf("is refused:\n%s", out)
				} else if namespace == v1beta1.InstallationNamespace {
					_, err = installed.KubectlWith(t.Context(), text, "-n", namespace, "delete", "-f", "-")
					if err != nil {
						t.Error(err)
					}
				}
				return
			}
			if err == nil {
				t.Fatalf("is accepted:\n%s", out)
			}
			missed := 0
			for _, want := range c.Said {
				if named(out, want) {
					continue
				}
				if missed++; !unread || missed == len(c.Said) {
					t.Errorf("%s is not named:\n%s", want.Field, out)
				}
			}
		})
	}
}

// named tells whether a refusal is about a field. The schema speaks first where it has something to say: in words of its
// own, and where a required field is missing or a rule spans several, it names what holds them.
func named(out string, want cases.Said) bool {
	switch {
	case strings.Contains(out, want.Part) && want.Part != "":
		return true
	case want.Field == "apiVersion" || want.Field == "kind":
		return strings.Contains(out, "no matches for kind")
	case want.Field == "metadata.name":
		return strings.Contains(out, "name may not be empty") || strings.Contains(out, want.Field)
	case strings.HasSuffix(want.Field, "…"): // we do not show what may be a key; strict decoding does
		return strings.Contains(out, strings.TrimSuffix(want.Field, "…"))
	}
	parent := want.Field[:max(0, strings.LastIndexAny(want.Field, ".["))]
	field := strings.TrimLeft(strings.TrimSuffix(want.Field[len(parent):], "]"), ".[")
	return strings.Contains(out, want.Field) || strings.Contains(out, "."+field) || strings.Contains(out, " "+parent+": ")
}

// What the API server gives back, with its defaults, is what was written: the sidecar runs it as it would run the file.
func TestTheAPIServerKeepsWhatProvidersAndRulesSay(t *testing.T) {
	wanted := []string{"keys-weighted.yaml", "keys-at-their-limits.yaml", "several-keys.yaml", "restricted-users.yaml", "provider-with-everything.yaml", "route-with-everything.yaml", "traffic-policy-at-its-limits.yaml", "query-with-credential.yaml", "azure-openai.yaml", "limits.yaml"}
	found := 0
	for _, c := range cases.All(t) {
		if !slices.Contains(wanted, path.Base(c.Name)) {
			continue
		}
		found++
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t)
			if out, err := installed.KubectlWith(t.Context(), string(c.Text), "-n", namespace, "apply", "-f", "-"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			kept := kubectl(t, "-n", namespace, "get", "llmproviders,llmroutes,secrets", "-o", "json", "--show-managed-fields=false")
			want, got := tableOf(t, namespace, c.Documents(t)...), tableOf(t, namespace, []byte(kept))
			if got != want {
				t.Errorf("the API server has\n%s\nwritten was\n%s", got, want)
			}
		})
	}
	if found != len(wanted) {
		t.Errorf("%d of the files %q are in the corpus", found, wanted)
	}
}

// tableOf is what a sidecar would run.
func tableOf(t *testing.T, namespace string, docs ...[]byte) string {
	t.Helper()
	in := routing.Objects{Secrets: []routing.Secret{}}
	for _, doc := range docs {
		if _, err := in.Decode(doc, namespace); err != nil {
			t.Fatal(err)
		}
	}
	table, problems := routing.Compile(in, nil)
	var text strings.Builder
	for _, p := range problems {
		fmt.Fprintln(&text, p.Severity, p)
	}
	if _, err := table.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// The API server bounds what its rules may cost for one object, and a condition's length.
func TestTheLargestProviderIsAcceptedAndItsLastPlaceJudged(t *testing.T) {
	namespace := newNamespace(t)
	text := string(cases.LargestProvider())
	if out, err := installed.KubectlWith(t.Context(), text, "-n", namespace, "create", "-f", "-"); err != nil {
		t.Fatalf("%v\n%.2000s", err, out)
	}
	kubectl(t, "-n", namespace, "wait", "llmprovider/largest", "--for=condition=ResolvedRefs=False", "--timeout=1m")
	broken := strings.ReplaceAll(text, `"name":"key-15","weight":15`, `"name":"key-15","weight":-1`)
	out, err := installed.KubectlWith(t.Context(), broken, "-n", namespace, "replace", "-f", "-")
	if err == nil || !strings.Contains(out, "rule-255.openAIConfig.apiKeyRefs[15].weight") {
		t.Errorf("%v\n%.2000s", err, out)
	}
}
