package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// Tree gives what is in a folder of this machine, for a folder of the image. Symbolic links stay links.
func Tree(source, at string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(source, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, name)
		if err != nil {
			return err
		}
		f := File{Path: path.Join(at, filepath.ToSlash(relative))}
		status, err := entry.Info()
		if err != nil {
			return err
		}
		switch f.Mode = status.Mode(); f.Mode.Type() {
		case 0:
			f.Source = name
		case fs.ModeSymlink:
			f.Target, err = os.Readlink(name)
		case fs.ModeDir:
		default:
			err = fmt.Errorf("%s is neither a file, nor a folder, nor a link", name)
		}
		files = append(files, f)
		return err
	})
	return files, err
}

// lddLine is "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" or "/lib64/ld-linux-x86-64.so.2 (0x…)".
var lddLine = regexp.MustCompile(`(?m)(?:=>\s*|^\s*)(/\S+) \(0x`)

// Program gives a program or library of this machine together with the shared libraries it is linked with, each at the path
// that it has here. A statically linked one comes alone.
func Program(ctx context.Context, file string) ([]File, error) {
	out, err := exec.CommandContext(ctx, "ldd", file).CombinedOutput()
	static := strings.Contains(string(out), "not a dynamic executable") || strings.Contains(string(out), "statically linked")
	if err != nil && !static {
		return nil, fmt.Errorf("which libraries does %s need? %w: %s", file, err, out)
	}
	if strings.Contains(string(out), "not found") {
		return nil, errors.New(file + " lacks a library on this machine:\n" + string(out))
	}
	files := []File{{Path: file, Source: file}}
	for _, match := range lddLine.FindAllStringSubmatch(string(out), -1) {
		files = append(files, File{Path: match[1], Source: match[1]})
	}
	return files, nil
}

// Iptables gives the iptables of this machine: both back ends under their own names (iptables-nft, iptables-legacy and so on,
// for both families of addresses), with their extensions and libraries. /run is there because legacy keeps a lock in it.
func Iptables(ctx context.Context) ([]File, error) {
	files := []File{{Path: "/run", Mode: fs.ModeDir | 0o755}}
	extensions, err := filepath.Glob("/usr/lib/*/xtables/lib[ix]*.so") // libip6t, libipt, libxt
	if err != nil {
		return nil, err
	}
	if len(extensions) == 0 {
		return nil, errors.New("iptables is not installed on this machine: apt-get install --no-install-recommends iptables")
	}
	for _, file := range append(extensions, "/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi") {
		program, err := Program(ctx, file)
		if err != nil {
			return nil, err
		}
		files = append(files, program...)
	}
	for _, backEnd := range []string{"nft", "legacy"} {
		for _, family := range []string{"iptables", "ip6tables"} {
			for _, action := range []string{"", "-save", "-restore"} {
				files = append(files, File{
					Path:   "/usr/sbin/" + family + "-" + backEnd + action,
					Target: "xtables-" + backEnd + "-multi",
				})
			}
		}
	}
	return files, nil
}
