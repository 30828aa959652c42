//go:build linux

package dockerfile

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unpacked is an image: how it runs, and its files by their paths.
type unpacked struct {
	Architecture string
	Config       struct {
		User            string
		Entrypoint, Env []string
	}
	files map[string]file
}

type file struct {
	kind     byte
	mode     int64
	uid, gid int
	link     string
	content  string
}

// unpack reads a docker-archive whose layers only add.
func unpack(t *testing.T, archive string) unpacked {
	t.Helper()
	parts := map[string][]byte{}
	content, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	each(t, content, func(h *tar.Header, content []byte) { parts[h.Name] = content })
	for name, content := range parts { // a layer may stand for another
		if target, err := filepath.EvalSymlinks(name); err == nil && len(content) == 0 {
			parts[name] = parts[target]
		}
	}
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(parts["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("%s: %d images, %v", archive, len(manifest), err)
	}
	u := unpacked{files: map[string]file{}}
	if err := json.Unmarshal(parts[manifest[0].Config], &u); err != nil {
		t.Fatal(err)
	}
	for _, layer := range manifest[0].Layers {
		each(t, parts[layer], func(h *tar.Header, content []byte) {
			name := "/" + strings.Trim(filepath.Clean(h.Name), "/.")
			if strings.HasPrefix(filepath.Base(name), ".wh.") {
				t.Errorf("%s: a layer removes %s, and it is in the image all the same", archive, name)
			}
			if name != "/" {
				u.files[name] = file{h.Typeflag, h.Mode & 0o7777, h.Uid, h.Gid, h.Linkname, string(content)}
			}
		})
	}
	if len(u.files) == 0 {
		t.Fatalf("%s holds no files", archive)
	}
	return u
}

func each(t *testing.T, archive []byte, do func(*tar.Header, []byte)) {
	t.Helper()
	for reader := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		do(h, content)
	}
}

// write puts the files into a folder, as root's.
func (u unpacked) write(t *testing.T, folder string) {
	t.Helper()
	for name, f := range u.files {
		at := filepath.Join(folder, name)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		switch {
		case err != nil:
		case f.kind == tar.TypeDir:
			err = os.MkdirAll(at, 0o755)
		case f.kind == tar.TypeSymlink:
			err = os.Symlink(f.link, at)
		default:
			err = os.WriteFile(at, []byte(f.content), os.FileMode(f.mode))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
