package test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// A corpusCase is a piece of configuration and what is to be said of it: all of test/cases, the samples and the snippets of
// the README. Dropping a file there makes a test.
type corpusCase struct {
	name  string
	text  []byte
	valid bool
	said  []said // nil where warnings are not written down: samples and snippets
}

// said is a comment such as "# want: spec.host: part of the message".
type said struct{ field, part string }

func corpus(t *testing.T) []corpusCase {
	t.Helper()
	var all []corpusCase
	for folder, comment := range map[string]string{"cases/valid": "# warn: ", "cases/invalid": "# want: ", "../config/samples": ""} {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".yaml" {
				return err
			}
			text, err := os.ReadFile(path)
			c := corpusCase{name: filepath.ToSlash(path), text: text, valid: folder != "cases/invalid"}
			if comment != "" {
				c.said = comments(text, comment)
			}
			all = append(all, c)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	all = append(all, snippets(t)...)
	slices.SortFunc(all, func(a, b corpusCase) int { return strings.Compare(a.name, b.name) })
	return all
}

func comments(text []byte, comment string) []said {
	all := []said{}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), comment); ok {
			field, part, _ := strings.Cut(rest, ": ")
			all = append(all, said{field, part})
		}
	}
	return all
}

// snippets takes the YAML blocks of the README that begin with apiVersion.
func snippets(t *testing.T) []corpusCase {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var all []corpusCase
	for i, block := range strings.Split(string(readme), "\n```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "\n```")
		if strings.HasPrefix(block, "apiVersion:") {
			all = append(all, corpusCase{name: fmt.Sprintf("README.md, YAML block %d", i+1), text: []byte(block), valid: true})
		}
	}
	return all
}

// documents cuts a file at its "---" lines.
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

// trees reads the objects of our kinds as an API server gets them, Lists expanded.
func trees(t *testing.T, text []byte) []map[string]any {
	t.Helper()
	var all []map[string]any
	var add func(tree map[string]any)
	add = func(tree map[string]any) {
		items, _ := tree["items"].([]any)
		for _, item := range items {
			add(item.(map[string]any))
		}
		if tree["apiVersion"] == v1beta1.GroupVersion.String() && (tree["kind"] == v1beta1.KindLLMProvider || tree["kind"] == v1beta1.KindLLMRoute) {
			all = append(all, tree)
		}
	}
	for _, doc := range documents(t, text) {
		text, err := yaml.YAMLToJSON(doc)
		if err != nil {
			t.Fatal(err)
		}
		var tree map[string]any
		if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &tree); err != nil {
			t.Fatal(err)
		}
		add(tree)
	}
	return all
}

var pod = &routing.Workload{Namespace: "default", Labels: map[string]string{"app": "sleep"}}

func compile(t *testing.T, text []byte, workload *routing.Workload) (routing.Objects, *routing.Table, []routing.Problem) {
	t.Helper()
	in := routing.Objects{Secrets: []routing.Secret{}}
	for _, doc := range documents(t, text) {
		if _, err := in.Decode(doc, "default"); err != nil {
			t.Fatal(err)
		}
	}
	table, problems := routing.Compile(in, workload)
	return in, table, problems
}

func TestWhatIsInvalidIsRefusedWithFieldAndRemedy(t *testing.T) {
	for _, c := range corpus(t) {
		if c.valid {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			_, _, problems := compile(t, c.text, nil)
			matchProblems(t, c.said, slices.DeleteFunc(problems, func(p routing.Problem) bool { return p.Severity != routing.Invalid }))
		})
	}
}

func TestWhatIsValidIsAccepted(t *testing.T) {
	schemas := readSchemas(t)
	for _, c := range corpus(t) {
		if !c.valid {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for _, tree := range trees(t, c.text) {
				for _, fault := range schemas.faults(tree) {
					t.Errorf("the schema refuses it: %s", fault)
				}
			}
			_, _, problems := compile(t, c.text, nil)
			if c.said != nil {
				matchProblems(t, c.said, problems)
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
func matchProblems(t *testing.T, comments []said, problems []routing.Problem) {
	t.Helper()
	if len(comments) == 0 && len(problems) == 0 {
		return
	}
	found := make([]bool, len(comments))
	for _, p := range problems {
		i := slices.IndexFunc(comments, func(s said) bool { return s.field == p.Field && strings.Contains(p.Message, s.part) })
		if i < 0 {
			t.Errorf("not expected: %s", p)
			continue
		}
		found[i] = true
	}
	for i, s := range comments {
		if !found[i] {
			t.Errorf("not said: %s: %s", s.field, s.part)
		}
	}
}

func TestWhatIsValidIsServed(t *testing.T) {
	for _, c := range corpus(t) {
		if !c.valid {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			in, table, _ := compile(t, c.text, pod)
			var hosts []string
			for i := range in.Providers {
				hosts = append(hosts, in.Providers[i].Spec.Host)
			}
			for i := range in.Routes {
				hosts = append(hosts, in.Routes[i].Spec.Host)
			}
			if len(hosts) == 0 {
				t.Error("there is no object in it")
			}
			for _, name := range hosts {
				if h := table.Host([]byte(name)); h == nil {
					t.Errorf("%s is foreign", name)
				} else if h.Refusal != nil {
					t.Errorf("%s is refused: %s", name, h.Refusal.Message)
				}
			}
		})
	}
}

func TestNoProblemShowsAKey(t *testing.T) {
	for _, c := range corpus(t) {
		_, table, problems := compile(t, c.text, nil)
		var shown bytes.Buffer
		fmt.Fprintf(&shown, "%+v %v %#v", problems, problems, problems)
		if _, err := table.WriteTo(&shown); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(shown.Bytes(), []byte("sk-")) {
			t.Errorf("%s: a key is shown:\n%s", c.name, shown.Bytes())
		}
	}
}
