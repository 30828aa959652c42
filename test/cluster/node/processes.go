//go:build linux

package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Init is the number, on this machine, of the cluster's first process. Its namespaces are the node's.
func (n *Node) Init() (int, error) { return n.spec.number(initFile) }

// Component is the number of the process of a component, such as kube-apiserver. Should it end, the cluster does; but it can be
// stopped by a signal for a while.
func (n *Node) Component(name string) (int, error) {
	first, err := n.Init()
	if err != nil {
		return 0, err
	}
	inside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", first))
	if err != nil {
		return 0, err
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range all {
		// Containers have namespaces of their own. What has ended meanwhile has none.
		if namespace, err := os.Readlink(filepath.Join(dir, "ns", "pid")); err != nil || namespace != inside {
			continue
		}
		// The programs are links to one that goes by the name that it is called.
		if program, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && filepath.Base(strings.SplitN(string(program), "\x00", 2)[0]) == name {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, fmt.Errorf("cluster %s has no process of %s", n.spec.Name, name)
}

// PodLogs is the folder with what the containers of pods say, as the kubelet names it:
// NAMESPACE_POD_UID/CONTAINER/RESTARTS.log.
func (n *Node) PodLogs() string { return n.spec.file("pods") }
