package proxy

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

// maxWindow is how far back a body in Zstandard may refer: what RFC 8878 asks every reader for.
const maxWindow = 8 << 20

// decode replaces a compressed body by what it says, so that it can be judged and edited. It grows as any body
// does, within the same limits, however small the compressed one is.
func (c *call) decode(limit int64, host *routing.Host) *failure {
	h := &c.ctx.Request.Header
	if len(h.ContentEncoding()) == 0 || string(h.ContentEncoding()) == "identity" {
		return nil
	}
	coding := strings.ToLower(string(bytes.Join(h.PeekAll(fasthttp.HeaderContentEncoding), []byte(", "))))
	m := c.proxy.memory
	packed, buffer, charged := c.body, c.buffer, c.charged()
	window := windowOf(coding, packed)
	c.body, c.buffer = nil, nil
	defer func() {
		recycle(buffer)
		m.give(&c.share, charged)
	}()
	if window > 0 {
		if f := m.take(&c.share, window, c.client); f != nil {
			return f
		}
		defer m.give(&c.share, window)
	}
	source := bytes.NewReader(packed)
	in, err := unpacker(coding, source, packed)
	if in == nil && err == nil {
		return fail(routing.UnsupportedEncoding, "the body is encoded as %q: send it plain, or as one of gzip, deflate, br and zstd", coding)
	}
	if err == nil {
		defer in.Close()
		for err == nil {
			if int64(len(c.body)) > limit {
				return tooLarge(0, limit, limitAt(host))
			}
			if len(c.body) == cap(c.body) {
				if f := c.grow(limit + 1); f != nil {
					return f
				}
			}
			var n int
			n, err = in.Read(c.body[len(c.body):cap(c.body)])
			c.body = c.body[:len(c.body)+n]
		}
		if errors.Is(err, io.EOF) && source.Len() == 0 {
			return nil
		}
	}
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return fail(routing.RequestTooLarge, "the body's zstd window is larger than %d MiB: compress it with a smaller one, or not at all", maxWindow>>20)
	}
	return fail(routing.InvalidRequest, "the body is not %s, as its Content-Encoding says, or not all of it, or more than it", coding)
}

// unpacker reads what a compressed body says. Without an error either, the coding is not known.
func unpacker(coding string, in *bytes.Reader, packed []byte) (io.ReadCloser, error) {
	switch coding {
	case "gzip", "x-gzip":
		return gzip.NewReader(in)
	case "deflate":
		if len(packed) > 1 && packed[0]&15 == 8 && (int(packed[0])<<8|int(packed[1]))%31 == 0 {
			return zlib.NewReader(in)
		}
		return flate.NewReader(in), nil // without the wrapping that RFC 9110 asks for, as some send it
	case "br":
		return io.NopCloser(brotli.NewReader(in)), nil
	case "zstd":
		d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return nil, nil
}

// windowOf gives the memory that reading a compressed body takes beside what it says, where that is much.
func windowOf(coding string, packed []byte) int64 {
	if len(packed) == 0 {
		return 0
	}
	switch coding {
	case "zstd":
		var h zstd.Header
		if h.Decode(packed) != nil || h.Skippable {
			return maxWindow
		}
		return int64(min(max(h.WindowSize, h.FrameContentSize), maxWindow))
	case "br": // RFC 7932, section 9.1
		switch b := packed[0]; {
		case b&1 == 0:
			return 1 << 16
		case b>>1&7 != 0:
			return 1 << (17 + b>>1&7)
		}
		return 1 << 17
	}
	return 0
}
