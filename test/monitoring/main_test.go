package monitoring

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"remora.dev/remora/test/cluster/assets"
	"remora.dev/remora/test/netns"
)

var binary string // the sidecar

// assetsDir has the programs of an API server.
var assetsDir string

func TestMain(m *testing.M) {
	var err error
	if assetsDir, err = assets.Dir(context.Background(), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "monitoring:", err)
		os.Exit(1)
	}
	netns.Enter(map[string]string{qwenHost: "127.0.0.1", kimiHost: "127.0.0.1", openHost: "127.0.0.1", downHost: "127.0.0.1"})
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "monitoring-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "sidecar")
		if out, err := exec.Command("go", "build", "-o", binary, "../../sidecar").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}
