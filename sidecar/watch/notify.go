package watch

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-logr/logr"
)

// When to look again.
const (
	quietTime = 10 * time.Millisecond  // without events, before what is there is taken for finished
	busyTime  = 200 * time.Millisecond // of events without a pause, before it is read nevertheless
	pollTime  = 2 * time.Second        // for file systems without events, and for what symbolic links lead to
)

// notifier tells when to look at PATH again.
type notifier struct {
	path    string
	log     logr.Logger
	watcher *fsnotify.Watcher // nil where there is none
	folder  string            // that is watched; empty: none
	info    os.FileInfo       // of the folder when it was added
	single  bool              // PATH is a file

	events <-chan fsnotify.Event
	errs   <-chan error
	retry  bool
	wake   chan struct{} // something else than PATH is to be looked at; nil: nothing is
}

func newNotifier(path string, log logr.Logger) *notifier {
	n := &notifier{path: filepath.Clean(path), log: log}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Info("no file events: changes are seen within seconds", "reason", err.Error())
		return n
	}
	n.watcher, n.events, n.errs = w, w.Events, w.Errors
	return n
}

func (n *notifier) close() {
	if n.watcher != nil {
		_ = n.watcher.Close()
	}
}

// again asks for a look soon.
func (n *notifier) again() { n.retry = true }

// attach watches PATH, or the folder it is in, also where another folder has taken its place. It comes
// before a look, so that no change falls between the two.
func (n *notifier) attach() {
	if n.watcher == nil {
		return
	}
	folder := n.path
	info, err := os.Stat(folder)
	if err != nil || !info.IsDir() { // a file, or nothing: its folder tells when there is something
		folder = filepath.Dir(n.path)
		info, err = os.Stat(folder)
	}
	if err == nil && folder == n.folder && os.SameFile(info, n.info) && slices.Contains(n.watcher.WatchList(), folder) {
		return
	}
	if n.folder != "" {
		_ = n.watcher.Remove(n.folder) // it may be gone already
		n.folder = ""
	}
	if err != nil {
		return
	}
	if err := n.watcher.Add(folder); err != nil {
		n.log.V(1).Info("no file events for now", "folder", folder, "reason", err.Error())
		return
	}
	n.folder, n.info, n.single = folder, info, folder != n.path
}

// wait returns when PATH may have changed; false when ctx has ended.
func (n *notifier) wait(ctx context.Context) bool {
	poll := time.NewTimer(pollTime)
	defer poll.Stop()
	quiet := time.NewTimer(quietTime)
	defer quiet.Stop()
	if !n.retry {
		quiet.Stop()
	}
	n.retry = false
	var busy time.Time // until when to wait for quiet
	for {
		select {
		case <-ctx.Done():
			return false
		case e := <-n.events:
			if !n.concerns(e) {
				continue
			}
			if busy.IsZero() {
				busy = time.Now().Add(busyTime)
			}
			quiet.Reset(min(quietTime, time.Until(busy)))
		case err := <-n.errs:
			n.log.V(1).Info("file events were lost", "reason", err.Error())
			return true
		case <-quiet.C:
			return true
		case <-n.wake:
			return true
		case <-poll.C:
			return true
		}
	}
}

// concerns leaves out the events of PATH's neighbours; ConfigMaps change by names that begin with "..".
func (n *notifier) concerns(e fsnotify.Event) bool {
	base := filepath.Base(e.Name)
	return !n.single || e.Name == n.folder || base == filepath.Base(n.path) || strings.HasPrefix(base, "..")
}
