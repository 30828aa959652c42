//go:build linux

package node

// Init is the number, on this machine, of the cluster's first process. Its namespaces are the node's.
func (n *Node) Init() (int, error) { return n.spec.number(initFile) }

// PodLogs is the folder with what the containers of pods say, as the kubelet names it:
// NAMESPACE_POD_UID/CONTAINER/RESTARTS.log.
func (n *Node) PodLogs() string { return n.spec.file("pods") }
