package watch

import (
	"os"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

func TestAnInvalidEditKeepsTheLastGoodVersionWhileOthersChange(t *testing.T) {
	f := newFollower(t, "all.yaml", provider("a", "a.example", "one")+"---\n"+provider("b", "b.example", "one"))
	f.follow(f.dir)
	f.write("all.yaml", provider("a", "http://a.example", "two")+"---\n"+provider("b", "b.example", "three"))
	s := f.awaitText("model=three")
	f.has(s, "https://a.example:443/v1/chat/completions model=one", `spec.host: "http://a.example" has a scheme`)
	f.hasNot(s, "model=two")
	if p := f.problem(s, routing.InvalidValue); p.Object.String() != "LLMProvider default/a" || p.Severity != routing.Invalid {
		t.Errorf("the problem is of %s", p.Object)
	}
	line := f.awaitLog("configuration is invalid")
	if !strings.Contains(line, "all.yaml:1") || !strings.Contains(line, "InvalidValue") {
		t.Errorf("the log does not say where: %s", line)
	}

	// Said once, also when something else changes.
	f.write("b.yaml", provider("c", "c.example", "four"))
	f.awaitText("model=four")
	f.write("all.yaml", provider("a", "a.example", "five")+"---\n"+provider("b", "b.example", "three"))
	s = f.awaitText("model=five")
	if len(s.Problems) > 0 {
		t.Errorf("problems are left:\n%s", show(s))
	}
	if n := strings.Count(f.logged(), "configuration is invalid"); n != 1 {
		t.Errorf("the problem was logged %d times:\n%s", n, f.logged())
	}
}

func TestAnEditThatCannotBeDecodedKeepsTheLastGoodVersion(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"))
	f.follow(f.dir)
	f.write("a.yaml", strings.Replace(provider("a", "new.example", "two"), "configs:", "config:", 1))
	s := f.awaitText("(UnknownField)")
	f.has(s, "model=one", "the version from before this edit keeps running",
		"host new.example\n  refused InvalidConfiguration: LLMProvider default/a (")
	f.problem(s, routing.UnknownField)
}

func TestAnObjectThatNeverRanIsLeftOutAndItsHostIsRefused(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example:80", "one")+"---\n"+provider("b", "b.example", "two"))
	f.follow(f.dir)
	s := f.store.Load()
	f.has(s, "host a.example\n  refused InvalidConfiguration", "has a port", "model=two")
	if !s.Ready || s.Table.Incomplete() {
		t.Errorf("ready %v, incomplete %v", s.Ready, s.Table.Incomplete())
	}
}

func TestAFileThatBreaksKeepsItsObjects(t *testing.T) {
	f := newFollower(t, "a.yaml", "# first\n"+provider("a", "a.example", "one")+"---\n"+provider("b", "b.example", "two"), "c.yaml", provider("c", "c.example", "three"))
	f.follow(f.dir)
	f.write("a.yaml", "# first\n"+provider("a", "a.example", "new")+"---\nkind: [\n  unclosed: {\n")
	f.write("c.yaml", provider("c", "c.example", "four"))
	s := f.await("c changes, a breaks", func(s *snapshot.Snapshot) bool {
		return strings.Contains(show(s), "(UnreadableObject)") && strings.Contains(show(s), "model=four")
	})
	f.has(s, "model=one", "model=two", "File "+f.path("a.yaml"), "the document at line 13 is", "what was read from it before keeps running")
	if s.Table.Incomplete() {
		t.Error("incomplete, although every file has been read once")
	}
	f.write("a.yaml", provider("a", "a.example", "new"))
	s = f.awaitText("model=new")
	f.has(s, "host b.example\n  refused HostRetired")
	f.hasNot(s, "UnreadableObject", "https://b.example")
}

func TestAFileThatWasNeverReadMakesTheTableIncomplete(t *testing.T) {
	f := newFollower(t, "a.yaml", "kind: {", "b.yaml", provider("b", "b.example", "one"))
	f.follow(f.dir)
	s := f.store.Load()
	if !s.Table.Incomplete() || !s.Ready {
		t.Errorf("ready %v, incomplete %v", s.Ready, s.Table.Incomplete())
	}
	f.has(s, "model=one", "calls to hosts that nothing else configures are refused")
	f.write("a.yaml", provider("a", "a.example", "two"))
	if f.awaitText("model=two").Table.Incomplete() {
		t.Error("still incomplete")
	}
}

func TestNothingIsPassedOnWhileNothingIsConfigured(t *testing.T) {
	f := newFollower(t)
	f.follow(f.dir)
	if !f.store.Load().Table.Incomplete() {
		t.Error("an empty folder passes calls on")
	}
	f.write("a.yaml", provider("a", "a.example", "one"))
	if f.awaitText("model=one").Table.Incomplete() {
		t.Error("a configured sidecar passes nothing on")
	}
	f.must(os.Remove(f.path("a.yaml"))) // as in rm *; cp new/* .
	f.await("nothing to be passed on", func(s *snapshot.Snapshot) bool { return s.Table.Incomplete() })
}

func TestTheOlderObjectKeepsAHostThatAnEditClaims(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"), "b.yaml", provider("b", "b.example", "two"))
	f.follow(f.dir)
	// a has the lesser name and would win if both were of one age.
	f.write("a.yaml", provider("a", "b.example", "three"))
	s := f.awaitText("(HostConflict)")
	f.has(s, "https://a.example:443/v1/chat/completions model=one", "https://b.example:443/v1/chat/completions model=two")
	if p := f.problem(s, routing.HostConflict); p.Object.Name != "a" {
		t.Errorf("the conflict is that of %s", p.Object)
	}
	// It takes effect as soon as it can.
	f.write("b.yaml", provider("b", "c.example", "two"))
	s = f.awaitText("https://b.example:443/v1/chat/completions model=three")
	f.has(s, "https://c.example:443/v1/chat/completions model=two")
	f.hasNot(s, "HostConflict", "https://a.example")
}

func TestANewObjectDoesNotTakeAHostAndItsRivalCanStillBeEdited(t *testing.T) {
	f := newFollower(t, "b.yaml", provider("b", "b.example", "one"))
	f.follow(f.dir)
	f.write("a.yaml", provider("a", "b.example", "two"))
	f.has(f.awaitText("(HostConflict)"), "model=one")
	f.write("b.yaml", provider("b", "b.example", "three"))
	s := f.awaitText("model=three")
	f.hasNot(s, "model=one", "model=two")
	if p := f.problem(s, routing.HostConflict); p.Object.Name != "a" {
		t.Errorf("the conflict is that of %s", p.Object)
	}
}

func TestTwoObjectsMaySwapTheirHostsAtOnce(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one")+"---\n"+provider("b", "b.example", "two"))
	f.follow(f.dir)
	f.write("a.yaml", provider("a", "b.example", "one")+"---\n"+provider("b", "a.example", "two"))
	s := f.awaitText("https://b.example:443/v1/chat/completions model=one")
	f.has(s, "https://a.example:443/v1/chat/completions model=two")
	if len(s.Problems) > 0 {
		t.Errorf("problems where there are none:\n%s", show(s))
	}
}

func TestASecondObjectOfOneNameIsRefusedAndTheFirstRuns(t *testing.T) {
	f := newFollower(t, "b.yaml", provider("a", "a.example", "one"))
	f.follow(f.dir)
	// Before the other by name, but later in time.
	f.write("a.yaml", provider("a", "other.example", "two"))
	s := f.awaitText("(DuplicateObject)")
	f.has(s, "model=one", "host other.example\n  refused InvalidConfiguration")
	f.hasNot(s, "model=two")
	if line := f.awaitLog("DuplicateObject"); !strings.Contains(line, "a.yaml:1") {
		t.Errorf("the log names another place: %s", line)
	}
	// The one that runs can still be edited.
	f.write("b.yaml", provider("a", "a.example", "three"))
	f.hasNot(f.awaitText("model=three"), "model=two")
}

func TestAFolderStandsForOneNamespace(t *testing.T) {
	in := func(namespace, doc string) string {
		return strings.Replace(doc, "metadata:\n", "metadata:\n  namespace: "+namespace+"\n", 1)
	}
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"), "b.yaml", in("team", provider("b", "b.example", "two")), "c.yaml", in("other", provider("c", "c.example", "three")))
	f.follow(f.dir)
	s := f.store.Load()
	f.has(s, "of LLMProvider team/a", "of LLMProvider team/b", "host c.example\n  refused InvalidConfiguration")
	p := f.problem(s, routing.InvalidValue)
	if p.Object.String() != "LLMProvider other/c" || p.Field != "metadata.namespace" || p.Severity != routing.Invalid || !strings.Contains(p.Message, `"team"`) {
		t.Errorf("got %s: %s", p.Object, p)
	}
	// A file that comes earlier does not change what the folder stands for.
	f.write("0.yaml", in("late", provider("d", "d.example", "four")))
	f.has(f.awaitText("LLMProvider late/d"), "of LLMProvider team/a", "host d.example\n  refused")
}

func TestListsAreReadAsTheirItems(t *testing.T) {
	indent := func(doc string) string { return "- " + strings.ReplaceAll(strings.TrimSpace(doc), "\n", "\n  ") + "\n" }
	f := newFollower(t, "a.yaml", "apiVersion: v1\nkind: List\nitems:\n"+indent(provider("a", "a.example", "one"))+indent(provider("b", "b.example", "two")))
	f.follow(f.dir)
	f.has(f.store.Load(), "model=one", "model=two")
}
