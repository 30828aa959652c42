package proxy

import (
	"bytes"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// minMasked is the length from which a key is masked: a shorter one is a word (EMPTY, none) that any answer may have in it.
const minMasked = 12

// mask takes the key that was sent out of what comes back: a provider, or what is in front of it, may quote a request in an
// error, or in a header. Each occurrence becomes as many asterisks, so that every length stays true. An occurrence is the key
// byte by byte: not one that is compressed, in base64, or written with escapes (keys of letters, digits, - _ . have none in
// JSON and URLs), and not one that other bytes interrupt, as in the events of a stream that have a letter each.
type mask struct {
	key  string // empty: there is nothing to hide
	rare int    // where in it a byte is that is rare in answers
	fill byte   // that is not in it
}

// rarity ranks the bytes of keys, from those that are rare in answers to those that are not.
var rarity = func() (ranks [256]uint8) {
	const rarest = "ZQXJKVYWUGFHBDPMLCRNOETIAS97863452zqxj10kvbywgpfmucdlhrsniotae_-."
	for i := range ranks {
		ranks[i] = uint8(len(rarest))
	}
	for i := range len(rarest) {
		ranks[rarest[i]] = uint8(i)
	}
	return ranks
}()

func newMask(k routing.Key) mask {
	key := k.Reveal()
	if len(key) < minMasked {
		return mask{}
	}
	m := mask{key: key, fill: '*'}
	for i := range len(key) {
		if rarity[key[i]] < rarity[key[m.rare]] {
			m.rare = i
		}
	}
	for strings.IndexByte(key, m.fill) >= 0 {
		m.fill++
	}
	return m
}

// over masks the key in b.
func (m *mask) over(b []byte) {
	if m.key == "" {
		return
	}
	for at := m.rare; at < len(b); {
		i := bytes.IndexByte(b[at:], m.key[m.rare])
		if i < 0 {
			return
		}
		from := at + i - m.rare
		if len(b)-from < len(m.key) {
			return
		}
		at += i + 1
		if found := b[from : from+len(m.key)]; string(found) == m.key {
			for j := range found {
				found[j] = m.fill
			}
			at = from + len(m.key) + m.rare
		}
	}
}

// open gives how many bytes at the end of b may be the beginning of the key.
func (m *mask) open(b []byte) int {
	if m.key == "" {
		return 0
	}
	for tail := b[max(0, len(b)-len(m.key)+1):]; ; tail = tail[1:] {
		i := bytes.IndexByte(tail, m.key[0])
		if i < 0 {
			return 0
		}
		if tail = tail[i:]; m.key[:len(tail)] == string(tail) {
			return len(tail)
		}
	}
}

// head masks the key in the head of an answer. A header that is named by it is left out.
func (m *mask) head(h *fasthttp.ResponseHeader) {
	if m.key == "" {
		return
	}
	m.over(h.StatusMessage())
	var named [][]byte
	for name, value := range h.All() {
		m.over(value) // which is the header's own memory
		if len(name) >= len(m.key) && strings.Contains(strings.ToLower(string(name)), strings.ToLower(m.key)) {
			named = append(named, slices.Clone(name))
		}
	}
	for _, name := range named {
		h.DelBytes(name)
	}
}

// frames follows the frames of a WebSocket (RFC 6455, section 5.2), as far as to know where they end.
type frames struct {
	head [10]byte
	seen int    // of head
	left uint64 // of the payload, once the head is here
}

// end tells whether b, which is what follows, ends where a frame does.
func (f *frames) end(b []byte) bool {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(b)))
			b, f.left = b[n:], f.left-n
			continue
		}
		f.head[f.seen] = b[0]
		b, f.seen = b[1:], f.seen+1
		if f.seen < 2 {
			continue
		}
		length, size := uint64(f.head[1]&0x7f), 0
		switch length {
		case 126:
			size = 2
		case 127:
			size = 8
		}
		if f.seen < 2+size {
			continue
		}
		if size > 0 {
			length = 0
			for _, c := range f.head[2 : 2+size] {
				length = length<<8 | uint64(c)
			}
		}
		if f.head[1]&0x80 != 0 {
			length += 4 // a masking key, which a provider must not use
		}
		f.seen, f.left = 0, length
	}
	return f.left == 0 && f.seen == 0
}

// after is end for what has not been passed on yet.
func (f frames) after(b []byte) bool { return f.end(b) }
