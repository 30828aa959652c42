//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// claim takes a name, a folder and a subnet. The file is the cluster's lock.
func claim(o Options, binaries string) (*spec, *os.File, error) {
	root, err := root()
	if err != nil {
		return nil, nil, err
	}
	unlock, err := exclusive(root)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	if err := sweep(root); err != nil {
		return nil, nil, err
	}
	taken, err := all(root)
	if err != nil {
		return nil, nil, err
	}
	s := &spec{Name: o.Name, Binaries: binaries, ControlPlane: o.ControlPlane, Detached: o.Detached}
	if s.Link, err = freeLink(taken); err != nil {
		return nil, nil, err
	}
	if s.Name == "" {
		s.Name = fmt.Sprintf("node-%d-%d", os.Getpid(), s.Link)
	}
	s.Folder = filepath.Join(root, s.Name)
	if err := os.Mkdir(s.Folder, 0o700); errors.Is(err, os.ErrExist) {
		return nil, nil, fmt.Errorf("there is a cluster %s already: `go run ./test/cluster down --name %s` ends it", s.Name, s.Name)
	} else if err != nil {
		return nil, nil, err
	}
	if err := s.write(lockFile, ""); err != nil {
		return nil, nil, err
	}
	held, err := s.lock()
	if err == nil {
		err = s.save()
	}
	return s, held, err
}

// exclusive waits for the right to make and remove folders of clusters. It is held for an instant only.
func exclusive(root string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(root, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // closing lifts it
}

// sweep removes what clusters have left whose keeper was killed. Detached ones stay for their logs, until somebody ends them.
func sweep(root string) error {
	left, err := all(root)
	if err != nil {
		return err
	}
	for _, s := range left {
		if s.Detached {
			continue
		}
		held, err := s.lock()
		if errors.Is(err, errLocked) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(s.close(), s.remove(), held.Close()); err != nil {
			return err
		}
	}
	// Removals that were interrupted are finished. One that goes on at this moment does not mind.
	half, err := filepath.Glob(filepath.Join(root, ".*"))
	for _, folder := range half {
		err = errors.Join(err, os.RemoveAll(folder))
	}
	return err
}
