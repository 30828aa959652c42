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

	"github.com/go-logr/logr/funcr"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// follower is a Files that runs, and what it has published and logged.
type follower struct {
	t         *testing.T
	dir       string
	store     *snapshot.Store
	published chan *snapshot.Snapshot
	lines     chan string
	labels    string            // the file with those of the pod; may be empty
	members   *snapshot.Members // may be nil

	mu  sync.Mutex
	log strings.Builder
}

// newFollower makes a folder with the files given as name and content. It does not yet read it.
func newFollower(t *testing.T, files ...string) *follower {
	t.Helper()
	f := &follower{t: t, dir: t.TempDir(), store: snapshot.NewStore(), published: make(chan *snapshot.Snapshot, 10000), lines: make(chan string, 10000)}
	for i := 0; i < len(files); i += 2 {
		f.write(files[i], files[i+1])
	}
	f.store.OnChange(func(s *snapshot.Snapshot) { f.published <- s })
	return f
}

// follow reads path and follows it until the test ends.
func (f *follower) follow(path string) *follower {
	f.t.Helper()
	files := &Files{Path: path, Store: f.store, Members: f.members, Log: funcr.New(func(_, args string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.log.WriteString(args + "\n")
		f.lines <- args
	}, funcr.Options{Verbosity: 9})}
	if f.labels != "" {
		files.PodLabels = readPodLabels(f.t, f.labels, files.Log)
	}
	f.must(files.Load())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		files.Run(ctx)
	}()
	f.t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

func (f *follower) path(name string) string { return filepath.Join(f.dir, name) }

// write replaces a file as most editors do: by another of the same name.
func (f *follower) write(name, content string) {
	f.t.Helper()
	temporary := f.path("." + name + ".tmp")
	f.must(os.WriteFile(temporary, []byte(content), 0o600))
	f.must(os.Rename(temporary, f.path(name)))
}

func (f *follower) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// await waits for a snapshot for which ok holds.
func (f *follower) await(what string, ok func(*snapshot.Snapshot) bool) *snapshot.Snapshot {
	f.t.Helper()
	limit := time.After(30 * time.Second)
	current := f.store.Load()
	for !ok(current) {
		select {
		case current = <-f.published:
		case <-limit:
			f.t.Fatalf("%s: did not come\n%s", what, show(f.store.Load()))
		}
	}
	return current
}

func (f *follower) awaitText(want string) *snapshot.Snapshot {
	f.t.Helper()
	return f.await(want, func(s *snapshot.Snapshot) bool { return strings.Contains(show(s), want) })
}

func (f *follower) awaitNo(text string) *snapshot.Snapshot {
	f.t.Helper()
	return f.await("no "+text, func(s *snapshot.Snapshot) bool { return !strings.Contains(show(s), text) })
}

// awaitLog waits for a line of the log.
func (f *follower) awaitLog(want string) string {
	f.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case line := <-f.lines:
			if strings.Contains(line, want) {
				return line
			}
		case <-limit:
			f.t.Fatalf("%s: was not logged\n%s", want, f.logged())
		}
	}
}

// logged gives the log so far.
func (f *follower) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

// show gives table and problems as text.
func show(s *snapshot.Snapshot) string {
	var b strings.Builder
	_, _ = s.Table.WriteTo(&b)
	for _, p := range s.Problems {
		fmt.Fprintf(&b, "%s %s %s\n", p.Severity, p.Object, p)
	}
	return b.String()
}

func (f *follower) has(s *snapshot.Snapshot, texts ...string) {
	f.t.Helper()
	for _, text := range texts {
		if all := show(s); !strings.Contains(all, text) {
			f.t.Errorf("%q is missing in\n%.5000s", text, all)
		}
	}
}

func (f *follower) hasNot(s *snapshot.Snapshot, texts ...string) {
	f.t.Helper()
	for _, text := range texts {
		if all := show(s); strings.Contains(all, text) {
			f.t.Errorf("%q is in\n%.5000s", text, all)
		}
	}
}

// problem finds the one problem of a code.
func (f *follower) problem(s *snapshot.Snapshot, code routing.Code) routing.Problem {
	f.t.Helper()
	var found []routing.Problem
	for _, p := range s.Problems {
		if p.Code == code {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		f.t.Fatalf("%d problems of code %s in\n%s", len(found), code, show(s))
	}
	return found[0]
}

// provider gives an LLMProvider with a model, which the table shows.
func provider(name, host, model string) string {
	return fmt.Sprintf(`apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata:
  name: %s
spec:
  host: %s
  configs:
    defaultConfig:
      openAIConfig:
        model: %s
`, name, host, model)
}

// keyed gives an LLMProvider whose key is in the Secret keys, and that Secret.
func keyed(name, host, value string) string {
	return strings.Replace(provider(name, host, "m"), "model: m", "apiKeyRef: {name: keys}", 1) + "---\n" + secret(value)
}

func secret(value string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {apiKey: '" + value + "'}\n"
}
