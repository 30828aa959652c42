//go:build linux

package node_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"remora.dev/remora/test/cluster/node"
)

// errand is the environment variable that makes this test binary start a cluster and wait to be killed.
const errand = "REMORA_TEST_START_A_CLUSTER"

func runErrand() {
	n, err := node.Start(context.Background(), node.Options{Name: os.Getenv(errand)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, n.HostAddress())
	select {}
}

func TestAKilledTestTakesItsClusterAlongAndNoOther(t *testing.T) {
	t.Parallel()
	const name = "orphan"
	helper := exec.CommandContext(t.Context(), "/proc/self/exe")
	helper.Env = append(os.Environ(), errand+"="+name)
	helper.Stderr = os.Stderr
	out, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the helper has not started its cluster: %v", err)
	}
	address = strings.TrimSpace(address)

	other, err := node.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node.Node{shared, other} {
		if got, err := n.Kubectl(t.Context(), "get", "nodes", "-o", "name"); err != nil || got != "node/"+n.Name()+"\n" {
			t.Errorf("side by side, cluster %s has the nodes %q, %v", n.Name(), got, err)
		}
	}
	processes := inCgroups(t, name)
	if len(processes) < 10 { // eight components, PID 1, and CoreDNS with what contains it
		t.Fatalf("the cluster has %d processes only", len(processes))
	}
	if !hasAddress(t, address) {
		t.Fatalf("no interface has %s", address)
	}

	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = helper.Wait() // killed
	await(t, "the cluster's folder to go", func() bool { return !exists(filepath.Dir(other.Kubeconfig())) })
	if left := remains(t, name); left != "" {
		t.Errorf("cgroups are left: %s", left)
	}
	if hasAddress(t, address) {
		t.Errorf("an interface with %s is left", address)
	}
	for _, process := range processes {
		if command := commandLine(process); strings.Contains(command, "/"+name+"/") {
			t.Errorf("process %d is left: %s", process, command)
		}
	}
	if got, err := shared.Kubectl(t.Context(), "get", "--raw=/readyz"); err != nil || got != "ok" {
		t.Errorf("the other cluster suffers: %q, %v", got, err)
	}
}

func TestAClusterEndsWithItsKeeperAndDownClearsTheRest(t *testing.T) {
	t.Parallel()
	n, err := node.Start(t.Context(), node.Options{Name: "unkept", ControlPlane: true})
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(n.Kubeconfig())
	processes := inCgroups(t, "unkept")
	content, err := os.ReadFile(filepath.Join(folder, "keeper.pid"))
	if err != nil {
		t.Fatal(err)
	}
	keeper, err := strconv.Atoi(string(content))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "its processes to end", func() bool {
		for _, process := range processes {
			if commandLine(process) != "" {
				return false
			}
		}
		return true
	})
	for range 2 { // the second has nothing to do
		if err := n.Down(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if left := remains(t, "unkept"); left != "" || exists(folder) {
		t.Errorf("left: %s, the folder: %v", left, exists(folder))
	}
}

func inCgroups(t *testing.T, name string) []int {
	t.Helper()
	top := strings.Fields(remains(t, name))
	if len(top) == 0 {
		t.Fatalf("cluster %s has no cgroup", name)
	}
	var processes []int
	err := filepath.WalkDir(top[0], func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return err
		}
		content, err := os.ReadFile(path)
		for field := range strings.FieldsSeq(string(content)) {
			process, errNumber := strconv.Atoi(field)
			if errNumber != nil {
				return errNumber
			}
			processes = append(processes, process)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return processes
}

func hasAddress(t *testing.T, address string) bool {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if strings.HasPrefix(a.String(), address+"/") {
			return true
		}
	}
	return false
}

// commandLine is empty when the process has ended.
func commandLine(process int) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", process))
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(string(content), "\x00", " ")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func await(t *testing.T, what string, come func() bool) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(30 * time.Second); !come(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
