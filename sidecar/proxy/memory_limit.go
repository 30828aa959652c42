package proxy

import (
	"bytes"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// cgroups is where the kernel shows control groups.
const cgroups = "/sys/fs/cgroup"

// memoryLimit finds out what the process may use, in bytes: what it was told (GOMEMLIMIT), else what its control group may
// use, else what the machine has.
func memoryLimit() int64 {
	if told := debug.SetMemoryLimit(-1); told < math.MaxInt64 {
		return told
	}
	own, _ := os.ReadFile("/proc/self/cgroup") // without it there is none
	limit := cgroupLimit(own, os.ReadFile)
	var machine unix.Sysinfo_t
	if unix.Sysinfo(&machine) == nil {
		limit = min(limit, int64(machine.Totalram)*int64(machine.Unit))
	}
	return limit
}

// cgroupLimit gives the least limit of a process's control group and those around it. own is what the kernel says in
// /proc/self/cgroup: lines such as 0::/kubepods/pod1 (version 2) and 4:memory:/kubepods/pod1 (version 1). In a container
// the path may be that of the machine, while only its last part is there to be seen: then the top is asked.
func cgroupLimit(own []byte, read func(string) ([]byte, error)) int64 {
	least := int64(math.MaxInt64)
	for line := range bytes.Lines(own) {
		parts := bytes.SplitN(bytes.TrimSpace(line), []byte(":"), 3)
		if len(parts) < 3 {
			continue
		}
		top, file := cgroups, "memory.max"
		if string(parts[0]) != "0" {
			if !hasName(parts[1], "memory") {
				continue
			}
			top, file = cgroups+"/memory", "memory.limit_in_bytes"
		}
		for dir := path.Clean("/" + string(parts[2])); ; dir = path.Dir(dir) {
			if content, err := read(path.Join(top, dir, file)); err == nil {
				// "max" is no number, and no limit.
				if n, err := strconv.ParseInt(string(bytes.TrimSpace(content)), 10, 64); err == nil && n > 0 {
					least = min(least, n)
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

func hasName(list []byte, name string) bool {
	for n := range bytes.SplitSeq(list, []byte(",")) {
		if string(n) == name {
			return true
		}
	}
	return false
}
