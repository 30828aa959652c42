package image_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/test/cluster/image"
)

const reference = "example.invalid/app:1"

func TestTheSameInputGivesTheSameBytesWheneverItIsWritten(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("content"), 0o711); err != nil {
		t.Fatal(err)
	}
	files := []image.File{{Path: "/bin/app", Source: program}, {Path: "/etc/a", Data: []byte("a")}, {Path: "/sh", Target: "bin/app"}}
	first := written(t, filepath.Join(dir, "1.tar"), files)
	if err := os.Chtimes(program, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	files[0], files[2] = files[2], files[0]
	if second := written(t, filepath.Join(dir, "2.tar"), files); !bytes.Equal(first, second) {
		t.Error("another time and another order of the files gave another image")
	}
	if err := os.WriteFile(program, []byte("changed"), 0o711); err != nil {
		t.Fatal(err)
	}
	if third := written(t, filepath.Join(dir, "3.tar"), files); bytes.Equal(first, third) {
		t.Error("another content gave the same image")
	}
}

func TestTheLayerHoldsEachFileWithItsFoldersModeAndOwner(t *testing.T) {
	archive := written(t, filepath.Join(t.TempDir(), "i.tar"), []image.File{
		{Path: "/usr/bin/app", Data: []byte("app"), Mode: 0o4711, UID: 3, GID: 4},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{Path: "/usr/bin/setuid", Data: []byte("x"), Mode: fs.ModeSetuid | 0o755},
		{Path: "/bin", Target: "usr/bin"},
	})
	var layer []byte
	for name, content := range entries(t, archive) {
		if name == "layer.tar" {
			layer = []byte(content)
		}
	}
	var got strings.Builder
	for reader := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s %o %d:%d %s\n", h.Name, h.Mode, h.Uid, h.Gid, h.Linkname)
	}
	want := "bin 777 0:0 usr/bin\ntmp/ 1777 0:0 \nusr/ 755 0:0 \nusr/bin/ 755 0:0 \nusr/bin/app 711 3:4 \nusr/bin/setuid 4755 0:0 \n"
	if got.String() != want {
		t.Errorf("the layer holds\n%s\nwant\n%s", got.String(), want)
	}
}

func TestAFailedWriteLeavesNothingBehindAndNamesTheEntry(t *testing.T) {
	dir := t.TempDir()
	err := image.Write(filepath.Join(dir, "i.tar"), reference, image.Config{}, []image.File{{Path: "/app", Source: "/no/such/file"}})
	if err == nil || !strings.Contains(err.Error(), "/app") || !strings.Contains(err.Error(), reference) {
		t.Errorf("the error is %v; it should name the image and the entry", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestANameThatARuntimeWouldLookForInAPublicRegistryIsRefused(t *testing.T) {
	for _, bare := range []string{"app", "app:1", "library/app:1", "example.invalid/app", ""} {
		if err := image.Write(filepath.Join(t.TempDir(), "i.tar"), bare, image.Config{}, nil); err == nil {
			t.Errorf("%q was accepted", bare)
		}
	}
}

func TestAProgramComesWithTheLibrariesItNeeds(t *testing.T) {
	files, err := image.Program(t.Context(), "/bin/ls")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Path)
	}
	if all := strings.Join(names, " "); files[0].Path != "/bin/ls" || !strings.Contains(all, "libc.so.6") || !strings.Contains(all, "ld-linux") {
		t.Errorf("ls needs its libraries and the loader; there are %s", all)
	}
}

func written(t *testing.T, file string, files []image.File) []byte {
	t.Helper()
	if err := image.Write(file, reference, image.Config{Entrypoint: []string{"/app"}}, files); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func entries(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	found := map[string]string{}
	for reader := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = string(content)
	}
}
