package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// wireProvider is an LLMProvider as the API server sends it.
func wireProvider(t *testing.T, version, metadata, spec string) *wireObject {
	t.Helper()
	text := `{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMProvider","metadata":{"name":"a","namespace":"team","uid":"u","generation":1,` +
		`"creationTimestamp":"2026-01-02T03:04:05Z","resourceVersion":"` + version + `"` + metadata + `},"spec":` + spec + `}`
	o, _, err := wire{}.Decode([]byte(text), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o.(*wireObject)
}

const keyedSpec = `{"host":"a.example","configs":{"defaultConfig":{"openAIConfig":{"model":"one","apiKeyRef":{"name":"s","key":"k"}}}}}`

// running is a set with one provider, its Secret, and something that is unreadable.
func running(t *testing.T) *set {
	t.Helper()
	all := &set{namespace: "team", names: map[routing.Ref]named{}}
	h := &history{}
	all.add(&arrive(&providerFeed, wireProvider(t, "1", "", keyedSpec), nil).docs[0], place{}, h)
	secret := &routing.Secret{Namespace: "team", Name: "s", Data: map[string]routing.Key{"k": routing.NewKey("sk-saved")}}
	all.add(&document{ref: refOf(secretKind, "team", "s"), secret: secret}, place{}, h)
	docs, _ := secretsIn(wireKeys(t, map[string]string{"_provider_a": exportedEntry("x", "shared.example", "s"), "_provider_broken": "{"}))
	for i := range docs {
		all.add(&docs[i], place{}, h)
	}
	all.put(refOf(v1beta1.KindLLMRoute, "team", "bad"), place{file: "generation 2"}, routing.Unreadable{Hosts: []string{"bad.example"}},
		routing.Problem{Severity: routing.Invalid, Code: routing.UnknownField, Field: "spec.x", Message: "is unknown"})
	return all
}

func TestWhatIsSavedIsReadBackAsItRan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "last.json")
	if err := prepare(path); err != nil {
		t.Fatal(err)
	}
	h := &history{}
	table, _ := h.compile(running(t), &routing.Workload{Namespace: "team"})
	for range 2 { // the second replaces the first
		if err := newSaved("team", running(t), nil).write(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := prepare(path); err != nil {
		t.Errorf("its own file is refused: %v", err)
	}
	s, err := load(path, "team")
	if err != nil {
		t.Fatal(err)
	}
	later := &history{}
	again, findings := later.compile(s.set(later, ""), &routing.Workload{Namespace: "team"})
	if again.Generation() != table.Generation() {
		t.Errorf("another table:\n%v", findings)
	}
	v := later.accepted[key{v1beta1.KindLLMProvider, "team", "a", false}]
	if v == nil || v.doc.uid != "u" || v.stamp.UTC().Format("2006-01-02T15:04:05") != "2026-01-02T03:04:05" {
		t.Errorf("what would keep running is %+v", v)
	}
	shared := again.Host([]byte("shared.example"))
	if shared == nil || shared.Refusal != nil || shared.Rules[0].Levels[0].Backends[0].Target.Keys[0].Key.Reveal() != "sk-shared" {
		t.Errorf("the exported provider is %+v", shared)
	}
	if again.Host([]byte("every.example")) == nil {
		t.Error("a host passes that the provider may have named which cannot be read")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the file there is more: %v %v", entries, err)
	}
}

func TestAFileThatIsDamagedOrNotOursIsNotUsed(t *testing.T) {
	f := func(want string, spoil func(path, text string) error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "last.json")
		if err := newSaved("team", running(t), nil).write(path); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err == nil {
			err = spoil(path, string(text))
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := load(path, "team"); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sk-") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	write := func(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
	f("it is damaged", func(path, text string) error { return write(path, text[:len(text)/2]) })
	f("it is damaged", func(path, _ string) error { return write(path, "") })
	f("digest is wrong", func(path, text string) error { return write(path, strings.Replace(text, "a.example", "b.example", 1)) })
	f("another version", func(path, text string) error { return write(path, strings.Replace(text, "version 3", "version 2", 1)) })
	f("it is of namespace other", func(path, _ string) error {
		s := newSaved("other", running(t), nil)
		return s.write(path)
	})
	f("no such file", func(path, _ string) error { return os.Remove(path) })
	f("other users may read or write it", func(path, _ string) error { return os.Chmod(path, 0o640) })
	f("too many levels of symbolic links", func(path, _ string) error {
		if err := os.Rename(path, path+"x"); err != nil {
			return err
		}
		return os.Symlink(path+"x", path)
	})
}

func TestKeysAreKeptOnlyWhereNobodyElseCanReadOrReplaceThem(t *testing.T) {
	f := func(want string, spoil func(folder string) error) {
		t.Helper()
		folder := t.TempDir()
		if err := spoil(folder); err != nil {
			t.Fatal(err)
		}
		if err := prepare(filepath.Join(folder, "last.json")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f("chmod go-w", func(folder string) error { return os.Chmod(folder, 0o777) })
	f("chmod go-w", func(folder string) error { return os.Chmod(folder, 0o1777) })
	f("other users may read or write it", func(folder string) error {
		return os.WriteFile(filepath.Join(folder, "last.json"), nil, 0o644)
	})
	f("is not a regular file", func(folder string) error { return os.Mkdir(filepath.Join(folder, "last.json"), 0o700) })

	// A volume that everybody may write to takes a folder of our own.
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := prepare(filepath.Join(folder, "own", "last.json")); err != nil {
		t.Error(err)
	}
}
