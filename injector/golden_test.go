package injector_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/injector"
)

var update = flag.Bool("update", false, "write testdata/*.out.yaml anew")

// Each testdata/NAME.pod.yaml is decided on, injected or marked, and judged; what comes out is NAME.out.yaml: the decision, the
// faults, and if there is none, the pod. A first line such as "# namespace: remora.dev/inject=pods" tells its namespace's labels;
// without it, every pod of the namespace is injected.
func TestAPodIsWhatItsGoldenFileSays(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.pod.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(input, ".pod.yaml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			got := outcome(t, read(t, input))
			if *update {
				if err := os.WriteFile(name+".out.yaml", got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := read(t, name+".out.yaml"); string(got) != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func outcome(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	pod, ns, s := podOf(t, text), namespaceOf(text), settings(t)
	d := injector.Decide(pod, ns)
	fmt.Fprintf(&out, "# %s, %s: %s\n", d.Verdict, d.Code, d.Message)
	var errs field.ErrorList
	switch d.Verdict {
	case injector.VerdictIgnore, injector.VerdictDeny:
	case injector.VerdictSkip:
		pod = injector.Mark(pod, d)
	case injector.VerdictInject:
		if pod, errs = injector.Inject(pod, s); pod != nil {
			same(t, "a second injection", mustInject(t, pod, s), pod)
		}
	}
	if pod != nil {
		errs = injector.Judge(pod, ns, s)
	}
	if len(errs) > 0 {
		for _, err := range errs {
			fmt.Fprintf(&out, "# refused: %v\n", err)
		}
		return out.Bytes()
	}
	object := map[string]any{}
	if text, err := yaml.Marshal(pod); err != nil {
		t.Fatal(err)
	} else if err := yaml.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	delete(object, "status")
	pruned, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(pruned)
	return out.Bytes()
}

func namespaceOf(text string) injector.Namespace {
	line, _, _ := strings.Cut(text, "\n")
	labels, found := strings.CutPrefix(line, "# namespace:")
	if !found {
		return labelled
	}
	ns := injector.Namespace{Name: "shop", Labels: map[string]string{}}
	for label := range strings.FieldsSeq(labels) {
		k, v, _ := strings.Cut(label, "=")
		ns.Labels[k] = v
	}
	return ns
}
