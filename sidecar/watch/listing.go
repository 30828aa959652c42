package watch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// listing is what the file system says of PATH, without any content.
type listing struct {
	root   os.FileInfo
	folder os.FileInfo // of the files: PATH, or where the file PATH is
	names  []string    // the files, sorted
	infos  map[string]os.FileInfo
	errs   map[string]error
}

// list looks at PATH: at the file, or at the files in the folder.
func list(path string) (*listing, error) {
	root, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	l := &listing{root: root, folder: root, infos: map[string]os.FileInfo{}, errs: map[string]error{}}
	if !root.IsDir() {
		if l.folder, err = os.Stat(filepath.Dir(path)); err != nil {
			return nil, err
		}
		l.names, l.infos[path] = []string{path}, root
		return l, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		name := filepath.Join(path, e.Name())
		info, err := os.Stat(name)
		switch {
		case err != nil:
			l.errs[name] = err
		case info.IsDir():
			continue
		default:
			l.infos[name] = info
		}
		l.names = append(l.names, name)
	}
	return l, nil
}

// same tells whether nothing has changed between two listings.
func (l *listing) same(m *listing) bool {
	if !sameFile(l.root, m.root) || !sameFile(l.folder, m.folder) || !slices.Equal(l.names, m.names) {
		return false
	}
	return !slices.ContainsFunc(l.names, func(name string) bool {
		return !sameFile(l.infos[name], m.infos[name]) || fmt.Sprint(l.errs[name]) != fmt.Sprint(m.errs[name])
	})
}

// sameFile compares what changes when content does. The time and size of a folder change with files that
// are of no interest, so they are not looked at.
func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Mode() == b.Mode() && (a.IsDir() || a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()))
}
