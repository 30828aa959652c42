package integration

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
)

func encodeBase64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// foreign writes the CRDs as another product has them: the same names, other content, without our label.
func foreign(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	for _, name := range []string{"llmproviders", "llmroutes"} {
		text, err := os.ReadFile(filepath.Join("../../config/crd", v1beta1.GroupVersion.Group+"_"+name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		theirs := strings.NewReplacer(v1beta1.PartOfLabel+": "+v1beta1.PartOf, v1beta1.PartOfLabel+": a-mesh", "name: Host\n", "name: Hostname\n").Replace(string(text))
		if strings.Contains(theirs, v1beta1.PartOf+"\n  name:") || !strings.Contains(theirs, "name: Hostname\n") {
			t.Fatalf("%s is still ours", name)
		}
		if err := os.WriteFile(filepath.Join(folder, name+".yaml"), []byte(theirs), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// definitions says what the CRDs are like.
func (m manifests) definitions(t *testing.T) string {
	t.Helper()
	return m.must(t, "get", "crd", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.labels} {.metadata.uid} {.metadata.generation}{"\n"}{end}`)
}

func (m manifests) anInstallationOverTheCRDsOfAnotherIsRefused(t *testing.T) {
	for name, how := range map[string]struct{ theirs, ours []string }{
		"plain":                {[]string{"create"}, []string{"apply"}},
		"plain over applied":   {[]string{"apply"}, []string{"apply"}},
		"server-side":          {[]string{"apply"}, []string{"apply", "--server-side"}},
		"server-side by force": {[]string{"create"}, []string{"apply", "--server-side", "--force-conflicts"}},
	} {
		t.Run(name, func(t *testing.T) {
			m.fresh(t)
			m.must(t, append(how.theirs, "-f", foreign(t))...)
			m.must(t, "wait", "--for=condition=Established", "crd", "--all")
			before := m.definitions(t)

			out, err := m.Kubectl(t.Context(), append(how.ours, "-k", everything)...)
			if after := m.definitions(t); err == nil || after != before {
				t.Fatalf("the first time, kubectl says %v\n%s\nthe CRDs were\n%s\nand are\n%s", err, out, before, after)
			}
			if !strings.Contains(out, "belongs-to-another-installation") && !strings.Contains(out, "belongs to another installation") && !strings.Contains(out, "conflict") {
				t.Errorf("the first time, the reason is not told:\n%s", out)
			}
			// A second later the policy works too, which tells the remedy.
			m.eventually(t, func() (string, bool) {
				out, _ := m.Kubectl(t.Context(), "apply", "-k", everything)
				return out, strings.Contains(out, "Remedy: install Remora into a cluster without it")
			})
			if after := m.definitions(t); after != before {
				t.Errorf("the CRDs were\n%s\nand are\n%s", before, after)
			}
			// The seeming way back does not take the other's CRDs along.
			m.eventually(t, func() (string, bool) {
				out, _ := m.Kubectl(t.Context(), "delete", "--dry-run=server", "-f", foreign(t))
				return out, strings.Contains(out, "it was not deleted")
			})
			out, err = m.Kubectl(t.Context(), "delete", "-k", everything, "--wait=false")
			m.finalize(t, out)
			if after := m.definitions(t); err == nil || after != before {
				t.Errorf("kubectl delete -k says %v\n%s\nthe CRDs were\n%s\nand are\n%s", err, out, before, after)
			}
		})
	}
}

func (m manifests) anotherProductCannotTakeOurCRDs(t *testing.T) {
	m.fresh(t)
	m.must(t, "apply", "-k", everything)
	m.must(t, "wait", "--for=condition=Established", "crd", "-l", ours)
	before := m.definitions(t)
	theirs := foreign(t)
	m.eventually(t, func() (string, bool) {
		out, err := m.Kubectl(t.Context(), "apply", "-f", theirs)
		if err == nil {
			t.Fatalf("the CRDs changed hands:\n%s", out)
		}
		return out, strings.Contains(out, "belongs to Remora")
	})
	if after := m.definitions(t); after != before {
		t.Errorf("the CRDs were\n%s\nand are\n%s", before, after)
	}
	// What is no change of hands is nobody's business, and no other CRD is.
	m.must(t, "annotate", "crd", "llmroutes."+v1beta1.GroupVersion.Group, "note=mine")
}
