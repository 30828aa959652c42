package main

import "golang.org/x/sys/unix"

// harden keeps the keys in this process's memory from other processes, also of its own user: none may read /proc/PID/mem, environ
// and maps, or trace it, and the kernel writes no core of it. Where the image's file can be executed but not read, the kernel
// does most of that by itself. Only root with CAP_SYS_PTRACE is left. Errors are those of the kernel.
func harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
