//go:build linux

package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/bench/figures"
)

// idleMemory tells what the parts have resident before there is anything to do. The sidecars are those of pods that have just
// started.
func (b *bench) idleMemory(ctx context.Context, sidecars []float64) error {
	slices.Sort(sidecars)
	b.remark("Resident memory: %.1f MiB of a sidecar that is idle in its pod (p50 of %d, up to %.1f);", sidecars[len(sidecars)/2], len(sidecars), sidecars[len(sidecars)-1])
	return b.systemMemory(ctx, "before anything is asked of them")
}

func (b *bench) loadedMemory(ctx context.Context) error {
	return b.systemMemory(ctx, "after all admissions")
}

func (b *bench) systemMemory(ctx context.Context, when string) error {
	var all []string
	for _, one := range []struct{ name, container string }{{v1beta1.WebhookName, "webhook"}, {v1beta1.ControllerName, "controller"}} {
		pids, err := b.system(ctx, one.name, one.container)
		if err != nil {
			return err
		}
		var replicas []string
		for _, pid := range pids {
			mib, err := figures.Resident(pid)
			if err != nil {
				return err
			}
			replicas = append(replicas, fmt.Sprintf("%.1f", mib))
		}
		all = append(all, fmt.Sprintf("%s MiB of each %s", strings.Join(replicas, " and "), one.container))
	}
	b.remark("  %s, %s.", strings.Join(all, ", "), when)
	return nil
}

// sizes tells how large the images are.
func (b *bench) sizes() error {
	var all []string
	for _, archive := range b.archives.Product[len(b.archives.Product)-b.images:] {
		written, err := os.Stat(archive)
		if err != nil {
			return err
		}
		unpacked, packed, err := weigh(archive)
		if err != nil {
			return err
		}
		all = append(all, fmt.Sprintf("%s %.1f MB (archive %.1f, gzip %.1f)", strings.TrimSuffix(filepath.Base(archive), ".tar"),
			float64(unpacked)/1e6, float64(written.Size())/1e6, float64(packed)/1e6))
	}
	b.remark("Images, unpacked: %s.", strings.Join(all, ", "))
	return nil
}

// weigh gives the sizes of an image's layers: of the files in them, and compressed, as a registry has them.
func weigh(archive string) (unpacked, packed int64, err error) {
	file, err := os.Open(archive)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	for parts := tar.NewReader(file); ; {
		part, err := parts.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, 0, err
		}
		if filepath.Ext(part.Name) != ".tar" {
			continue
		}
		var counted counter
		compressed := gzip.NewWriter(&counted)
		layer := io.TeeReader(parts, compressed)
		for files := tar.NewReader(layer); ; {
			f, err := files.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return 0, 0, err
			}
			unpacked += f.Size
		}
		if err := compressed.Close(); err != nil {
			return 0, 0, err
		}
		packed += int64(counted)
	}
	if unpacked == 0 {
		return 0, 0, fmt.Errorf("%s has no layer", archive)
	}
	return unpacked, packed, nil
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
