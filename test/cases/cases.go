// Package cases is the corpus: pieces of configuration, and what is to be said of each. Every judge reads it from here. The
// samples and the snippets of the README belong to it. Dropping a file into valid or invalid makes a test.
package cases

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"remora.dev/remora/apis/v1beta1"
)

// Case is a piece of configuration.
type Case struct {
	Name  string // its path below the module's folder
	Text  []byte
	Valid bool
	// Said is what is to be said of it; nil where warnings are not written down: samples and snippets.
	Said []Said
}

// Said is a comment such as "# want: spec.host: part of the message".
type Said struct{ Field, Part string }

// All gives the corpus, by name.
func All(t *testing.T) []Case {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "../..")
	var all []Case
	for folder, comment := range map[string]string{"test/cases/valid": "# warn: ", "test/cases/invalid": "# want: ", "config/samples": ""} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".yaml" || entry.Name() == "kustomization.yaml" {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			c := Case{Name: filepath.ToSlash(name), Text: text, Valid: folder != "test/cases/invalid"}
			if comment != "" {
				c.Said = comments(text, comment)
			}
			all = append(all, c)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	all = append(all, snippets(t, filepath.Join(root, "README.md"))...)
	slices.SortFunc(all, func(a, b Case) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func comments(text []byte, comment string) []Said {
	all := []Said{}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), comment); ok {
			field, part, _ := strings.Cut(rest, ": ")
			all = append(all, Said{field, part})
		}
	}
	return all
}

// snippets takes the YAML blocks of the README that begin with apiVersion.
func snippets(t *testing.T, path string) []Case {
	t.Helper()
	readme, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []Case
	for i, block := range strings.Split(string(readme), "\n```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "\n```")
		if strings.HasPrefix(block, "apiVersion:") {
			all = append(all, Case{Name: fmt.Sprintf("README.md, YAML block %d", i+1), Text: []byte(block), Valid: true})
		}
	}
	return all
}

// Documents cuts a case at its "---" lines.
func (c Case) Documents(t *testing.T) [][]byte {
	t.Helper()
	var all [][]byte
	text := append(slices.Clip(c.Text), '\n') // the reader loses a long last line that does not end
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

// Trees reads the objects of our kinds as an API server gets them, Lists expanded.
func (c Case) Trees(t *testing.T) []map[string]any {
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
	for _, doc := range c.Documents(t) {
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

// LargestProvider is an LLMProvider with as many keys, rules, users and namespaces as one may have, in JSON.
func LargestProvider() []byte {
	var p v1beta1.LLMProvider
	p.APIVersion, p.Kind, p.Name, p.Spec.Host = v1beta1.GroupVersion.String(), v1beta1.KindLLMProvider, "largest", "largest.example.com"
	keys := make([]v1beta1.WeightedKeyReference, v1beta1.MaxKeys)
	for i := range keys {
		keys[i] = v1beta1.WeightedKeyReference{SecretKeyReference: v1beta1.SecretKeyReference{Name: fmt.Sprintf("key-%d", i)}, Weight: new(int32(i))}
	}
	p.Spec.Configs.DefaultConfig.OpenAIConfig.APIKeyRefs = keys
	p.Spec.Configs.RouteSpecificConfigs = map[string]v1beta1.ProviderConfig{}
	for i := range v1beta1.MaxRouteConfigs {
		p.Spec.Configs.RouteSpecificConfigs[fmt.Sprintf("rule-%d", i)] = v1beta1.ProviderConfig{OpenAIConfig: v1beta1.OpenAIConfig{APIKeyRefs: keys}}
	}
	for range v1beta1.MaxExportTo {
		p.Spec.ExportTo = append(p.Spec.ExportTo, v1beta1.ExportToOwn)
	}
	for i := range v1beta1.MaxAllowedUIDs {
		p.Spec.AllowedUIDs = append(p.Spec.AllowedUIDs, v1beta1.MaxUID-int64(i))
	}
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // all of it is text and numbers
	}
	return text
}
