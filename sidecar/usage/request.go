package usage

import "bytes"

const (
	// wholeRequest is how long a request may be to be looked at from its beginning to its end; of a longer one, samples are.
	wholeRequest = 4 << 10
	samples      = 16
	sampleSize   = wholeRequest / samples
	// A string is no text, but an image in base64 or the like, where these of its bytes have no gap.
	opaqueFrom, opaqueTo = 64, 200
	// perMessage is what a provider adds to each message.
	perMessage = 3
)

// Request estimates how many tokens a request's JSON body has: those of its strings, but for keys and what is in base64. The
// effort is bounded: of a long body it is a guess from samples.
func Request(body []byte) int64 {
	var t Tally
	t.reset()
	size := sampleSize
	looked, images := 0, 0
	for from := 0; from < len(body); {
		if left := len(body) - from; looked+left <= wholeRequest { // most of it was an image
			size = left
		}
		to, image := t.sample(body, from, min(from+size, len(body)))
		looked += to - from - image
		images += image
		from = max(from+max(size, len(body)/samples), to)
	}
	if looked > 0 {
		t.sum += int64(float64(t.sum) * float64(len(body)-images-looked) / float64(looked))
	}
	t.skipped = 0
	return t.Tokens()
}

// sample looks at body[from:to], or a bit more: to the end of an image. It gives where it ended, and how many bytes of image it
// met.
func (t *Tally) sample(body []byte, from, to int) (end, image int) {
	inside := from > 0 && beginsInside(body[from:to])
	i := from
	for i < to {
		if !inside {
			j := bytes.IndexByte(body[i:to], '"')
			if j < 0 {
				break
			}
			i += j + 1
			inside = true
			continue
		}
		length, ended := stringLength(body[i:min(max(to, i+opaqueTo), len(body))])
		s := body[i : i+length]
		switch {
		case isOpaque(s):
			if j := bytes.IndexByte(body[i+length:], '"'); j >= 0 {
				length += j
			} else {
				length = len(body) - i
			}
			image += length
		case ended && next(body[i+length+1:]) == ':':
			if string(s) == "role" {
				t.sum += perMessage << 8
			}
		default:
			t.begin()
			t.add(s)
		}
		i += length + 1
		inside = false
	}
	return min(max(i, to), len(body)), image
}

// beginsInside guesses whether a piece of JSON begins inside a string, from what follows its first quote.
func beginsInside(b []byte) bool {
	length, ended := stringLength(b)
	if !ended {
		return true
	}
	switch next(b[length+1:]) {
	case ':', ',', '}', ']':
		return true
	}
	return false
}

// next gives the first byte that is not space; 0 without one.
func next(b []byte) byte {
	for _, c := range b {
		if c > ' ' {
			return c
		}
	}
	return 0
}

// stringLength is the length of a string up to its closing quote, or of what is here of it.
func stringLength(b []byte) (n int, ended bool) {
	for {
		j := bytes.IndexByte(b[n:], '"')
		if j < 0 {
			return len(b), false
		}
		n += j
		if backslashes(b[:n])%2 == 0 {
			return n, true
		}
		n++
	}
}

func isOpaque(s []byte) bool {
	if len(s) < opaqueTo {
		return false
	}
	for _, c := range s[opaqueFrom:opaqueTo] {
		if k := classes[c]; k > digit && c != '+' && c != '/' && c != '-' && c != '_' && c != '=' {
			return false
		}
	}
	return true
}
