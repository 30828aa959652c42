//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stopTime is what a cluster may take to end before its keeper is killed.
const stopTime = 30 * time.Second

// State is what List tells of a cluster.
type State struct {
	Name         string
	Running      bool
	ControlPlane bool // etcd and the API server only
	Detached     bool
	Failed       string // why it has ended by itself; empty if it has not
	Kubeconfig   string
	Logs         string
}

// List gives all clusters of this user, those included that have ended by themselves and whose logs are kept.
func List() ([]State, error) {
	dir, err := root()
	if err != nil {
		return nil, err
	}
	found, err := all(dir)
	if err != nil {
		return nil, err
	}
	var states []State
	for _, s := range found {
		state := State{
			Name: s.Name, ControlPlane: s.ControlPlane, Detached: s.Detached,
			Kubeconfig: s.file("kubeconfig"), Logs: s.file("log"),
		}
		held, err := s.lock()
		switch {
		case errors.Is(err, errLocked):
			state.Running = true
		case errors.Is(err, os.ErrNotExist):
			continue // it has just gone
		case err != nil:
			return nil, err
		default:
			if err := held.Close(); err != nil {
				return nil, err
			}
		}
		if reason, err := os.ReadFile(s.file(failedFile)); err == nil {
			state.Failed = strings.TrimSpace(string(reason))
		}
		states = append(states, state)
	}
	slices.SortFunc(states, func(a, b State) int { return strings.Compare(a.Name, b.Name) })
	return states, nil
}

// ErrNone says that there is no cluster of the name.
var ErrNone = errors.New("there is no such cluster")

// Find gives the cluster of a name, which another process may have started. It need not be running. Without one, the error
// is ErrNone.
func Find(name string) (*Node, error) {
	root, err := root()
	if err != nil {
		return nil, err
	}
	s, err := load(filepath.Join(root, name))
	if errors.Is(err, os.ErrNotExist) || !validName(name) {
		return nil, fmt.Errorf("%w: %s", ErrNone, name)
	}
	return &Node{spec: s, lifeline: -1}, err
}

// Down ends the cluster and returns when nothing is left of it: no process, interface, cgroup or file. Calling it again,
// or after the cluster has ended by itself, does no harm.
func (n *Node) Down(ctx context.Context) error {
	if n.lifeline >= 0 {
		defer func() {
			_ = syscall.Close(n.lifeline) // a second hint to the keeper, where the first was not heard
			n.lifeline = -1
		}()
	}
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	s := n.spec
	held, err := os.Open(s.file(lockFile)) // it stays this file, also while the folder is being removed
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	asked := false
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := tryLock(held)
		if err == nil { // the keeper is gone, and with it the cluster
			return s.finish(held)
		}
		if !errors.Is(err, errLocked) {
			return err
		}
		// As long as the lock is taken, the number is the keeper's.
		if keeper, err := s.number(keeperFile); err == nil && !asked {
			asked = syscall.Kill(keeper, syscall.SIGTERM) == nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			if keeper, err := s.number(keeperFile); err == nil {
				_ = syscall.Kill(keeper, syscall.SIGKILL) // the kernel ends the cluster with it
			}
			return fmt.Errorf("cluster %s does not end: %w; see %s", s.Name, ctx.Err(), n.Logs())
		}
	}
}

// finish does what is left of a keeper's work, if anything is: it may have been killed. By now the name may be that of
// another cluster, which has another lock.
func (s *spec) finish(lock *os.File) error {
	ours, err := lock.Stat()
	if err != nil {
		return err
	}
	found, err := os.Stat(s.file(lockFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || !os.SameFile(ours, found) {
		return err
	}
	return errors.Join(s.close(), s.remove())
}

// explanation is what the cluster itself has to say about its failure.
func (n *Node) explanation(ctx context.Context) string {
	var text strings.Builder
	parts := []string{"keeper"}
	if reason, err := os.ReadFile(n.spec.file(failedFile)); err == nil {
		fmt.Fprintf(&text, "\n%s", reason)
		name, _, _ := strings.Cut(string(reason), " ") // "etcd has ended …"
		parts = append(parts, name)
	} else {
		parts = append(parts, "kube-apiserver", "kubelet") // nothing has failed, but something does not come
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		events, err := n.Kubectl(ctx, "get", "events", "--all-namespaces", "--field-selector=type=Warning", "--no-headers",
			"--output=custom-columns=:.involvedObject.kind,:.involvedObject.name,:.message")
		if err == nil && strings.TrimSpace(events) != "" {
			fmt.Fprintf(&text, "\nwarnings in the cluster:%s", lastLines(events, 5))
		}
	}
	for _, part := range parts {
		if content, err := os.ReadFile(n.spec.log(part)); err == nil && len(content) > 0 {
			fmt.Fprintf(&text, "\n%s.log ends with%s", part, lastLines(string(content), 5))
		}
	}
	return text.String()
}

// lastLines are the last lines of a text, none of them longer than a screen is wide several times over.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	var last strings.Builder
	for _, line := range lines[max(0, len(lines)-n):] {
		last.WriteString("\n  " + line[:min(len(line), 600)])
	}
	return last.String()
}
