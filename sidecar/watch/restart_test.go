package watch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/snapshot"
)

func TestARestartWhileTheAPIServerIsAwayTakesUpTheLastGoodConfiguration(t *testing.T) {
	n := newNamespace(t)
	n.apply(strings.Replace(provider("a", "a.example", "one"), "model: one", "model: one\n        apiKeyRef: {name: s, key: k}", 1) + "---\n" + keysSecret("s_k: sk-saved"))
	a := n.api()
	a.LastGood = filepath.Join(t.TempDir(), "made", "last.json")
	w := watch(t, a)
	w.awaitText("key=secret:s/k")
	n.apply(strings.Replace(provider("a", "new.example", "bad"), "  configs:", "  tls: {caBundle: bm90IGEgY2VydGlmaWNhdGU=}\n  configs:", 1))
	before := w.awaitText("keeps running")
	w.stop()
	info, err := os.Stat(a.LastGood)
	w.must(err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %s", info.Mode())
	}

	n.apply(provider("b", "b.example", "two")) // what the file does not know
	n.cp.APIServer.Kill()
	again := &API{Config: a.Config, Namespace: n.name, KeysSecret: a.KeysSecret, LastGood: a.LastGood}
	w = watch(t, again)
	at := time.Now()
	s := w.awaitReady()
	t.Logf("ready after %s", time.Since(at))
	if s.Table.Generation() != before.Table.Generation() {
		t.Errorf("another table than before:\n%s", show(s))
	}
	if got := keyOf(t, s, "a.example"); got != "sk-saved" {
		t.Errorf("the key is %q", got)
	}
	if s.Outage == nil || time.Since(s.Outage.Saved) > time.Hour {
		t.Errorf("outage %+v", s.Outage)
	}
	w.awaitLog("the last good configuration is in use")
	if err := n.cp.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = w.awaitText("model=two")
	w.has(s, "model=one", "keeps running") // the bad edit is still one
	w.await("no outage", func(s *snapshot.Snapshot) bool { return s.Outage == nil })
	if strings.Contains(w.logged(), "sk-saved") {
		t.Errorf("the key is in the log:\n%s", w.logged())
	}
}

func TestAnAPIServerThatIsThereDecidesAndNotWhatWasSaved(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "old"))
	a := n.api()
	a.LastGood = filepath.Join(t.TempDir(), "last.json")
	w := watch(t, a)
	w.awaitReady()
	w.stop()
	n.apply(provider("a", "a.example", "new"))
	again := &API{Config: a.Config, Namespace: n.name, KeysSecret: a.KeysSecret, LastGood: a.LastGood}
	w = watch(t, again)
	w.has(w.awaitReady(), "model=new")
	// Nor where it refuses.
	n.kubectl("delete", "rolebinding", "remora-sidecar", "-n", n.name)
	w.stop()
	third := &API{Config: a.Config, Namespace: n.name, KeysSecret: a.KeysSecret, LastGood: a.LastGood}
	w = watch(t, third)
	w.awaitLog("refuses")
	<-time.After(graceTime + time.Second)
	if w.store.Load().Ready {
		t.Error("without the right to read it, a configuration is in use")
	}
}

func TestWhatWasDeletedStaysRefusedAfterARestart(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one") + "---\n" + provider("b", "b.example", "two") + "---\n" + provider("c", "c.example", "three"))
	first := n.api()
	first.LastGood = filepath.Join(t.TempDir(), "last.json")
	start := func() *watching {
		return watch(t, &API{Config: first.Config, Namespace: n.name, KeysSecret: first.KeysSecret, LastGood: first.LastGood})
	}
	w := start()
	w.awaitText("model=three")
	n.kubectl("delete", "llmprovider", "a", "-n", n.name)
	w.awaitText("host a.example\n  refused HostRetired")
	w.stop()
	n.kubectl("delete", "llmprovider", "b", "-n", n.name) // while it is away
	w = start()
	s := w.awaitReady()
	w.has(s, "host a.example\n  refused HostRetired", "host b.example\n  refused HostRetired", "model=three")
	w.stop()
	w = start() // by now it is only in what was saved of the names
	w.has(w.awaitReady(), "host a.example\n  refused HostRetired", "host b.example\n  refused HostRetired", "model=three")
	n.apply(provider("a", "a.example", "again"))
	w.hasNot(w.awaitText("model=again"), "host a.example\n  refused")
}

