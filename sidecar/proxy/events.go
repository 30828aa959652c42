package proxy

import "bytes"

// lastEvent gives the offset behind the last whole event: behind the last two line ends in a row. A line
// ends in CRLF, LF or CR.
func lastEvent(b []byte) int {
	for end := len(b); end > 0; end-- {
		if i := lineEnd(b, end); i < end && lineEnd(b, i) < i {
			return end
		}
	}
	return 0
}

// lineEnd gives the offset before the line end that stands right before end; end where there is none.
func lineEnd(b []byte, end int) int {
	switch {
	case end > 1 && b[end-1] == '\n' && b[end-2] == '\r':
		return end - 2
	case end > 0 && (b[end-1] == '\n' || b[end-1] == '\r'):
		return end - 1
	}
	return end
}

// hasData tells whether there is a whole event with data in it, and not only comments.
func hasData(b []byte) bool {
	b = b[:lastEvent(b)]
	return bytes.HasPrefix(b, []byte("data")) || bytes.Contains(b, []byte("\ndata")) || bytes.Contains(b, []byte("\rdata"))
}
