// Images packs the three programs of the product into container images, without a container engine:
//
//	images FOLDER [TAG]
//
// takes FOLDER/webhook, FOLDER/sidecar and FOLDER/redirect, which must be linked statically, and writes FOLDER/webhook.tar,
// FOLDER/sidecar.tar and FOLDER/redirect.tar: remora.dev/webhook:TAG and so on, TAG being latest if there is none.
package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"remora.dev/remora/test/cluster/image"
)

// authorities is where Go looks for the certificates of a Linux system, and where Debian keeps them.
const authorities = "/etc/ssl/certs/ca-certificates.crt"

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) < 1 || len(args) > 2 {
		return errors.New("usage: images FOLDER [TAG]")
	}
	tag := "latest"
	if len(args) == 2 {
		tag = args[1]
	}
	if _, err := os.Stat(authorities); err != nil {
		return fmt.Errorf("the sidecar's image takes along the certificates of this machine, with which it knows real providers: %w. "+
			"On Debian: apt-get install --no-install-recommends ca-certificates", err)
	}
	iptables, err := image.Iptables(ctx)
	if err != nil {
		return fmt.Errorf("the image of redirect takes along the iptables of this machine: %w", err)
	}
	for _, one := range []struct {
		program, user string
		mode          os.FileMode
		more          []image.File
	}{
		{"webhook", "65532:65532", 0o755, nil},
		// Root's, and to be run but not read: then the kernel lets no process of the sidecar's own user look into its memory.
		{"sidecar", "14001:14001", 0o711, []image.File{{Path: authorities, Source: authorities}}},
		{"redirect", "0:0", 0o755, iptables},
	} {
		source := filepath.Join(args[0], one.program)
		if err := static(source); err != nil {
			return err
		}
		reference, archive := "remora.dev/"+one.program+":"+tag, source+".tar"
		files := append(one.more, image.File{Path: "/" + one.program, Mode: one.mode, Source: source})
		if err := image.Write(archive, reference, image.Config{Entrypoint: []string{"/" + one.program}, User: one.user}, files); err != nil {
			return err
		}
		written, err := os.Stat(archive)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s %s %.1f MB\n", archive, reference, float64(written.Size())/1e6)
	}
	return nil
}

// static refuses a program that needs a loader or libraries, of which the images have none.
func static(program string) error {
	file, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("%w. `make build` makes the programs", err)
	}
	defer file.Close()
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically and runs in no image without a system: build it with CGO_ENABLED=0, as `make build` does", program)
		}
	}
	return nil
}
