package watch

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"remora.dev/remora/sidecar/routing"
)

// maxSize bounds what is read into memory from one file.
const maxSize = 64 << 20

// settleTime is how old a change must be before its time stamp can be trusted to tell it from the next.
const settleTime = 2 * time.Second

// errMoving says that files changed while they were read, so that what was read may not fit together.
var errMoving = errors.New("the files are changing")

// source is what has been read from PATH so far. It belongs to one goroutine.
type source struct {
	path     string
	workload *routing.Workload // its namespace is that of the files; nil: judge for any workload

	listing   *listing
	files     []*file
	namespace string
	history   history
	clock     time.Time // of the last change
}

// file is one file with what was last read from it.
type file struct {
	name    string
	info    os.FileInfo
	sum     [sha256.Size]byte
	settled bool // its content is known to belong to info
	known   bool // it has been read with success at least once
	docs    []document
	fault   string // why what is in the file now cannot be used
	key     bool   // it holds key material
}

func newSource(path string, workload *routing.Workload) *source {
	return &source{path: filepath.Clean(path), workload: workload}
}

// read takes in what PATH holds now and tells whether that differs from before. With errMoving it is to
// be tried again; with any other error PATH as a whole cannot be read. With an error, nothing changes.
func (s *source) read(now time.Time) (changed bool, err error) {
	before, err := list(s.path)
	if err != nil {
		return false, err
	}
	previous := map[string]*file{}
	for _, f := range s.files {
		previous[f.name] = f
	}
	changed = s.listing == nil || !before.same(s.listing)
	var files []*file
	for _, name := range before.names {
		f := s.readFile(name, before, previous[name], now)
		changed = changed || f != previous[name]
		files = append(files, f)
	}
	if !changed {
		return false, nil
	}
	after, err := list(s.path)
	if err != nil || !after.same(before) {
		return false, errors.Join(errMoving, err)
	}
	s.listing, s.files = after, files
	return true, nil
}

// readFile gives the file as it is now: the previous one itself if nothing has changed.
func (s *source) readFile(name string, l *listing, previous *file, now time.Time) *file {
	info := l.infos[name]
	if previous != nil && previous.settled && sameFile(previous.info, info) {
		return previous
	}
	content, err := contentOf(name, info, l.errs[name])
	sum := sha256.Sum256(content)
	settled := err == nil && now.Sub(info.ModTime()) > settleTime
	if previous == nil {
		previous = &file{name: name}
	} else if err == nil && previous.info != nil && sum == previous.sum && sameFile(previous.info, info) {
		previous.settled = settled
		return previous
	}
	f := &file{name: name, info: info, sum: sum, settled: settled, known: previous.known, docs: previous.docs}
	if err != nil {
		f.fault, f.key, f.sum = err.Error(), previous.key, previous.sum
		if previous.fault == f.fault && sameFile(previous.info, info) {
			return previous
		}
		return f
	}
	f.take(content)
	return f
}

// take reads content into the file, which keeps what it has if that cannot be.
func (f *file) take(content []byte) {
	if len(bytes.TrimSpace(content)) == 0 && len(f.docs) > 0 {
		f.fault, f.key = "is empty: to remove its objects, delete the file", f.hasKey()
		return
	}
	known := map[[sha256.Size]byte][]document{}
	for i, d := range f.docs {
		if i > 0 && f.docs[i-1].sum == d.sum && f.docs[i-1].line != d.line {
			delete(known, d.sum) // the same text twice
		}
		known[d.sum] = append(known[d.sum], d)
	}
	docs, err := parse(content, known)
	if err != nil {
		f.fault, f.key = err.Error(), f.hasKey() || looksLikeKey(content)
		return
	}
	f.docs, f.known = docs, true
	f.key = f.hasKey()
}

func (f *file) hasKey() bool {
	for i := range f.docs {
		if f.docs[i].key {
			return true
		}
	}
	return false
}

// contentOf reads a file, but never from what is none: that could last for ever, as with a named pipe.
func contentOf(name string, info os.FileInfo, err error) ([]byte, error) {
	if err == nil {
		if err = usable(info); err != nil {
			return nil, err
		}
		var content []byte
		if content, err = readAll(name); err == nil {
			return content, nil
		}
	}
	return nil, fmt.Errorf("cannot be read: %w", reason(err))
}

func usable(info os.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return errors.New("is not a regular file: remove it, or put a file in its place")
	case info.Size() > maxSize:
		return fmt.Errorf("is larger than %d MiB: split it", maxSize>>20)
	}
	return nil
}

// readAll takes in as much as the file's size says. Another one may have come into its place, and what the
// kernel itself tells in files (/proc/kmsg) has neither size nor end.
func readAll(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		err = usable(info)
	}
	if err != nil {
		return nil, err
	}
	content := make([]byte, info.Size())
	n, err := io.ReadFull(f, content)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // it has been cut since, which the next look tells
	}
	return content[:n], err
}

// reason takes the path out of an error whose message names it already.
func reason(err error) error {
	var why *fs.PathError
	if errors.As(err, &why) {
		return why.Err
	}
	return err
}
