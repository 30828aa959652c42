package watch

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/snapshot"
)

func TestAFileThatIsReplacedTakesEffect(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"))
	f.follow(f.dir)
	f.awaitText("model=one")
	f.write("a.yaml", provider("a", "a.example", "two"))
	f.awaitText("model=two")
}

func TestAFileThatIsWrittenInPlaceTakesEffect(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"))
	f.follow(f.dir)
	for i := range 20 {
		// Of the same length, and so soon that the time stamp may be the same.
		model := fmt.Sprintf("m%02d", i)
		f.must(os.WriteFile(f.path("a.yaml"), []byte(provider("a", "a.example", model)), 0o600))
		f.awaitText("model=" + model)
	}
}

func TestAFileThatIsTruncatedKeepsItsObjectsUntilItIsWritten(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"), "b.yaml", provider("b", "b.example", "two"))
	f.follow(f.dir)
	f.must(os.Truncate(f.path("a.yaml"), 0))
	s := f.awaitText("is empty: to remove its objects, delete the file")
	f.has(s, "host a.example", "model=one", "host b.example")
	f.must(os.WriteFile(f.path("a.yaml"), []byte(provider("a", "a.example", "three")), 0o600))
	f.hasNot(f.awaitText("model=three"), "is empty")
}

func TestAConfigMapIsSwappedAsAWhole(t *testing.T) {
	f := newFollower(t)
	for version, model := range map[string]string{"..1": "one", "..2": "two"} {
		f.must(os.Mkdir(f.path(version), 0o700))
		for _, name := range []string{"a", "b"} {
			f.must(os.WriteFile(f.path(version+"/"+name+".yaml"), []byte(provider(name, name+".example", model)), 0o600))
		}
	}
	f.must(os.Symlink("..1", f.path("..data")))
	for _, name := range []string{"a.yaml", "b.yaml"} {
		f.must(os.Symlink("..data/"+name, f.path(name)))
	}
	f.follow(f.dir)
	f.hasNot(f.awaitText("model=one"), "model=two")

	f.must(os.Symlink("..2", f.path("..data_tmp")))
	f.must(os.Rename(f.path("..data_tmp"), f.path("..data")))
	f.hasNot(f.awaitText("model=two"), "model=one")
}

func TestOneFileOfAConfigMapIsFollowedByItself(t *testing.T) {
	f := newFollower(t)
	for version, model := range map[string]string{"..1": "one", "..2": "two"} {
		f.must(os.Mkdir(f.path(version), 0o700))
		f.must(os.WriteFile(f.path(version+"/a.yaml"), []byte(provider("a", "a.example", model)), 0o600))
	}
	f.must(os.Symlink("..1", f.path("..data")))
	f.must(os.Symlink("..data/a.yaml", f.path("a.yaml")))
	f.follow(f.path("a.yaml"))
	f.must(os.Symlink("..2", f.path("..data_tmp")))
	f.must(os.Rename(f.path("..data_tmp"), f.path("..data")))
	f.awaitText("model=two")
}

func TestAFileInsteadOfAFolderIsFollowedWithoutItsNeighbours(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"), "b.yaml", provider("b", "b.example", "two"))
	f.follow(f.path("a.yaml"))
	f.hasNot(f.awaitText("model=one"), "b.example")
	f.write("a.yaml", provider("a", "a.example", "three"))
	f.hasNot(f.awaitText("model=three"), "b.example")
	f.must(os.Remove(f.path("a.yaml")))
	f.has(f.awaitText("(ConfigurationUnread)"), "model=three", "what was read before keeps running")
	f.write("a.yaml", provider("a", "a.example", "four"))
	f.hasNot(f.awaitText("model=four"), "ConfigurationUnread")
}

func TestAChangeTakesEffectAlsoWhereEventsNeverPause(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"))
	f.follow(f.dir)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_ = os.WriteFile(f.path("noise.log"), []byte{byte(i)}, 0o600)
			}
		}
	}()
	f.write("a.yaml", provider("a", "a.example", "two"))
	f.awaitText("model=two")
	close(stop)
	<-stopped
}