func TestNothingIsPassedOnBeforeTheFirstObject(t *testing.T) {
	n := newNamespace(t)
	first := n.api()
	first.LastGood = filepath.Join(t.TempDir(), "last.json")
	start := func() *watching {
		return watch(t, &API{Config: first.Config, Namespace: n.name, KeysSecret: first.KeysSecret, LastGood: first.LastGood})
	}
	passes := func(s *snapshot.Snapshot) bool { return s.Ready && !s.Table.Incomplete() }
	for range 2 { // nor after a restart
		w := start()
		if passes(w.awaitReady()) {
			t.Error("there has never been an object, and calls to unknown hosts are passed on")
		}
		w.stop()
	}
	w := start()
	w.awaitReady()
	n.apply(provider("a", "a.example", "one"))
	w.await("calls to other hosts", passes)
	// Its end is no reason to cut what else the app does.
	n.kubectl("delete", "llmprovider", "a", "-n", n.name)
	s := w.awaitText("host a.example\n  refused HostRetired")
	w.stop()
	w = start()
	if again := w.awaitReady(); !passes(s) || !passes(again) {
		t.Errorf("passes on after the end of the last: %v, and after a restart: %v", passes(s), passes(again))
	}
}

func TestThousandsOfObjectsAreCompiledOnceAtStartAndAChangeIsStillFast(t *testing.T) {
	const count = 2000 // test/integration has a namespace of 10,000
	n := newNamespace(t)
	client := n.client("llmproviders")
	ctx := context.Background()
	numbers := make(chan int)
	var creators sync.WaitGroup
	for range 16 {
		creators.Go(func() {
			for i := range numbers {
				name := fmt.Sprintf("p%05d", i)
				object := map[string]any{
					"apiVersion": v1beta1.GroupVersion.String(), "kind": v1beta1.KindLLMProvider, "metadata": map[string]any{"name": name},
					"spec": map[string]any{"host": name + ".example", "configs": map[string]any{"defaultConfig": map[string]any{"openAIConfig": map[string]any{"model": "m"}}}},
				}
				if _, err := client.Create(ctx, &unstructured.Unstructured{Object: object}, metav1.CreateOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range count {
		numbers <- i
	}
	close(numbers)
	creators.Wait()

	at := time.Now()
	w := watch(t, n.api())
	s := w.awaitReady()
	took := time.Since(at)
	if h := s.Table.Host([]byte("p01999.example")); h == nil || h.Refusal != nil {
		t.Error("the last object is not in the first table")
	}
	edit := n.editor("llmproviders", "p01000")
	var slowest time.Duration
	for i := range 5 {
		model := fmt.Sprintf("edited%d", i)
		at := edit(`{"spec":{"configs":{"defaultConfig":{"openAIConfig":{"model":"` + model + `"}}}}}`)
		w.await(model, func(s *snapshot.Snapshot) bool {
			h := s.Table.Host([]byte("p01000.example"))
			return h.Rules[0].Levels[0].Backends[0].Target.Model == model
		})
		slowest = max(slowest, time.Since(at))
	}
	t.Logf("ready after %s; slowest of 5 changes %s", took, slowest)
	if tables := strings.Count(w.logged(), "configuration in use"); tables > 6 { // the line of the last one may be missing yet
		t.Errorf("%d tables for one start and 5 changes", tables)
	}
	w.stop()
	if err := client.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
}
