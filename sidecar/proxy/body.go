package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// readBufferSize is what one read from a provider takes in at most.
const readBufferSize = 8 << 10

// maxHead bounds the head of an answer that does not fit into that.
const maxHead = 64 << 10

var (
	errBrokenChunk = errors.New("the answer's chunks are broken")
	errShortAnswer = errors.New("the answer ends before its announced length")
)

// answer reads the body of an HTTP/1.1 message from a connection, in the pieces in which it arrives and
// without copying them.
type answer struct {
	br      *bufio.Reader
	left    int64 // of the body, or of the chunk; -1: to the end of the connection
	chunked bool
	started bool // a chunk has been read, so a line end is due before the next one
	done    bool // all has been read, and the connection can be used again
}

// next gives what has arrived; it waits for at least one byte. io.EOF means that the body is complete.
// What it gives is valid until skip, which must be called with the length used.
func (a *answer) next() ([]byte, error) {
	if a.done {
		return nil, io.EOF
	}
	if a.left == 0 {
		if !a.chunked {
			a.done = true
			return nil, io.EOF
		}
		if err := a.nextChunk(); err != nil {
			return nil, err
		}
		if a.left == 0 {
			a.done = true
			return nil, io.EOF
		}
	}
	if _, err := a.br.Peek(1); err != nil {
		if err == io.EOF && a.left >= 0 {
			return nil, errShortAnswer
		}
		return nil, err
	}
	n := int64(a.br.Buffered())
	if a.left >= 0 {
		n = min(n, a.left)
	}
	return a.br.Peek(int(n))
}

// ended tells whether all of a body of known length has been used.
func (a *answer) ended() bool { return !a.chunked && a.left == 0 }

// skip says that n bytes of what next gave have been used.
func (a *answer) skip(n int) {
	_, _ = a.br.Discard(n) // they are buffered
	if a.left > 0 {
		a.left -= int64(n)
	}
}

// ready tells whether next would not have to wait.
func (a *answer) ready() bool {
	buffered := a.br.Buffered()
	if buffered == 0 {
		return a.done || !a.chunked && a.left == 0
	}
	if !a.chunked || a.left > 0 {
		return true
	}
	head, _ := a.br.Peek(buffered)
	if a.started {
		head = bytes.TrimPrefix(head, []byte("\r\n"))
	}
	size, rest, ok := bytes.Cut(head, []byte("\n"))
	if !ok {
		return false
	}
	if len(size) > 0 && size[0] == '0' { // perhaps the last one: the trailer must be there too
		return bytes.HasSuffix(head, []byte("\r\n\r\n"))
	}
	return len(rest) > 0
}

func (a *answer) nextChunk() error {
	if a.started {
		if line, err := a.line(); err != nil || len(line) != 0 {
			return broken(err)
		}
	}
	a.started = true
	line, err := a.line()
	if err != nil {
		return broken(err)
	}
	line, _, _ = bytes.Cut(line, []byte(";")) // an extension has no meaning here
	line = bytes.TrimRight(line, " \t")
	if len(line) == 0 || len(line) > 15 {
		return errBrokenChunk
	}
	var size int64
	for _, c := range line {
		switch {
		case '0' <= c && c <= '9':
			size = size<<4 | int64(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			size = size<<4 | int64(c|0x20-'a'+10)
		default:
			return errBrokenChunk
		}
	}
	a.left = size
	for trailer := 0; size == 0; { // it is not passed on
		line, err := a.line()
		if err != nil {
			return broken(err)
		}
		if len(line) == 0 {
			break
		}
		if trailer += len(line); trailer > maxHead {
			return errBrokenChunk
		}
	}
	return nil
}

func broken(err error) error {
	switch {
	case err == nil, errors.Is(err, bufio.ErrBufferFull):
		return errBrokenChunk
	case errors.Is(err, io.EOF):
		return errShortAnswer
	}
	return err
}

// line reads a line that ends in CRLF and gives it without.
func (a *answer) line() ([]byte, error) {
	line, err := a.br.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return nil, errBrokenChunk
	}
	return line[:len(line)-2], nil
}
