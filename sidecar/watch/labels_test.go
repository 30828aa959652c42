package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
)

// selecting is a provider for pods with app=sleep.
var selecting = strings.Replace(provider("a", "a.example", "one"), "  configs:", "  workloadSelector: {labels: {app: sleep}}\n  configs:", 1)

const notSelected = "refused NotForThisWorkload"

// mountLabels writes labels as the kubelet does: into another folder, to which a link then leads. It gives the file.
func mountLabels(t *testing.T, folder, version, content string) string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(folder, version), 0o755))
	must(os.WriteFile(filepath.Join(folder, version, "labels"), []byte(content), 0o644))
	must(os.Symlink(version, filepath.Join(folder, "..data_tmp")))
	must(os.Rename(filepath.Join(folder, "..data_tmp"), filepath.Join(folder, "..data")))
	file := filepath.Join(folder, "labels")
	if err := os.Symlink("..data/labels", file); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	return file
}

func readPodLabels(t *testing.T, path string, log logr.Logger) *PodLabels {
	t.Helper()
	p, err := ReadPodLabels(path, log)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLabelsOfThePodThatChangeAreObeyedWithFiles(t *testing.T) {
	pod := t.TempDir()
	labels := mountLabels(t, pod, "..1", "app=\"sleep\"\npod-template-hash=\"6d\"\n")
	f := newFollower(t, "a.yaml", selecting)
	f.labels = labels
	f.follow(f.dir)
	f.has(f.store.Load(), "model=one")
	mountLabels(t, pod, "..2", "app=\"awake\"\n")
	f.awaitText(notSelected)

	mountLabels(t, pod, "..3", "app=\"sleep\"\n\"\n")
	f.awaitLog("the labels of the pod cannot be read")
	f.write("b.yaml", provider("b", "b.example", "two"))
	f.has(f.awaitText("model=two"), notSelected) // as they were
	if log := f.logged(); !strings.Contains(log, `"error"="line 2: is not a label: write key=`) || !strings.Contains(log, `those that were read before stay`) {
		t.Errorf("the log does not say what is wrong with the labels:\n%s", log)
	}
	f.must(os.Remove(filepath.Join(pod, "..data")))
	f.awaitLog("no such file or directory")
	mountLabels(t, pod, "..4", "app=\"sleep\"\n")
	f.awaitText("model=one")
	if log := f.logged(); strings.Count(log, "is not a label") != 1 || strings.Count(log, "can be read again") != 1 {
		t.Errorf("it is not said once:\n%s", log)
	}
}

func TestLabelsOfThePodThatChangeAreObeyedWithKubernetes(t *testing.T) {
	n := newNamespace(t)
	n.apply(selecting)
	pod := t.TempDir()
	a := n.api()
	a.LastGood = filepath.Join(t.TempDir(), "kept", "last.json")
	a.PodLabels = readPodLabels(t, mountLabels(t, pod, "..1", `app="awake"`), logr.Discard())
	w := watch(t, a)
	w.has(w.awaitReady(), notSelected)
	mountLabels(t, pod, "..2", `app="sleep"`)
	w.awaitText("model=one")
	w.stop()

	// Also where what runs is from disk.
	again := &API{Config: a.Config, Namespace: n.name, KeysSecret: a.KeysSecret, LastGood: a.LastGood}
	again.PodLabels = readPodLabels(t, a.PodLabels.path, logr.Discard())
	gate := newGate(t, again.Config)
	gate.closed.Lock()
	defer gate.closed.Unlock()
	w = watch(t, again)
	w.has(w.awaitReady(), "model=one")
	mountLabels(t, pod, "..3", `app="awake"`)
	s := w.awaitText(notSelected)
	if s.Outage == nil || s.Outage.Saved.IsZero() {
		t.Errorf("it is not from disk: %+v", s.Outage)
	}
}

func TestAFileThatIsNoFileOfLabelsIsAnErrorThatNamesTheLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labels")
	for content, want := range map[string]string{
		"app=\"sleep\"\nsleep\n":             `line 2: is not a label: write key="value", as the downward API does`,
		"app=sleep\n":                        `line 1: is not a label`,
		"app=\"sleep\n":                      `line 1: is not a label`,
		"app=`sleep`\n":                      `line 1: is not a label`,
		"app=\"sl\\q\"\n":                    `line 1: is not a label`,
		"\n\nap p=\"sleep\"\n":               `line 3: "ap p" is not the key of a label: `,
		"=\"sleep\"\n":                       `line 1: "" is not the key of a label: `,
		"app=\"a b\"\n":                      `line 1: "a b" is not the value of a label: `,
		"app=\"\\x00\\xff\"\n":               `line 1: "\x00\xff" is not the value of a label: `,
		"app=\"a\"\nb=\"c\"\napp=\"a\"\n":    `line 3: label app is given twice: keep one`,
		strings.Repeat("x", 300) + "=\"y\"":  `line 1: "` + strings.Repeat("x", 80) + `\u2026" is not the key`,
		strings.Repeat("a=\"b\"\n", 400_000): "is larger than 2 MiB: name a file of the downward API",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPodLabels(path, logr.Discard()); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("of %.30q it says %v and not %s", content, err, want)
		}
	}
	for _, path := range []string{t.TempDir(), "/dev/zero", path + "-nowhere"} {
		if _, err := ReadPodLabels(path, logr.Discard()); err == nil {
			t.Errorf("%s is taken for labels", path)
		}
	}
}

func TestLabelsAreReadAsTheDownwardAPIWritesThem(t *testing.T) {
	got, err := parseLabels("app=\"sleep\"\nempty=\"\"\nexample.com/tier=\"go\\x6cd\"\r\n\nlast=\"1\"")
	if err != nil || len(got) != 4 || got["app"] != "sleep" || got["example.com/tier"] != "gold" || got["last"] != "1" {
		t.Errorf("%v %v", got, err)
	}
	if got, err := parseLabels(""); err != nil || len(got) > 0 {
		t.Errorf("of a pod without labels: %v %v", got, err)
	}
}
