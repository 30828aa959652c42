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
		held, err := lock(s.file(lockFile))
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
	return &Node{spec: s}, err
}

// Down ends the cluster and returns when nothing is left of it: no process, interface, cgroup or file. Calling it again,
// or after the cluster has ended by itself, does no harm.
func (n *Node) Down(ctx context.Context) error {
	if n.lifeline != nil {
		defer n.lifeline.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	s := n.spec
	asked := false
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if _, err := os.Stat(s.file(lockFile)); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		held, err := lock(s.file(lockFile))
		switch {
		case err == nil: // the keeper is gone, and with it the cluster; what it could not remove is removed here
			return errors.Join(s.close(), s.remove(), held.Close())
		case errors.Is(err, os.ErrNotExist):
			return nil
		case !errors.Is(err, errLocked):
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

// explanation is what the cluster itself has to say about its failure.
func (s *spec) explanation() string {
	var text strings.Builder
	reason, _ := os.ReadFile(s.file(failedFile)) //nolint:errcheck // most often there is none
	if len(reason) > 0 {
		fmt.Fprintf(&text, "\n%s", reason)
	}
	parts := []string{"keeper"}
	for _, c := range s.components() {
		// The one that failed is named first in the reason; without a reason, any of them may be stuck.
		if len(reason) == 0 || strings.HasPrefix(string(reason), c.name+" ") {
			parts = append(parts, c.name)
		}
	}
	for _, part := range parts {
		content, err := os.ReadFile(s.log(part))
		if err != nil || len(content) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(content)), "\n")
		fmt.Fprintf(&text, "\n%s.log ends with\n  %s", part, strings.Join(lines[max(0, len(lines)-6):], "\n  "))
	}
	return text.String()
}
