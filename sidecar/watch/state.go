package watch

import (
	"os"
	"path/filepath"
	"strings"

	"remora.dev/remora/sidecar/routing"
)

// Kinds of what a problem may be about beside objects. Namespace and Name are then the two parts of the path.
const (
	fileKind   = "File"
	folderKind = "Folder"
)

func pathRef(kind, path string) routing.Ref {
	return routing.Ref{Kind: kind, Namespace: filepath.Dir(path), Name: filepath.Base(path)}
}

// faults reports the files that cannot be used, and what others may do to files and folder.
func (s *source) faults() []finding {
	var all []finding
	add := func(kind, path string, severity routing.Severity, code routing.Code, message string) {
		all = append(all, finding{routing.Problem{Object: pathRef(kind, path), Severity: severity, Code: code, Message: message}, place{file: path}})
	}
	folder, safe := s.path, false
	if !s.listing.root.IsDir() {
		folder = filepath.Dir(s.path)
		safe = s.listing.folder.Mode()&os.ModeSticky != 0 // others may add files, which are not read
	}
	if s.listing.folder.Mode().Perm()&0o022 != 0 && !safe {
		add(folderKind, folder, routing.Warning, routing.WritableByOthers, "other users may add or replace files in it, and so send prompts and keys elsewhere: chmod go-w "+quote(folder))
	}
	for _, f := range s.files {
		switch {
		case f.fault == "":
		case f.known:
			add(fileKind, f.name, routing.Invalid, routing.UnreadableObject, f.fault+"; what was read from it before keeps running")
		default:
			add(fileKind, f.name, routing.Invalid, routing.UnreadableObject, f.fault+"; until it can be read, calls to hosts that nothing else configures are refused")
		}
		if f.info == nil {
			continue
		}
		if f.key && f.info.Mode().Perm()&0o044 != 0 {
			add(fileKind, f.name, routing.Warning, routing.ReadableByOthers, f.name+" holds keys and other users may read it: chmod 600 "+quote(f.name))
		}
		if f.info.Mode().Perm()&0o022 != 0 {
			add(fileKind, f.name, routing.Warning, routing.WritableByOthers, "other users may change it, and so send prompts and keys elsewhere: chmod go-w "+quote(f.name))
		}
	}
	return all
}

// quote makes a path fit for a shell.
func quote(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:@%", r)
	}
	if !strings.ContainsFunc(path, func(r rune) bool { return !plain(r) }) && !strings.HasPrefix(path, "-") {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
