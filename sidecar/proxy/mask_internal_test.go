package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

const longKey = "sk-proj-Qm3kzT9x_0aVbN7LpR2sYwXeGhJ4uIoC5dF6gH8jK1l"

func TestAKeyIsMaskedWhereverItIs(t *testing.T) {
	f := func(key, text, want string) {
		t.Helper()
		b := []byte(text)
		m := newMask(routing.NewKey(key))
		if m.over(b); string(b) != want {
			t.Errorf("%q in %q: got %q, want %q", key, text, b, want)
		}
	}
	stars := strings.Repeat("*", len(longKey))
	f(longKey, "", "")
	f(longKey, longKey, stars)
	f(longKey, longKey+longKey, stars+stars)
	f(longKey, "a"+longKey+"b"+longKey, "a"+stars+"b"+stars)
	f(longKey, longKey[1:], longKey[1:])
	f(longKey, longKey[:20]+longKey+longKey[20:], longKey[:20]+stars+longKey[20:])
	f(longKey, strings.ToUpper(longKey), strings.ToUpper(longKey))
	f("sk-sk-sk-sk-", "sk-sk-sk-sk-sk-sk-", "************sk-sk-")
	f("sk-sk-sk-sk-x", "sk-sk-sk-sk-sk-x", "sk-*************")
	f("aaaaaaaaaaaa", strings.Repeat("a", 30), strings.Repeat("*", 24)+"aaaaaa")
	f("************", "************", "++++++++++++")
	f("EMPTY", "EMPTY", "EMPTY") // a word, and no key
	f("", "text", "text")
}

func TestWhatMayBeginAKeyIsKnown(t *testing.T) {
	f := func(key, text string, want int) {
		t.Helper()
		m := newMask(routing.NewKey(key))
		if got := m.open([]byte(text)); got != want {
			t.Errorf("%q at the end of %q: got %d, want %d", key, text, got, want)
		}
	}
	f(longKey, "", 0)
	f(longKey, "text", 0)
	f(longKey, "texts", 1)
	f(longKey, "s"+longKey[:7], 7)
	f(longKey, longKey[:len(longKey)-1], len(longKey)-1)
	f("sk-sk-sk-sk-x", "sk-sk-sk-sk-sk-", 12)
	f("sk-sk-sk-sk-x", "s s", 1)
	f("", "text", 0)
}

// Whatever pieces a text comes in, what is passed on is what it would be in one, and no more is held than may begin the key.
func FuzzMask(f *testing.F) {
	f.Add("sk-sk-sk-sk-x", "sk-sk-sk-sk-sk-x", uint64(1))
	f.Add(longKey, "a"+longKey+longKey[:9], uint64(2))
	f.Add("aabaabaabaab", "aabaabaabaabaabaabaabaabaab", uint64(3))
	f.Fuzz(func(t *testing.T, key, text string, seed uint64) {
		m := newMask(routing.NewKey(key))
		if m.key == "" {
			return
		}
		stars := strings.Repeat(string(rune(m.fill)), len(key))
		if m.fill > 126 {
			return
		}
		want := strings.ReplaceAll(text, key, stars)
		r := rand.New(rand.NewPCG(seed, 0))
		var got, held []byte
		for rest := []byte(text); len(rest) > 0; {
			n := 1 + r.IntN(min(len(rest), 2*len(key)))
			held = append(held, rest[:n]...)
			rest = rest[n:]
			m.over(held)
			open := m.open(held)
			if !strings.HasPrefix(key, string(held[len(held)-open:])) {
				t.Fatalf("%q is held", held[len(held)-open:])
			}
			got = append(got, held[:len(held)-open]...)
			held = append([]byte(nil), held[len(held)-open:]...)
		}
		if got = append(got, held...); string(got) != want {
			t.Fatalf("%q in %q: got %q, want %q", key, text, got, want)
		}
	})
}

func TestTheEndOfAFrameIsKnown(t *testing.T) {
	frame := func(n int) []byte {
		switch {
		case n < 126:
			return append([]byte{0x81, byte(n)}, make([]byte, n)...)
		case n < 1<<16:
			return append(binary.BigEndian.AppendUint16([]byte{0x82, 126}, uint16(n)), make([]byte, n)...)
		}
		return append(binary.BigEndian.AppendUint64([]byte{0x82, 127}, uint64(n)), make([]byte, n)...)
	}
	var all []byte
	ends := map[int]bool{}
	for _, n := range []int{0, 1, 125, 126, 127, 300, 65535, 65536, 70000, 2, 0, 0} {
		all = append(all, frame(n)...)
		ends[len(all)] = true
	}
	var f frames
	for i := range all {
		if got := f.end(all[i : i+1]); got != ends[i+1] {
			t.Fatalf("after %d bytes: %v", i+1, got)
		}
	}
	f = frames{}
	if !f.after(all) || f.seen != 0 || !f.end(all) || f.end(all[:1]) {
		t.Error("the end of all frames is not seen")
	}
}

// BenchmarkMask is what hiding a key costs: in an answer of 64 KiB, and in a chunk of a stream.
func BenchmarkMask(b *testing.B) {
	text := func(n int) []byte {
		const one = `{"id":"chatcmpl-9405c851b144f578","object":"chat.completion","created":1700000000,"choices":[{"index":0,"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog. JSON, XML and SQL are words; so is Quixotic."}}]}`
		return []byte(strings.Repeat(one, n/len(one)+1)[:n])
	}
	for _, size := range []int{200, 64 << 10} {
		answer := text(size)
		for name, key := range map[string]string{"of random letters": longKey, "in hexadecimal": "9405c851b144f5789405c851b144f5aa", "of 164 letters": "sk-proj-" + strings.Repeat(longKey[8:47], 4)} {
			b.Run(fmt.Sprintf("%d bytes, a key %s", size, name), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					m := newMask(routing.NewKey(key))
					m.over(answer)
					if m.open(answer) > len(key) {
						b.Fatal()
					}
				}
			})
		}
	}
	if bytes.Contains(text(64<<10), []byte("*")) {
		b.Fatal("masked what is no key")
	}
}
