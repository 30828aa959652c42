//go:build linux

// Hostile does what a shell and curl cannot, for tests of what a container may do to the one beside it. It prints what came of it,
// and exits with 0 also where the kernel refused:
//
//	hostile say                    sends each text of the JSON list on its standard input, and prints what was answered
//	hostile memory WORD            looks for a word in the memory of every process that it finds, and attaches to every other number
//	hostile signals                sends signals that kill to every number that is no process of its own container
//	hostile sockets                connects to every abstract socket
//	hostile kernel                 asks the kernel for what looks into other processes
//	hostile devices                makes device files of the machine's disks and memory, and reads them
//	hostile bind ADDRESS...        listens where somebody else does
//	hostile as UID COMMAND...      runs a command as another user and group
//	hostile namespace COMMAND...   runs a command as root of a user namespace of its own
//	hostile sniff COMMAND...       captures every packet of the pod while a command runs, and prints them after it
//	hostile dns IP COMMAND...      is a DNS at 127.0.0.1 that gives one address for every name, while a command runs
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

func main() {
	commands := map[string]func(args []string) error{
		"say": say, "memory": memory, "signals": signals, "sockets": sockets, "kernel": kernel, "devices": devices,
		"bind": bind, "as": as, "namespace": namespace, "sniff": sniff, "dns": dns,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: see the source")
		os.Exit(2)
	}
	// On a machine of somebody's this would look into, and end, what is none of its business.
	if _, err := os.Stat("/loot"); err != nil {
		fmt.Fprintln(os.Stderr, "hostile: this is no container of its image:", err)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Println("hostile:", err)
	}
}

// run runs a command, and waits for it.
func run(args []string, attributes *syscall.SysProcAttr) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, attributes
	return cmd.Run()
}

func as(args []string) error {
	uid, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return err
	}
	return run(args[1:], &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}})
}

func namespace(args []string) error {
	return run(args, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	})
}
