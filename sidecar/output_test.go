package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"remora.dev/remora/sidecar/accesslog"
)

// fickle is a file that takes a number of bytes and then fails, until it has room again.
type fickle struct {
	mu   sync.Mutex
	got  bytes.Buffer
	room int
}

func (f *fickle) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := min(len(b), f.room); n < len(b) {
		f.got.Write(b[:n])
		f.room = 0
		return n, syscall.ENOSPC
	}
	f.room -= len(b)
	return f.got.Write(b)
}

func TestAfterADiskWasFullTheLogGoesOnAndSaysWhatIsMissing(t *testing.T) {
	for room := range 60 {
		synctest.Test(t, func(t *testing.T) {
			file := &fickle{room: room}
			out := newOutput(file, accessPause, accesslog.JSON.Missing)
			line := func(i int) {
				fmt.Fprintf(out, `{"line":%d}`+"\n", i)
				time.Sleep(2 * accessPause) //nolint:forbidigo // in a bubble, in which this takes no time
				synctest.Wait()
			}
			for i := range 5 {
				line(i)
			}
			file.mu.Lock()
			file.room = 1 << 20
			file.mu.Unlock()
			line(5)
			line(6)
			out.close()
			seen, missing, broken := 0, 0, 0
			for text := range strings.Lines(file.got.String()) {
				var got struct {
					Line    *int
					Missing int `json:"missing_lines"`
				}
				switch err := json.Unmarshal([]byte(text), &got); {
				case err != nil:
					broken++
				case got.Line != nil:
					seen++
				default:
					missing += got.Missing
				}
			}
			// Of one line, only the end may have been missing: it is there, and counted as missing.
			if seen+missing != 7 && seen+missing != 8 || broken > 2 || out.dropped() != uint64(missing) || !strings.Contains(file.got.String(), `{"line":6}`) {
				t.Errorf("with room for %d bytes: %d lines, %d said to be missing, %d counted, %d broken:\n%s", room, seen, missing, out.dropped(), broken, file.got.String())
			}
		})
	}
}

func TestAReaderThatIsSlowGoneOrFullNeitherStallsNorFillsTheMemory(t *testing.T) {
	gone := func() *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		return w
	}
	unread := func() *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return w
	}
	full := func() *os.File {
		f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	const lines = 200_000
	text := []byte(strings.Repeat("x", 499) + "\n")
	for name, open := range map[string]func() *os.File{"gone": gone, "unread": unread, "full": full} {
		to := open()
		out := newOutput(to, accessPause, accesslog.JSON.Missing)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range lines { // 100 MB
			if n, err := out.Write(text); n != len(text) || err != nil {
				t.Fatalf("%s: %d, %v", name, n, err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4*logRoom {
			t.Errorf("%s: %d bytes wait", name, grown)
		}
		out.close()
		to.Close()
		// What the pipe has taken, and what waits, is not dropped.
		if n := out.dropped(); n < lines-3*logRoom/uint64(len(text))-200 || n > lines {
			t.Errorf("%s: %d of %d lines are counted as dropped", name, n, lines)
		}
	}
}

func TestAReaderOfOneByteAtATimeGetsWholeLines(t *testing.T) {
	r, w := io.Pipe()
	out := newOutput(w, accessPause, accesslog.JSON.Missing)
	const lines = 5000
	for i := range lines {
		fmt.Fprintf(out, `{"line":%d,"filler":"%s"}`+"\n", i, strings.Repeat("x", 100))
	}
	go func() {
		<-out.ended
		w.Close()
	}()
	go out.close()
	seen, missing := 0, 0
	var text []byte
	one := make([]byte, 1)
	for {
		_, err := r.Read(one)
		if errors.Is(err, io.EOF) {
			break
		}
		if text = append(text, one[0]); one[0] != '\n' {
			continue
		}
		var got struct {
			Line    *int
			Missing int `json:"missing_lines"`
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		text = text[:0]
		if missing += got.Missing; got.Line != nil {
			seen++
		}
	}
	if seen+missing != lines || missing == 0 || out.dropped() != uint64(missing) {
		t.Errorf("%d lines and %d missing of %d; %d counted", seen, missing, lines, out.dropped())
	}
}
