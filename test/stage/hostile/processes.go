//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// numbers are more process numbers than a container counts.
const numbers = 1 << 15

// memory shows with a process of its own that a word can be found, by attaching to it and reading what it has in memory.
func memory(args []string) error {
	runtime.LockOSThread() // who attaches is a thread
	planted := exec.Command("sleep", "1000")
	planted.Env = []string{"PLANTED=" + args[0]}
	if err := planted.Start(); err != nil {
		return err
	}
	defer func() {
		_ = planted.Process.Kill()
		_ = planted.Wait()
	}()
	own := map[int]bool{os.Getpid(): true}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		own[pid] = true
		if pid == os.Getpid() {
			continue
		}
		attached := unix.PtraceSeize(pid) // what the kernel asks is the same as for an attach, and nothing is stopped
		name, _ := os.ReadFile(dir + "/comm")
		found, err := search(dir, []byte(args[0]))
		fmt.Printf("process %d, %s: attach: %v, read: %v, found %q\n", pid, bytes.TrimSpace(name), attached, err, found)
	}
	attached := 0
	for pid := 1; pid < numbers; pid++ {
		if own[pid] {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if unix.PtraceSeize(pid) == nil || err == nil {
			attached++
		}
		_ = unix.Close(fd)
	}
	fmt.Println("other processes reached:", attached)
	return nil
}

// search reads all that a process has mapped.
func search(dir string, word []byte) (string, error) {
	maps, err := os.ReadFile(dir + "/maps")
	if err != nil {
		return "", err
	}
	mem, err := os.Open(dir + "/mem")
	if err != nil {
		return "", err
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		if n, _ := fmt.Sscanf(line, "%x-%x", &from, &to); n != 2 || to-from > 1<<28 {
			continue
		}
		part := make([]byte, to-from)
		n, _ := mem.ReadAt(part, from)
		if i := bytes.Index(part[:n], word); i >= 0 {
			rest := part[i:n]
			return string(rest[:min(len(rest), 80)]), nil
		}
	}
	return "", nil
}

func signals([]string) error {
	signal.Ignore(unix.SIGQUIT, unix.SIGABRT) // a thread of its own may be as new as its number is unknown
	own := map[string]bool{}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		own[filepath.Base(dir)] = true
	}
	delivered := 0
	for pid := 1; pid < numbers; pid++ {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // threads are there, though nothing lists them
		_, of, _ := strings.Cut(string(status), "Tgid:\t")
		process, _, _ := strings.Cut(of, "\n")
		if own[process] {
			continue
		}
		for _, s := range []unix.Signal{unix.SIGQUIT, unix.SIGABRT} {
			if !errors.Is(unix.Kill(pid, s), unix.ESRCH) {
				delivered++
			}
		}
	}
	fmt.Println("signals delivered:", delivered)
	return nil
}

// kernel asks for what needs power over other processes: numbers of calls are the same on all machines that this runs on.
func kernel([]string) error {
	attributes := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(128)}
	_, err := unix.PerfEventOpen(&attributes, -1, 0, -1, 0)
	fmt.Println("perf:", err)
	_, _, errno := unix.Syscall(unix.SYS_BPF, 5 /* BPF_PROG_LOAD */, 0, 0)
	fmt.Println("bpf:", errno)
	file, err := os.Open("/proc/kcore")
	if err == nil {
		start := make([]byte, 16)
		n, _ := file.Read(start)
		fmt.Println("kcore:", n, "bytes")
		file.Close()
	} else {
		fmt.Println("kcore:", err)
	}
	_, err = os.ReadFile("/dev/kmsg")
	fmt.Println("kmsg:", err)
	fmt.Println("core pattern:", os.WriteFile("/proc/sys/kernel/core_pattern", []byte("|/bin/hostile"), 0))
	return nil
}

func devices([]string) error {
	partitions, err := os.ReadFile("/proc/partitions")
	if err != nil {
		return err
	}
	partitions = append(partitions, "\n1 1 0 mem\n1 2 0 kmem\n1 4 0 port\n"...)
	for line := range strings.Lines(string(partitions)) {
		words := strings.Fields(line)
		if len(words) != 4 || words[0] == "major" {
			continue
		}
		major, _ := strconv.Atoi(words[0])
		minor, _ := strconv.Atoi(words[1])
		kind := uint32(unix.S_IFBLK)
		if major == 1 && words[2] == "0" {
			kind = unix.S_IFCHR
		}
		path := "/loot/device-" + words[3]
		err := unix.Mknod(path, kind|0o600, int(unix.Mkdev(uint32(major), uint32(minor))))
		if err == nil {
			_, err = os.ReadFile(path)
			_ = os.Remove(path)
		}
		fmt.Printf("device %s: %v\n", words[3], err)
	}
	return nil
}
