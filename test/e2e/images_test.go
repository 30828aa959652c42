//go:build linux

package e2e

import (
	"context"

	"remora.dev/remora/test/stage"
)

// root is the folder of the module, as seen from here.
const root = "../.."

// writeImages gives the archives of all images that the tests use: the product's, and those of package stage.
func writeImages(ctx context.Context, dir string) ([]string, error) {
	archives, err := stage.WriteImages(ctx, root, dir)
	return archives.All(), err
}
