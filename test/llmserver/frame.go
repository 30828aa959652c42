package llmserver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// The frames of RFC 6455, as a server that negotiates no extension reads and writes them.

type opcode byte

const (
	opContinuation opcode = 0x0
	opText         opcode = 0x1
	opBinary       opcode = 0x2
	opClose        opcode = 0x8
	opPing         opcode = 0x9
	opPong         opcode = 0xA
)

func (o opcode) control() bool { return o >= opClose }

const (
	closeProtocol = 1002
	closeKind     = 1003 // of a kind that is not taken
	closeText     = 1007 // not UTF-8
	closeTooBig   = 1009

	messageLimit = 16 << 20 // bytes
	controlLimit = 125
)

// frameError is why a server ends a WebSocket.
type frameError struct {
	code   int
	reason string
}

func (e *frameError) Error() string { return e.reason }

type frame struct {
	last    bool // of its message
	op      opcode
	payload []byte
}

// readFrame reads a frame of a client's.
func readFrame(r *bufio.Reader) (frame, error) {
	wrong := func(format string, a ...any) (frame, error) {
		return frame{}, &frameError{closeProtocol, fmt.Sprintf(format, a...)}
	}
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{last: head[0]&0x80 != 0, op: opcode(head[0] & 0xF)}
	switch f.op {
	case opContinuation, opText, opBinary, opClose, opPing, opPong:
	default:
		return wrong("there is no opcode %d", f.op)
	}
	if head[0]&0x70 != 0 {
		return wrong("a reserved bit is set, and no extension was agreed on")
	}
	if head[1]&0x80 == 0 {
		return wrong("a client's frame must be masked")
	}
	length, err := readLength(r, head[1]&0x7F)
	switch {
	case err != nil:
		return frame{}, err
	case f.op.control() && (length > controlLimit || !f.last):
		return wrong("a control frame of %d bytes, or in fragments", length)
	case length > messageLimit:
		return frame{}, &frameError{closeTooBig, "the message is too big"}
	}
	var mask [4]byte
	if _, err := io.ReadFull(r, mask[:]); err != nil {
		return frame{}, err
	}
	f.payload = make([]byte, length)
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return frame{}, err
	}
	for i := range f.payload {
		f.payload[i] ^= mask[i%4]
	}
	return f, nil
}

// readLength reads the longer forms of a length, which must be needed.
func readLength(r io.Reader, short byte) (uint64, error) {
	var raw [8]byte
	if short < 126 {
		return uint64(short), nil
	}
	size, least := 2, uint64(126)
	if short == 127 {
		size, least = 8, 1<<16
	}
	if _, err := io.ReadFull(r, raw[8-size:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint64(raw[:])
	if n < least || n > 1<<63-1 {
		return 0, &frameError{closeProtocol, "the length is not in its shortest form"}
	}
	return n, nil
}

// appendFrame appends a server's frame, which is not masked.
func appendFrame(dst []byte, f frame) []byte {
	first := byte(f.op)
	if f.last {
		first |= 0x80
	}
	dst = append(dst, first)
	switch n := len(f.payload); {
	case n < 126:
		dst = append(dst, byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
	return append(dst, f.payload...)
}

// errClosed says that the client closed the WebSocket as it should.
var errClosed = errors.New("closed in order")

// readMessage reads a text, and answers the control frames before its end. It fails with errClosed, a *frameError or that of
// the connection.
func (c *connection) readMessage() ([]byte, error) {
	var message []byte
	begun := false
	for {
		f, err := readFrame(c.reader)
		if err != nil {
			return nil, err
		}
		switch {
		case f.op.control():
			if err := c.control(f); err != nil {
				return nil, err
			}
			continue
		case f.op == opBinary:
			return nil, &frameError{closeKind, "only text is taken"}
		case begun != (f.op == opContinuation):
			return nil, &frameError{closeProtocol, "a message begins within another, or goes on without having begun"}
		case len(message)+len(f.payload) > messageLimit:
			return nil, &frameError{closeTooBig, "the message is too big"}
		}
		message, begun = append(message, f.payload...), true
		if !f.last {
			continue
		}
		if !utf8.Valid(message) {
			return nil, &frameError{closeText, "the text is not UTF-8"}
		}
		return message, nil
	}
}

func (c *connection) control(f frame) error {
	if f.op == opPing {
		return c.writeFrame(frame{last: true, op: opPong, payload: f.payload})
	}
	if f.op == opClose {
		if n := len(f.payload); n == 1 || n > 2 && !utf8.Valid(f.payload[2:]) || n > 1 && !closeCode(binary.BigEndian.Uint16(f.payload)) {
			return &frameError{closeProtocol, "a close frame with a wrong code or reason"}
		}
		if err := c.writeFrame(frame{last: true, op: opClose, payload: f.payload}); err != nil {
			return err
		}
		return errClosed
	}
	return nil
}

// closeCode tells whether a code may be sent.
func closeCode(code uint16) bool {
	switch code {
	case 1004, 1005, 1006:
		return false
	}
	return 1000 <= code && code <= 1014 || 3000 <= code && code <= 4999
}

func (c *connection) writeFrame(f frame) error {
	c.out = appendFrame(c.out[:0], f)
	_, err := c.wire.Write(c.out)
	return err
}

func (c *connection) writeClose(code int, reason string) error {
	return c.writeFrame(frame{last: true, op: opClose, payload: append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)})
}
