package netns_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// standing says how a program started from here sees itself.
type standing int

const (
	inside  standing = iota // it knows that it is in a namespace already
	outside                 // it does not, and makes one
)

// again prepares to run this test binary once more, for an errand.
func again(t *testing.T, what string, from standing) *exec.Cmd {
	t.Helper()
	run := exec.CommandContext(t.Context(), "/proc/self/exe")
	for _, v := range os.Environ() {
		if from == inside || !strings.HasPrefix(v, "REMORA_NETNS_OUTSIDE=") {
			run.Env = append(run.Env, v)
		}
	}
	run.Env = append(run.Env, errand+"="+what)
	run.Stderr = os.Stderr
	return run
}

func parentID() string { return strconv.Itoa(os.Getppid()) }
