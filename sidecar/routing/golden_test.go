package routing_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

var update = flag.Bool("update", false, "write testdata/*.out.txt anew")

// Each testdata/NAME.in.yaml is compiled; what comes out is NAME.out.txt: the problems, then the table. A
// first line such as "# workload: app=sleep" names the labels of the pod, and "# gateway: istio=ingressgateway" those of a gateway;
// without it there is neither.
func TestATableIsWhatItsGoldenFileSays(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(input, ".in.yaml")
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			table, problems := routing.Compile(decodeAll(t, text), workloadOf(text))
			for _, p := range problems {
				fmt.Fprintf(&out, "%s, %s: %s\n", p.Severity, p.Object, p)
			}
			out.WriteString("\n")
			if _, err := table.WriteTo(&out); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(name+".out.txt", out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + ".out.txt")
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), want) {
				t.Errorf("got:\n%s\nwant:\n%s", out.Bytes(), want)
			}
		})
	}
}

func workloadOf(text []byte) *routing.Workload {
	line, _, _ := strings.Cut(string(text), "\n")
	labels, found := strings.CutPrefix(line, "# workload:")
	w := &routing.Workload{Namespace: "default", Labels: map[string]string{}}
	if !found {
		if labels, found = strings.CutPrefix(line, "# gateway:"); !found {
			return nil
		}
		w.Gateway, w.Namespace = true, v1beta1.GatewayName
	}
	for label := range strings.FieldsSeq(labels) {
		k, v, _ := strings.Cut(label, "=")
		w.Labels[k] = v
	}
	return w
}

// decodeAll reads all documents of a file. Secrets are known, even if there are none. What the installation's namespace exports
// is handed over to the namespaces that are named, and to default where they all are.
func decodeAll(t *testing.T, text []byte) routing.Objects {
	t.Helper()
	in := routing.Objects{Secrets: []routing.Secret{}}
	for _, doc := range documents(t, text) {
		if _, err := in.Decode(doc, "default"); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range in.Providers {
		for _, to := range p.Spec.ExportTo {
			if p.Namespace == v1beta1.InstallationNamespace && to != v1beta1.ExportToOwn {
				in.Exported = append(in.Exported, routing.Exported{To: strings.Replace(string(to), "*", "default", 1), Provider: *p.DeepCopy()})
			}
		}
	}
	for _, u := range in.Unreadable {
		if u.Object.Namespace == v1beta1.InstallationNamespace {
			u.To = "default"
			in.Unreadable = append(in.Unreadable, u)
		}
	}
	return in
}

func documents(t *testing.T, text []byte) [][]byte {
	t.Helper()
	var all [][]byte
	text = append(slices.Clip(text), '\n') // the reader loses a long last line that does not end
	for r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text))); ; {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, doc)
	}
}
