package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestASettledProcessGivesBackThePagesOfItsFile(t *testing.T) {
	before := residentFile(t)
	settle()
	if after := residentFile(t); after >= before {
		t.Errorf("%d KiB of files are resident before, and %d after", before, after)
	}
}

// residentFile is how much of mapped files this process has resident, in KiB.
func residentFile(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	var size int
	if _, err := fmt.Sscan(rest, &size); err != nil {
		t.Fatal(err)
	}
	return size
}

func TestOnlyWhatTheFileHasTooIsDropped(t *testing.T) {
	const smaps = `00400000-00500000 r-xp 00000000 08:01 7                          /sidecar
Size:               1024 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00500000-00600000 r--p 00100000 08:01 7                          /sidecar
Anonymous:             0 kB
00600000-00700000 r--p 00200000 08:01 7                          /relocated
Anonymous:             4 kB
00700000-00800000 rw-p 00300000 08:01 7                          /sidecar
Anonymous:             0 kB
00800000-00900000 r--p 00000000 00:00 0
Anonymous:             0 kB
7ffe08c10000-7ffe08c31000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
`
	got := droppable(strings.NewReader(smaps))
	if len(got) != 2 || got[0] != (mapping{0x400000, 0x500000}) || got[1] != (mapping{0x500000, 0x600000}) {
		t.Errorf("%#x", got)
	}
}