func TestWhatIsRemovedIsServedNoMore(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one")+"---\n"+provider("b", "b.example", "two"), "c.yml", provider("c", "c.example", "three"))
	f.follow(f.dir)
	f.write("a.yaml", provider("b", "b.example", "two"))
	f.has(f.awaitNo("https://a.example"), "https://b.example", "https://c.example")
	f.must(os.Remove(f.path("c.yml")))
	f.has(f.awaitNo("https://c.example"), "https://b.example")
}

func TestOnlyTheFilesOfTheFolderItselfAreRead(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "m"), "b.json", `{
	"apiVersion": "istio.alibabacloud.com/v1beta1", "kind": "LLMProvider",
	"metadata": {"name": "b"}, "spec": {"host": "b.example"}
}`, ".hidden.yaml", provider("c", "c.example", "m"), "d.yaml.bak", provider("d", "d.example", "m"), "pod.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n")
	f.must(os.Mkdir(f.path("deeper.yaml"), 0o700))
	f.must(os.WriteFile(f.path("deeper.yaml/e.yaml"), []byte(provider("e", "e.example", "m")), 0o600))
	f.follow(f.dir)
	s := f.awaitText("a.example")
	f.has(s, "b.example")
	f.hasNot(s, "c.example", "d.example", "e.example")
	if len(s.Problems) > 0 || s.Table.Incomplete() {
		t.Errorf("problems where there are none:\n%s", show(s))
	}
	if log := f.logged(); !strings.Contains(log, `"kind"="Pod" "name"="p"`) {
		t.Errorf("the log does not tell of the Pod:\n%s", log)
	}
}

func TestAFolderThatVanishesKeepsWhatWasReadAndIsFollowedAgain(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"))
	f.follow(f.dir)
	aside := f.dir + "-aside"
	f.must(os.Rename(f.dir, aside))
	t.Cleanup(func() { _ = os.RemoveAll(aside) })
	s := f.awaitText("(ConfigurationUnread)")
	f.has(s, "model=one", "what was read before keeps running")
	if !s.Ready {
		t.Error("no longer ready")
	}

	f.must(os.Mkdir(f.dir, 0o700))
	f.write("a.yaml", provider("a", "a.example", "two"))
	f.hasNot(f.awaitText("model=two"), "ConfigurationUnread")
	f.write("a.yaml", provider("a", "a.example", "three"))
	f.awaitText("model=three")
}

func TestAPathThatDoesNotExistIsAnError(t *testing.T) {
	files := &Files{Path: t.TempDir() + "/nowhere", Store: snapshot.NewStore()}
	if err := files.Load(); err == nil || !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
	if files.Store.Load().Ready {
		t.Error("ready without a configuration")
	}
}

func TestNothingIsPublishedWhereNothingChanged(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"))
	f.follow(f.dir)
	f.write("a.yaml", "# a comment\n"+provider("a", "a.example", "one"))
	f.write("unrelated.txt", "x")
	f.write("b.yaml", provider("b", "b.example", "two"))
	f.awaitText("b.example")
	generations := map[string]int{}
	for len(f.published) > 0 {
		generations[(<-f.published).Table.Generation()]++
	}
	for generation, n := range generations {
		if n > 1 {
			t.Errorf("%s was published %d times", generation, n)
		}
	}
}

func TestFiveThousandObjectsAreFollowed(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		b.WriteString("---\n" + provider(fmt.Sprintf("p%d", i), fmt.Sprintf("h%d.example", i), "one"))
	}
	f := newFollower(t, "all.yaml", b.String())
	f.follow(f.dir)
	f.has(f.store.Load(), "host h0.example", "host h4999.example")
	f.write("all.yaml", strings.Replace(b.String(), "host: h2500.example\n", "host: moved.example\n", 1))
	s := f.awaitText("host moved.example")
	f.hasNot(s, "https://h2500.example")
	f.has(s, "host h4999.example")
}
