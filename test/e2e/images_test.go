//go:build linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"remora.dev/remora/test/cluster/image"
)

// root is the folder of the module, as seen from here.
const root = "../.."

// tools is the image of the pods around the product: the fake provider, curl, and a shell.
const tools = "test.invalid/tools:1"

// writeImages builds the product as `make build` does, packs it as `make images` does, and gives the archives, with that of
// the tools.
func writeImages(ctx context.Context, dir string) ([]string, error) {
	for _, args := range [][]string{
		{"build", "-trimpath", "-ldflags=-s -w", "-o", dir, "./sidecar", "./webhook", "./test/e2e/provider"},
		{"run", "./test/images", dir},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go %s: %w: %s", args[0], err, out)
		}
	}
	archive := filepath.Join(dir, "tools.tar")
	files := []image.File{{Path: "/provider", Source: filepath.Join(dir, "provider")}}
	for _, name := range []string{"curl", "sh", "sleep"} {
		path, err := exec.LookPath(name)
		if err == nil {
			path, err = filepath.EvalSymlinks(path) // an image has the program and not what leads to it
		}
		if err != nil {
			return nil, err
		}
		program, err := image.Program(ctx, path)
		if err != nil {
			return nil, err
		}
		files = append(append(files, program...), image.File{Path: "/bin/" + name, Mode: 0o755, Source: path})
	}
	if err := image.Write(archive, tools, image.Config{User: "1000:1000"}, files); err != nil {
		return nil, err
	}
	return []string{filepath.Join(dir, "webhook.tar"), filepath.Join(dir, "sidecar.tar"), archive}, nil
}
