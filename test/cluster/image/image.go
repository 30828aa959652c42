// Package image writes container images without a container engine: a docker-archive, which `docker load`, `podman load`
// and `ctr image import` take. The same input gives the same bytes, so an image's identity says what is in it.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// searchPath is what an image without Env gets: runtimes find no program by its bare name without it.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Config says how a container of the image runs. The zero value is root, in /, with nothing to run.
type Config struct {
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	Env        []string          `json:"Env"` // NAME=value; absent: the usual PATH
	User       string            `json:"User,omitempty"`
	WorkingDir string            `json:"WorkingDir,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

// File is one entry of the image's file system. The folders above it need no mention: they are root's, with mode 0755.
// Of Source, Data and Target at most one is set; none makes an empty file or, by its Mode, a folder.
type File struct {
	Path   string      // in the image, absolute
	Mode   fs.FileMode // type and permissions; 0: those of Source, 0644 for Data, a link for Target
	Source string      // a regular file of this machine
	Data   []byte
	Target string // where a symbolic link leads
	UID    int
	GID    int
}

// Write writes an image for this machine's architecture to a file, which appears only when it is complete. The reference
// (host/name:tag) must name a host, which need not exist: runtimes take a bare name for one of a public registry.
// Errors name the entry that they are about; where one path is given twice, the later wins.
func Write(file, reference string, config Config, files []File) (err error) {
	if err := checkReference(reference); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("write image %s: %w", reference, err)
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err == nil {
			err = os.Rename(out.Name(), file)
		}
		if err != nil {
			err = fmt.Errorf("write image %s: %w", reference, errors.Join(err, os.Remove(out.Name())))
		}
	}()
	if err := out.Chmod(0o644); err != nil {
		return err
	}
	return write(out, reference, config, files)
}

// checkReference wants what every runtime reads the same way: a host (with a dot or a port), a name and a tag.
func checkReference(reference string) error {
	host, rest, ok := strings.Cut(reference, "/")
	if !ok || !strings.ContainsAny(host, ".:") || !strings.Contains(path.Base(rest), ":") || strings.ContainsAny(reference, " \t\n") {
		return fmt.Errorf("%q does not name an image fully: write it as example.invalid/name:tag", reference)
	}
	return nil
}

func write(out *os.File, reference string, config Config, files []File) error {
	// A tar states the length of an entry before its content: the layer is made first, beside the archive.
	layer, err := os.CreateTemp(filepath.Dir(out.Name()), "layer.*")
	if err != nil {
		return err
	}
	defer layer.Close()
	defer os.RemoveAll(layer.Name())
	sum := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, sum), files); err != nil {
		return err
	}
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if len(config.Env) == 0 {
		config.Env = []string{searchPath}
	}
	description, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": config,
		// One entry for the one layer: tools that build on an image count them.
		"history": []map[string]string{{"created_by": "package image"}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sum.Sum(nil))}},
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%x.json", sha256.Sum256(description))
	manifest, err := json.Marshal([]map[string]any{
		{"Config": name, "RepoTags": []string{reference}, "Layers": []string{"layer.tar"}},
	})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(out)
	for _, part := range []struct {
		name    string
		size    int64
		content io.Reader
	}{
		{"manifest.json", int64(len(manifest)), bytes.NewReader(manifest)},
		{name, int64(len(description)), bytes.NewReader(description)},
		{"layer.tar", size, layer},
	} {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: part.name, Mode: 0o644, Size: part.size}); err != nil {
			return err
		}
		if _, err := io.Copy(archive, part.content); err != nil {
			return err
		}
	}
	return archive.Close()
}

func writeLayer(to io.Writer, files []File) error {
	layer := tar.NewWriter(to)
	for _, f := range complete(files) {
		if err := writeFile(layer, f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return layer.Close()
}

// complete adds the folders that were not mentioned, and sorts: a folder comes before what is in it.
func complete(files []File) []File {
	entries := map[string]File{}
	for _, f := range files {
		f.Path = path.Clean("/" + f.Path)
		entries[f.Path] = f
	}
	for at := range entries {
		for at = path.Dir(at); at != "/"; at = path.Dir(at) {
			if _, ok := entries[at]; !ok {
				entries[at] = File{Path: at, Mode: fs.ModeDir | 0o755}
			}
		}
	}
	delete(entries, "/")
	sorted := make([]File, 0, len(entries))
	for _, f := range entries {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return sorted
}

func writeFile(layer *tar.Writer, f File) error {
	header := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Uid: f.UID, Gid: f.GID, Format: tar.FormatPAX}
	var content io.Reader = bytes.NewReader(f.Data)
	switch {
	case f.Target != "":
		f.Mode = fs.ModeSymlink | 0o777
		header.Linkname = f.Target
	case f.Source != "":
		source, err := os.Open(f.Source)
		if err != nil {
			return err
		}
		defer source.Close()
		status, err := source.Stat()
		if err != nil {
			return err
		}
		if !status.Mode().IsRegular() {
			return fmt.Errorf("%s is no regular file", f.Source)
		}
		if f.Mode == 0 {
			f.Mode = status.Mode()
		}
		header.Size, content = status.Size(), source
	case f.Mode == 0:
		f.Mode = 0o644
	}
	switch f.Mode.Type() {
	case 0:
		header.Typeflag = tar.TypeReg
		if f.Source == "" {
			header.Size = int64(len(f.Data))
		}
	case fs.ModeDir:
		header.Typeflag = tar.TypeDir
		header.Name += "/"
	case fs.ModeSymlink:
		header.Typeflag = tar.TypeSymlink
	default:
		return fmt.Errorf("a file of the type %s cannot be in an image", f.Mode.Type())
	}
	header.Mode = permissions(f.Mode)
	if err := layer.WriteHeader(header); err != nil {
		return err
	}
	if header.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := io.Copy(layer, content)
	return err
}

// permissions are a file's mode as tar and the kernel write it.
func permissions(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	for flag, bit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	return bits
}
