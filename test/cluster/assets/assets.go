// Package assets provides the programs of a Kubernetes: etcd, the API server and the rest, built from the Go modules that
// test/cluster/kubernetes/go.mod pins, and kept outside the checkout. The first build takes minutes; after it, only a change
// of that folder, or of Go's version, leads to another.
package assets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Variable is the environment variable that names a folder with the programs. Where it is set, nothing is built.
// Tools around Kubernetes know it by this name.
const Variable = "KUBEBUILDER_ASSETS"

// kept is how many builds stay in the cache: the current one, and the one of the branch that was worked on before.
const kept = 2

// ControlPlane are the programs of an API server that nothing runs on.
var ControlPlane = []string{"etcd", "kube-apiserver", "kubectl"}

// Node are the programs of a node that runs pods, its control plane among them.
var Node = append([]string{"kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns", "pause"}, ControlPlane...)

// Dir gives the folder with the programs: that of $KUBEBUILDER_ASSETS, or one in the user's cache, where they are built if
// they are not there yet. How that goes is told on progress. The named programs (without any: those of ControlPlane) are
// sure to be in it. With a warm cache it takes milliseconds and no network. Of several callers at once, in whatever
// processes, one builds and the others wait.
func Dir(ctx context.Context, progress io.Writer, names ...string) (string, error) {
	if len(names) == 0 {
		names = ControlPlane
	}
	if dir := os.Getenv(Variable); dir != "" {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		if missing := missing(dir, names); len(missing) > 0 {
			return "", fmt.Errorf("$%s is %s, where these programs are missing: %s. Unset it, and they are built from source",
				Variable, dir, strings.Join(missing, ", "))
		}
		return dir, nil
	}
	source, err := sources()
	if err != nil {
		return "", err
	}
	b, err := plan(ctx, source)
	if err != nil {
		return "", err
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where to keep the programs of Kubernetes: %w; set HOME, or %s to a folder that has them", err, Variable)
	}
	cache := filepath.Join(user, "remora", "kubernetes")
	dir := filepath.Join(cache, b.key)
	if len(missing(dir, Node)) > 0 {
		if err := provide(ctx, progress, cache, b); err != nil {
			return "", err
		}
	}
	now := time.Now()
	return dir, os.Chtimes(dir, now, now) // what was used last is kept
}

// missing are those of the names that are no programs in the folder.
func missing(dir string, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		status, err := os.Stat(filepath.Join(dir, name))
		return err == nil && status.Mode().IsRegular() && status.Mode()&0o111 != 0
	})
}

// sources finds the module of the programs, from any folder of the checkout: tests run in that of their package.
func sources() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := start; ; at = filepath.Dir(at) {
		dir := filepath.Join(at, "test", "cluster", "kubernetes")
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is in no checkout of Remora: set %s to a folder with the programs of Kubernetes", start, Variable)
		}
	}
}

// provide builds into the cache while it holds the lock, unless another has done it meanwhile.
func provide(ctx context.Context, progress io.Writer, cache string, b *build) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("the cache of Kubernetes' programs: %w", err)
	}
	unlock, err := lock(ctx, progress, filepath.Join(cache, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	dir := filepath.Join(cache, b.key)
	if len(missing(dir, Node)) == 0 {
		return nil
	}
	if err := removeUnfinished(cache); err != nil {
		return err
	}
	unfinished, err := os.MkdirTemp(cache, unfinishedPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	if err := b.run(ctx, progress, unfinished); err != nil {
		return err
	}
	if missing := missing(unfinished, Node); len(missing) > 0 {
		return fmt.Errorf("%s builds, but without %s", b.source, strings.Join(missing, ", "))
	}
	// What is there under this name is damaged: a complete build would have been taken.
	if err := errors.Join(os.RemoveAll(dir), os.Chmod(unfinished, 0o755), os.Rename(unfinished, dir)); err != nil {
		return err
	}
	return prune(cache, dir)
}

const unfinishedPrefix = "unfinished-"

// removeUnfinished removes what builds left that were killed. The caller holds the lock, so none of them is running.
func removeUnfinished(cache string) error {
	left, err := filepath.Glob(filepath.Join(cache, unfinishedPrefix+"*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// prune keeps the builds that were used last, the one given among them. Programs that run stay what they are.
func prune(cache, current string) error {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return err
	}
	used := map[string]time.Time{}
	var builds []string
	for _, entry := range entries {
		status, err := entry.Info()
		if err != nil || !entry.IsDir() {
			continue // the lock, or an entry that has just gone
		}
		dir := filepath.Join(cache, entry.Name())
		if builds = append(builds, dir); dir == current {
			used[dir] = time.Now()
			continue
		}
		used[dir] = status.ModTime()
	}
	slices.SortFunc(builds, func(a, b string) int { return used[b].Compare(used[a]) })
	for _, dir := range builds[min(kept, len(builds)):] {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// lock waits until no other process builds. The kernel lifts the lock of a process that dies.
func lock(ctx context.Context, progress io.Writer, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing lifts it
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if !told {
			fmt.Fprintln(progress, "Kubernetes: another process is building it; waiting for its end (minutes, the first time)")
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for another process that builds Kubernetes: %w", ctx.Err()), f.Close())
		}
	}
}
