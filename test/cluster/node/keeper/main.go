//go:build linux

// Keeper is the process beside a test cluster: it holds the cluster's namespaces, and takes it away when it is told to or
// when the test that started it is gone. Package node builds and runs it.
package main

import (
	"fmt"
	"os"

	"remora.dev/remora/test/cluster/node"
)

func main() {
	if err := node.Run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		os.Exit(1)
	}
}
