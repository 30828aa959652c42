package watch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAPipeInThePlaceOfAFileIsNotWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	// As if it had been a file when the folder was listed.
	if _, err := readAll(path); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("got %v", err)
	}
}

func TestAFileIsReadAsFarAsItsSizeSays(t *testing.T) {
	f := func(path, want string) {
		t.Helper()
		if got, err := readAll(path); err != nil || string(got) != want {
			t.Errorf("%s: %.100q, %v", path, got, err)
		}
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"full": "kind: x\n", "empty": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f(filepath.Join(dir, name), content)
	}
	f("/proc/self/status", "") // the kernel makes up the content as it is read, in some of its files without end
	if _, err := readAll(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := os.Truncate(filepath.Join(dir, "full"), maxSize+1); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(filepath.Join(dir, "full")); err == nil || !strings.Contains(err.Error(), "split it") {
		t.Errorf("got %v", err)
	}
}

func TestNothingOfAFileIsIgnoredInSilence(t *testing.T) {
	const a, b = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}`, "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\n"
	wide := []byte{0xff, 0xfe}
	for _, c := range []byte(b + "---\n" + b) {
		wide = append(wide, c, 0)
	}
	f := func(content string, want int) {
		t.Helper()
		docs, err := parse([]byte(content), nil)
		if want == 0 && (err == nil || !strings.Contains(err.Error(), "would be ignored: separate documents by lines of ---")) || want > 0 && err != nil || len(docs) != want {
			t.Errorf("%.80q: %d documents, %v", content, len(docs), err)
		}
	}
	f(a+"\n"+a, 0)
	f(a+"\n"+b, 0)
	f("  "+strings.ReplaceAll(strings.TrimSpace(b), "\n", "\n  ")+"\n"+b, 0)
	f(strings.ReplaceAll(b+"---\n"+b, "\n", "\r"), 0)
	f(b+"\u2028---\u2028"+b, 0)
	f(string(wide), 0)
	f(a+" # the end", 1)
	f(a+"\n---\n"+b+"...\n# the end\n", 2)
	f("%YAML 1.1\n---\n"+strings.ReplaceAll(b, "\n", "\r\n")+"--- # next\r\n"+b, 2)
}
