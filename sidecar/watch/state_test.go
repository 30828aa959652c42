package watch

import (
	"os"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

func TestASecretTakesEffectAndItsKeyIsNowhereToBeSeen(t *testing.T) {
	f := newFollower(t, "a.yaml", keyed("a", "a.example", "sk-first"))
	f.follow(f.dir)
	first := f.store.Load()
	f.has(first, "key=secret:keys/apiKey")
	f.write("a.yaml", keyed("a", "a.example", "sk-second"))
	f.await("another generation", func(s *snapshot.Snapshot) bool { return s.Table.Generation() != first.Table.Generation() })

	f.write("a.yaml", keyed("a", "a.example", "sk third"))
	f.awaitText("(SecretInvalid)")
	f.write("a.yaml", strings.Replace(provider("a", "a.example", "m"), "model: m", "apiKey: sk-inline", 1))
	f.awaitText("(InlineKey)")
	for _, broken := range []string{
		strings.Replace(secret("x"), "'x'", "*sk-anchor", 1),
		strings.Replace(secret("x"), "stringData: {apiKey: 'x'}", "data: {apiKey: sk-base64!}", 1),
		strings.Replace(secret("x"), "'x'", "'sk-unclosed", 1),
	} {
		f.write("b.yaml", broken)
		f.awaitText("(UnreadableObject)")
		f.must(os.Remove(f.path("b.yaml")))
		f.awaitNo("(UnreadableObject)")
	}
	f.write("a.yaml", strings.Replace(provider("a", "a.example", "m"), "model: m", "apiKey: sk-wrong\n        apikey: sk-case", 1))
	f.awaitText("(UnknownField)")
	f.write("a.yaml", strings.Replace(keyed("a", "a.example", "sk-good"), "stringData:", "data: [sk-list]\nstringData:", 1))
	last := f.awaitText("(UnreadableObject)")
	f.hasNot(last, "sk-")
	if log := f.logged(); strings.Contains(log, "sk-") || strings.Contains(log, "sk third") {
		t.Errorf("a key is in the log:\n%s", log)
	}
}

func TestASecretThatIsNotThereIsUnresolved(t *testing.T) {
	f := newFollower(t, "a.yaml", strings.Replace(provider("a", "a.example", "m"), "model: m", "apiKeyRef: {name: keys}", 1))
	f.follow(f.dir)
	if p := f.problem(f.store.Load(), routing.SecretNotFound); p.Severity != routing.Unresolved {
		t.Errorf("got %s", p.Severity)
	}
	f.write("keys.yaml", secret("sk-x"))
	f.has(f.awaitNo("SecretNotFound"), "key=secret:keys/apiKey")
}

func TestWhatOthersMayReadOrWriteIsWarnedAbout(t *testing.T) {
	f := newFollower(t, "plain.yaml", provider("a", "a.example", "m"), "variable.yaml", strings.Replace(provider("b", "b.example", "m"), "model: m", "apiKey: ${KEY}", 1),
		"inline.yaml", strings.Replace(provider("c", "c.example", "m"), "model: m", "apiKey: sk-c", 1), "it's secret.yaml", secret("sk-d"))
	f.must(os.Chmod(f.dir, 0o755))
	for _, name := range []string{"plain.yaml", "variable.yaml", "inline.yaml", "it's secret.yaml"} {
		f.must(os.Chmod(f.path(name), 0o644))
	}
	f.follow(f.dir)
	s := f.store.Load()
	f.has(s,
		"warning File "+f.path("inline.yaml")+" "+f.path("inline.yaml")+" holds keys and other users may read it: chmod 600 "+f.path("inline.yaml")+" (ReadableByOthers)",
		`chmod 600 '`+f.dir+`/it'\''s secret.yaml' (ReadableByOthers)`)
	if n := strings.Count(show(s), "ReadableByOthers"); n != 2 {
		t.Errorf("%d warnings instead of 2:\n%s", n, show(s))
	}
	f.hasNot(s, "WritableByOthers")

	// Each is seen when it changes, though no content does.
	f.must(os.Chmod(f.path("inline.yaml"), 0o600))
	f.awaitNo("chmod 600 " + f.path("inline.yaml"))
	f.must(os.Chmod(f.path("plain.yaml"), 0o664))
	f.awaitText("chmod go-w " + f.path("plain.yaml") + " (WritableByOthers)")
	f.must(os.Chmod(f.dir, 0o777|os.ModeSticky))
	if p := f.awaitText("chmod go-w " + f.dir + " (WritableByOthers)"); len(p.Problems) == 0 || p.Problems[0].Field != "" {
		t.Errorf("got\n%s", show(p))
	}
}

func TestAFileInAStickyFolderIsSafeFromOthers(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "m"))
	f.must(os.Chmod(f.dir, 0o777|os.ModeSticky))
	f.follow(f.path("a.yaml"))
	f.hasNot(f.store.Load(), "WritableByOthers")
	f.must(os.Chmod(f.dir, 0o777))
	f.awaitText("chmod go-w " + f.dir + " (WritableByOthers)")
}

func TestAReportSaysWhereEachProblemIs(t *testing.T) {
	f := newFollower(t, "a.yaml", "# one\n---\n\n"+provider("a", "a.example:1", "m")+"---\n"+provider("a", "b.example", "m"), "b.yaml", "kind: x\n---\nkind: {\n", "c.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n")
	r, err := Read(f.dir, nil)
	f.must(err)
	var got []string
	for _, p := range r.Findings {
		got = append(got, strings.TrimPrefix(place{p.File, p.Line}.String(), f.dir+"/")+" "+p.Object.Kind+" "+string(p.Code))
	}
	want := "a.yaml:4 LLMProvider InvalidValue\na.yaml:15 LLMProvider DuplicateObject\nb.yaml File UnreadableObject"
	if strings.Join(got, "\n") != want || r.Objects != 2 || r.Ignored != 1 {
		t.Errorf("%d objects, %d ignored:\n%s", r.Objects, r.Ignored, strings.Join(got, "\n"))
	}
	if last := r.Findings[len(r.Findings)-1].Message; !strings.Contains(last, "the document at line 3") {
		t.Errorf("got %s", last)
	}
}

func TestAReportJudgesForTheLabelsThatAreGiven(t *testing.T) {
	if _, err := Read(t.TempDir()+"/nowhere", nil); err == nil {
		t.Error("no error for a path that does not exist")
	}
	f := newFollower(t, "a.yaml", strings.Replace(provider("a", "a.example", "m"), "spec:\n", "spec:\n  workloadSelector: {labels: {app: sleep}}\n", 1))
	f.follow(f.dir)
	f.has(f.store.Load(), "refused NotForThisWorkload")
}
