//go:build linux

package node

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A hierarchy is one mounted tree of cgroups: with version 1 one for each controller (or several together), with
// version 2 one for all.
type hierarchy struct {
	mount       string // where it is mounted
	top         string // which of its cgroups is seen there
	unified     bool   // version 2
	controllers string // version 1: as mount(8) takes them; a tree without controllers: none,name=…
	own         string // this process's cgroup, below mount
}

// hierarchies reads what this process sees. Where both versions are mounted, the controllers are with version 1, and the
// other tree is left alone.
func hierarchies() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := ownCgroups()
	if err != nil {
		return nil, err
	}
	var v1, v2 []hierarchy
	for line := range strings.Lines(string(mounts)) {
		// 35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		h := hierarchy{mount: fields[4], top: fields[3], unified: kind[0] == "cgroup2"}
		switch kind[0] {
		case "cgroup":
			h.controllers = v1Controllers(kind[2])
			h.own = h.below(own[strings.TrimPrefix(h.controllers, "none,")])
			v1 = append(v1, h)
		case "cgroup2":
			v2 = append(v2, h)
		}
	}
	if len(v1) > 0 {
		return v1, nil
	}
	if len(v2) == 0 {
		return nil, errors.New("no cgroups are mounted on this machine; a systemd machine has them in /sys/fs/cgroup")
	}
	return v2[:1], nil
}

// below is where a cgroup is found under the mount.
func (h hierarchy) below(cgroup string) string {
	relative, err := filepath.Rel(h.top, cgroup)
	if err != nil || strings.HasPrefix(relative, "..") {
		return "."
	}
	return relative
}

// v1Controllers picks the controllers from the options of a mount.
func v1Controllers(options string) string {
	var controllers []string
	for option := range strings.SplitSeq(options, ",") {
		switch {
		case strings.HasPrefix(option, "name="):
			return "none," + option
		case slices.Contains([]string{"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "none"}, option),
			strings.HasPrefix(option, "release_agent="):
		default:
			controllers = append(controllers, option)
		}
	}
	return strings.Join(controllers, ",")
}

// ownCgroups maps the controllers of each version 1 hierarchy to the cgroup that this process is in.
func ownCgroups() (map[string]string, error) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	own := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if parts := strings.SplitN(lines.Text(), ":", 3); len(parts) == 3 { // 4:memory:/user.slice
			own[parts[1]] = parts[2]
		}
	}
	return own, lines.Err()
}

// makeCgroups makes a cgroup in each hierarchy and gives their folders. With version 1 they are below the cgroup of this
// process, so that its limits hold for the cluster too; with version 2 at the top, because there a cgroup with processes in
// it cannot give controllers to another.
func makeCgroups(all []hierarchy, name string) ([]string, error) {
	var made []string
	for _, h := range all {
		parent := filepath.Join(h.mount, h.own)
		if h.unified {
			parent = h.mount
			if err := delegate(parent); err != nil {
				return made, fmt.Errorf("%w; where this is a container, its init has to move out of the way first "+
					"(processes and controllers exclude each other in cgroup v2)", err)
			}
		}
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return made, fmt.Errorf("make a cgroup (this needs root, and /sys/fs/cgroup writable): %w", err)
		}
		made = append(made, dir)
		if err := inheritCPUs(parent, dir); err != nil {
			return made, err
		}
	}
	return made, nil
}

// inheritCPUs fills what a new cgroup of the version 1 controller cpuset has empty, and without which it takes no process.
func inheritCPUs(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
			continue // version 2: empty means the parent's
		}
		value, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), value, 0); err != nil {
			return err
		}
	}
	return nil
}

// delegate hands the controllers of a version 2 cgroup on to those below it.
func delegate(dir string) error {
	read := func(name string) ([]string, error) {
		content, err := os.ReadFile(filepath.Join(dir, name))
		return strings.Fields(string(content)), err
	}
	available, err := read("cgroup.controllers")
	if err != nil {
		return err
	}
	given, err := read("cgroup.subtree_control")
	if err != nil {
		return err
	}
	for _, controller := range available {
		if slices.Contains(given, controller) {
			continue
		}
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
		if err != nil && slices.Contains([]string{"cpu", "cpuset", "memory", "pids"}, controller) { // what the kubelet asks for
			return fmt.Errorf("hand on the controller %s: %w", controller, err)
		}
	}
	return nil
}

// joinCgroups moves a process, 0 being this one.
func joinCgroups(dirs []string, pid int) error {
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("enter the cgroup: %w", err)
		}
	}
	return nil
}

// removeCgroups removes cgroups and those below. A process that has just died may still be counted for a moment.
func removeCgroups(dirs []string) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for tries := 250; ; tries-- {
		var failed error
		for _, dir := range dirs {
			failed = errors.Join(failed, removeCgroup(dir))
		}
		if failed == nil || tries == 0 {
			return failed
		}
		<-again.C
	}
}

func removeCgroup(dir string) error {
	below, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range below {
		if entry.IsDir() {
			err = errors.Join(err, removeCgroup(filepath.Join(dir, entry.Name())))
		}
	}
	if removed := os.Remove(dir); !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return err
}
