//go:build linux

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
)

// Addresses inside a cluster. No two clusters share a network, so all have the same.
const (
	serviceRange = "10.96.0.0/16"
	apiAddress   = "10.96.0.1"
	dnsAddress   = "10.96.0.10"
	podRange     = "10.244.0.0/24"
)

// spec is all that the processes of a cluster have to know of it. It is written to a file in its folder.
type spec struct {
	Name         string
	Folder       string // state, logs, keys; gone when the cluster is
	Binaries     string
	Link         int // numbers the veth pair and its subnet; unique on the machine
	ControlPlane bool
	Detached     bool // it outlives the process that started it
}

// links are the subnets of four addresses that veth pairs may have: of 198.18.0.0/15, which is set aside for tests of
// networks (RFC 2544), so that no real network has it.
const links = 1 << 15

func (s *spec) address(n int) string {
	offset := s.Link*4 + n
	return netip.AddrFrom4([4]byte{198, byte(18 + offset>>16), byte(offset >> 8), byte(offset)}).String()
}

func (s *spec) hostAddress() string { return s.address(1) }
func (s *spec) nodeAddress() string { return s.address(2) }
func (s *spec) interfaceName() string {
	return fmt.Sprintf("remora%d", s.Link)
}
func (s *spec) url() string { return "https://" + s.nodeAddress() + ":6443" }
func (s *spec) file(parts ...string) string {
	return filepath.Join(append([]string{s.Folder}, parts...)...)
}
func (s *spec) binary(name string) string       { return filepath.Join(s.Binaries, name) }
func (s *spec) log(part string) string          { return s.file("log", part+".log") }
func (s *spec) number(name string) (int, error) { return readNumber(s.file(name)) }
func (s *spec) write(name, content string) error {
	return os.WriteFile(s.file(name), []byte(content), 0o600)
}

const specFile = "node.json"

func (s *spec) save() error {
	content, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return s.write(specFile, string(content))
}

func load(folder string) (*spec, error) {
	content, err := os.ReadFile(filepath.Join(folder, specFile))
	if err != nil {
		return nil, err
	}
	s := &spec{}
	return s, json.Unmarshal(content, s)
}

func readNumber(file string) (int, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var n int
	_, err = fmt.Sscan(string(content), &n)
	return n, err
}

// root is where the folders of all clusters of this user are.
func root() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where to keep a cluster's state: %w; set HOME", err)
	}
	dir := filepath.Join(cache, "remora", "clusters")
	return dir, os.MkdirAll(dir, 0o700)
}

// all are the clusters that have a folder, whether they run or not. Folders with a dot in front are being removed.
func all(root string) ([]*spec, error) {
	files, err := filepath.Glob(filepath.Join(root, "[^.]*", specFile))
	if err != nil {
		return nil, err
	}
	var found []*spec
	for _, file := range files {
		s, err := load(filepath.Dir(file))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just gone
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		found = append(found, s)
	}
	return found, nil
}

// freeLink gives the first subnet that no cluster has, nor any interface of this machine.
func freeLink(taken []*spec) (int, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return 0, err
	}
	var used []*net.IPNet
	for _, a := range addresses {
		if network, ok := a.(*net.IPNet); ok {
			used = append(used, network)
		}
	}
next:
	for link := range links {
		candidate := &spec{Link: link}
		for _, other := range taken {
			if other.Link == link {
				continue next
			}
		}
		for _, network := range used {
			for n := range 4 {
				if network.Contains(net.ParseIP(candidate.address(n))) || network.IP.String() == candidate.address(n) {
					continue next
				}
			}
		}
		return link, nil
	}
	return 0, errors.New("no subnet of 198.18.0.0/15 is free on this machine")
}

// A cluster's keeper holds the lock on this file as long as it lives: whether the lock is free says whether the cluster runs.
const lockFile = "lock"

var errLocked = errors.New("locked")

// lock takes the lock without waiting; where another has it, the error is errLocked. Closing the file lifts it.
func (s *spec) lock() (*os.File, error) {
	f, err := os.Open(s.file(lockFile))
	if err != nil {
		return nil, err
	}
	if err := tryLock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func tryLock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}
