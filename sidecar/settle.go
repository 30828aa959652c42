package main

import (
	"bufio"
	"crypto/x509"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"remora.dev/remora/sidecar/snapshot"
)

// settleAfter is how long after the first configuration the sidecar counts as started.
const settleAfter = time.Second / 2

// heapGrowth is by how many percent the heap may grow between two collections, where GOGC does not say. Requests allocate
// next to nothing, so what half of the usual growth costs is seen nowhere, and what it saves is: a thousand streams
// take a tenth less.
const heapGrowth = 50

// frugal has the heap grow less than Go's default lets it.
func frugal() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
}

// settleOnce has memory given back when the start is over: there is a sidecar in every pod, and most are idle most of the time.
func settleOnce(store *snapshot.Store) {
	var once sync.Once
	store.OnChange(func(s *snapshot.Snapshot) {
		if s.Ready {
			once.Do(func() { time.AfterFunc(settleAfter, settle) })
		}
	})
}

// settle gives back what only the start has needed: the garbage of reading certificates and configuration, and the
// pages of this program's file that were looked at once, which are the larger part. What is needed again comes back
// from the page cache.
func settle() {
	_, _ = x509.SystemCertPool() // the first call to a provider would read it, and leave garbage of 4 MB behind
	debug.FreeOSMemory()
	mappings, err := os.Open("/proc/self/smaps")
	if err != nil {
		return // no reason not to serve
	}
	defer mappings.Close()
	for _, m := range droppable(mappings) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED) // as before, where it fails
	}
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// droppable finds the mappings of files whose every page is as it is in the file: they cannot be written to, and have
// not been (relocations are, before they become read-only).
func droppable(smaps io.Reader) []mapping {
	var all []mapping
	var last mapping
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		// 00400000-009f5000 r-xp 00000000 08:01 1234      /sidecar
		// Anonymous:             0 kB
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 6 && strings.HasPrefix(fields[5], "/") && (fields[1] == "r-xp" || fields[1] == "r--p"):
			last = addresses(fields[0])
		case len(fields) >= 5:
			last = mapping{}
		case len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0" && last.to > last.from:
			all = append(all, last)
		}
	}
	return all
}

func addresses(text string) mapping {
	low, high, _ := strings.Cut(text, "-")
	from, err := strconv.ParseUint(low, 16, 64)
	if err != nil {
		return mapping{}
	}
	to, err := strconv.ParseUint(high, 16, 64)
	if err != nil {
		return mapping{}
	}
	return mapping{uintptr(from), uintptr(to)}
}
