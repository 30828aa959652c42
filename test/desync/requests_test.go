package desync_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A request is a text with these words in it:
//
//	{POST}      the request line and the Host header of a chat completion
//	{M}         the header X-Marker: one
//	{length}    the header Content-Length that is right for {body}
//	{body}      a prompt with the marker "one"
//	{size} {SIZE}  its length, in decimal and in hexadecimal
//	{chunk}     it as a chunk
//	{two}       a whole request with the marker "two", which may follow
//	{smuggled}  a whole request with the marker "smuggled", which must never be one
//
// A whole request with the marker "last", which asks for the end of the connection, follows each text.
//
// want is what the app gets: for each answer its status, or for a 200 its marker. Where there are alternatives, separated by
// " or ", each of them is safe, and which one it is depends on how much work it was worth.
type request struct {
	name string
	text string
	want string
}

// conflicts are two framings in one request.
var conflicts = []request{
	{"length, then chunked", "{POST}{M}Content-Length: {size}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"chunked, then length", "{POST}{M}Transfer-Encoding: chunked\r\nContent-Length: {size}\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"a short length and chunked", "{POST}{M}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"a length of zero and chunked", "{POST}{M}Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"two lengths", "{POST}{M}Content-Length: {size}\r\nContent-Length: 0\r\n\r\n{body}{smuggled}", "400"},
	{"two lengths, the lesser first", "{POST}{M}Content-Length: 0\r\nContent-Length: {size}\r\n\r\n{smuggled}", "400"},
	{"two equal lengths", "{POST}{M}{length}{length}\r\n{body}{smuggled}", "400"},
	{"two lengths in other case", "{POST}{M}{length}content-length: 0\r\n\r\n{body}{smuggled}", "400"},
	{"a list of lengths", "{POST}{M}Content-Length: {size}, {size}\r\n\r\n{body}{smuggled}", "400"},
	{"a list with nothing", "{POST}{M}Content-Length: {size},\r\n\r\n{body}{smuggled}", "400"},
	{"two codings", "{POST}{M}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"a second coding nobody knows", "{POST}{M}Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"a first coding nobody knows", "{POST}{M}Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"chunked, identity", "{POST}{M}Transfer-Encoding: chunked, identity\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"identity, chunked", "{POST}{M}Transfer-Encoding: identity, chunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"gzip, chunked", "{POST}{M}Transfer-Encoding: gzip, chunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"chunked, chunked", "{POST}{M}Transfer-Encoding: chunked, chunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
}

// codings are ways to write Transfer-Encoding that one server may read and the next one not.
var codings = []request{
	{"in capitals", "{POST}{M}TRANSFER-ENCODING: CHUNKED\r\n\r\n{chunk}0\r\n\r\n", "one,last or 400"},
	{"in small letters", "{POST}{M}transfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n", "one,last"},
	{"after a tab", "{POST}{M}Transfer-Encoding:\tchunked\r\n\r\n{chunk}0\r\n\r\n", "one,last or 400"},
	{"after nothing", "{POST}{M}Transfer-Encoding:chunked\r\n\r\n{chunk}0\r\n\r\n", "one,last"},
	{"before a space", "{POST}{M}Transfer-Encoding: chunked \r\n\r\n{chunk}0\r\n\r\n", "one,last or 400"},
	{"xchunked", "{POST}{M}Transfer-Encoding: xchunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"chunkedx", "{POST}{M}Transfer-Encoding: chunkedx\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"with a parameter", "{POST}{M}Transfer-Encoding: chunked;q=1\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"in quotes", "{POST}{M}Transfer-Encoding: \"chunked\"\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"with a comma behind", "{POST}{M}Transfer-Encoding: chunked,\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"with a comma before", "{POST}{M}Transfer-Encoding: ,chunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"empty", "{POST}{M}Transfer-Encoding:\r\n{length}\r\n{body}{smuggled}", "400"},
	{"identity with a length", "{POST}{M}Transfer-Encoding: identity\r\n{length}\r\n{body}", "one,last or 400"},
	{"after a vertical tab", "{POST}{M}Transfer-Encoding:\x0bchunked\r\n{length}\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"before a vertical tab", "{POST}{M}Transfer-Encoding: chunked\x0b\r\n{length}\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"before a NUL", "{POST}{M}Transfer-Encoding: chunked\x00\r\n{length}\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"after a no-break space", "{POST}{M}Transfer-Encoding: \xa0chunked\r\n{length}\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"a space before the colon", "{POST}{M}Transfer-Encoding : chunked\r\n{length}\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"a tab before the colon", "{POST}{M}Transfer-Encoding\t: chunked\r\n{length}\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"a LF before the colon", "{POST}{M}Transfer-Encoding\n: chunked\r\n{length}\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"a space before the name", "{POST}{M}X: x\r\n Transfer-Encoding: chunked\r\n{length}\r\n{body}", "one,last or 400"},
	{"a CR before the name", "{POST}{M}\rTransfer-Encoding: chunked\r\n{length}\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"within a value, after a CR", "{POST}{M}X: x\rTransfer-Encoding: chunked\r\n{length}\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"folded", "{POST}{M}Transfer-Encoding:\r\n chunked\r\n\r\n{chunk}0\r\n\r\n", "one,last or 400"},
	{"an underscore in the name", "{POST}{M}Transfer_Encoding: chunked\r\n{length}\r\n{body}", "one,last or 400"},
	{"with HTTP/1.0", "{POST 1.0}{M}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"with HTTP/1.0 and a length", "{POST 1.0}{M}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{chunk}0\r\n\r\n{smuggled}", "400"},
	{"in TE only", "{POST}{M}TE: chunked\r\n{length}\r\n{body}", "one,last"},
}

// lengths are ways to write Content-Length.
var lengths = []request{
	{"zeros in front", "{POST}{M}Content-Length: 000{size}\r\n\r\n{body}", "one,last or 400"},
	{"spaces around", "{POST}{M}Content-Length:  {size} \r\n\r\n{body}", "one,last or 400"},
	{"a tab in front", "{POST}{M}Content-Length:\t{size}\r\n\r\n{body}", "one,last or 400"},
	{"a sign", "{POST}{M}Content-Length: +{size}\r\n\r\n{body}{smuggled}", "400"},
	{"negative", "{POST}{M}Content-Length: -1\r\n\r\n{body}{smuggled}", "400"},
	{"hexadecimal", "{POST}{M}Content-Length: 0x{SIZE}\r\n\r\n{body}{smuggled}", "400"},
	{"with an exponent", "{POST}{M}Content-Length: 1e2\r\n\r\n{body}{smuggled}", "400"},
	{"with a fraction", "{POST}{M}Content-Length: {size}.0\r\n\r\n{body}{smuggled}", "400"},
	{"with an underscore", "{POST}{M}Content-Length: 1_0\r\n\r\n{body}{smuggled}", "400"},
	{"empty", "{POST}{M}Content-Length:\r\n\r\n{body}{smuggled}", "400"},
	{"a space within", "{POST}{M}Content-Length: 1 0\r\n\r\n{body}{smuggled}", "400"},
	{"something behind", "{POST}{M}Content-Length: {size};x\r\n\r\n{body}{smuggled}", "400"},
	{"a NUL behind", "{POST}{M}Content-Length: {size}\x00\r\n\r\n{body}{smuggled}", "400"},
	{"a vertical tab in front", "{POST}{M}Content-Length: \x0b{size}\r\n\r\n{body}{smuggled}", "400"},
	{"full-width digits", "{POST}{M}Content-Length: \uff15\r\n\r\n{body}{smuggled}", "400"},
	{"2^64 too many", "{POST}{M}Content-Length: 18446744073709551616\r\n\r\n{body}{smuggled}", "400"},
	{"2^63", "{POST}{M}Content-Length: 9223372036854775808\r\n\r\n{body}{smuggled}", "400 or 413"},
	{"forty digits", "{POST}{M}Content-Length: 1000000000000000000000000000000000000000\r\n\r\n{body}{smuggled}", "400"},
	{"a space before the colon", "{POST}{M}Content-Length : {size}\r\n\r\n{body}{smuggled}", "400"},
	{"folded", "{POST}{M}Content-Length:\r\n {size}\r\n\r\n{body}", "one,last or 400"},
	{"a digit on a folded line", "{POST}{M}Content-Length: 1\r\n 0\r\n\r\n{body}{smuggled}", "400"},
	{"an underscore in the name", "{POST}{M}Content_Length: 3\r\n{length}\r\n{body}", "one,last or 400"},
}

// chunks are bodies in chunks.
var chunks = []request{
	{"in small letters", "{POST}{M}{chunked}\r\n{size in hex}\r\n{body}\r\n0\r\n\r\n", "one,last"},
	{"in capitals", "{POST}{M}{chunked}\r\n{SIZE}\r\n{body}\r\n0\r\n\r\n", "one,last"},
	{"zeros in front", "{POST}{M}{chunked}\r\n0000{SIZE}\r\n{body}\r\n0000\r\n\r\n", "one,last or 400"},
	{"many zeros in front", "{POST}{M}{chunked}\r\n" + strings.Repeat("0", 100) + "{SIZE}\r\n{body}\r\n0\r\n\r\n", "one,last or 400"},
	{"an extension", "{POST}{M}{chunked}\r\n{SIZE};a=b\r\n{body}\r\n0;c\r\n\r\n", "one,last or 400"},
	{"an extension in quotes", "{POST}{M}{chunked}\r\n{SIZE};a=\"b;\\\"c\"\r\n{body}\r\n0\r\n\r\n", "one,last or 400"},
	{"a space before an extension", "{POST}{M}{chunked}\r\n{SIZE} ;a\r\n{body}\r\n0\r\n\r\n", "one,last or 400"},
	{"an extension of 64 KiB", "{POST}{M}{chunked}\r\n{SIZE};" + strings.Repeat("a", 64<<10) + "\r\n{body}\r\n0\r\n\r\n", "one,last or 400"},
	{"a LF in an extension", "{POST}{M}{chunked}\r\n{SIZE};a\nb\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"a CR in an extension", "{POST}{M}{chunked}\r\n{SIZE};a\rb\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"a NUL in an extension", "{POST}{M}{chunked}\r\n{SIZE};a\x00b\r\n{body}\r\n0\r\n\r\n", "one,last or 400"},
	{"a LF after the size", "{POST}{M}{chunked}\r\n{SIZE}\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"a CR after the size", "{POST}{M}{chunked}\r\n{SIZE}\r{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"a LF after the data", "{POST}{M}{chunked}\r\n{SIZE}\r\n{body}\n0\r\n\r\n{smuggled}", "400"},
	{"nothing after the data", "{POST}{M}{chunked}\r\n{SIZE}\r\n{body}0\r\n\r\n{smuggled}", "400"},
	{"two other bytes after the data", "{POST}{M}{chunked}\r\n{SIZE}\r\n{body}xx0\r\n\r\n{smuggled}", "400"},
	{"a LF after the last size", "{POST}{M}{chunked}\r\n{chunk}0\n\r\n{smuggled}", "400"},
	{"a LF at the end", "{POST}{M}{chunked}\r\n{chunk}0\r\n\n", "one,last or 400"},
	{"2^64 and the size", "{POST}{M}{chunked}\r\n10000000000000000{SIZE}\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"2^63", "{POST}{M}{chunked}\r\n8000000000000000\r\n{body}\r\n0\r\n\r\n{smuggled}", "400 or 413"},
	{"negative", "{POST}{M}{chunked}\r\n-{SIZE}\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"a sign", "{POST}{M}{chunked}\r\n+{SIZE}\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"0x", "{POST}{M}{chunked}\r\n0x{SIZE}\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"a space in front", "{POST}{M}{chunked}\r\n {SIZE}\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"a space within", "{POST}{M}{chunked}\r\n{SIZE} 0\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"an underscore", "{POST}{M}{chunked}\r\n1_0\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"an empty line for a size", "{POST}{M}{chunked}\r\n\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"a word", "{POST}{M}{chunked}\r\nten\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"an extension without a size", "{POST}{M}{chunked}\r\n;a\r\n{body}\r\n0\r\n\r\n{smuggled}", "400"},
	{"one byte each", "{POST}{M}{chunked}\r\n{bytes}0\r\n\r\n", "one,last"},
	{"a trailer", "{POST}{M}{chunked}\r\n{chunk}0\r\nX-Late: 1\r\n\r\n", "one,last or 400,last"},
	{"a length in the trailer", "{POST}{M}{chunked}\r\n{chunk}0\r\nContent-Length: 3\r\n\r\n{smuggled after}", "one,two,last or 400 or 400,last or 400,two,last"},
	{"a coding in the trailer", "{POST}{M}{chunked}\r\n{chunk}0\r\nTransfer-Encoding: chunked\r\n\r\n{smuggled after}", "one,two,last or 400 or 400,two,last"},
	{"a host in the trailer", "{POST}{M}{chunked}\r\n{chunk}0\r\nHost: evil.example.com\r\n\r\n{smuggled after}", "one,two,last or 400 or 400,two,last"},
	{"a key in the trailer", "{POST}{M}{chunked}\r\n{chunk}0\r\nAuthorization: Bearer mine\r\n\r\n{smuggled after}", "one,two,last or 400 or 400,two,last"},
	{"a request in the trailer", "{POST}{M}{chunked}\r\n{chunk}0\r\n{smuggled}", "400"},
	{"a trailer with a NUL", "{POST}{M}{chunked}\r\n{chunk}0\r\nX: \x00\r\n\r\n{smuggled}", "400"},
	{"a trailer without end", "{POST}{M}{chunked}\r\n{chunk}0\r\n" + strings.Repeat("X: 1\r\n", 50_000) + "\r\n{smuggled}", "400"},
}

// lines are heads that servers read differently.
var lines = []request{
	{"a LF for each line", "{POST with LF}X-Marker: one\nContent-Length: {size}\n\n{body}", "one,last or 400"},
	{"a LF for one line", "{POST}X-Marker: one\n{length}\r\n{body}", "one,last or 400"},
	{"a LF for the last line", "{POST}{M}{length}\n{body}", "one,last or 400"},
	{"a CR for each line", "{POST}X-Marker: one\rContent-Length: {size}\r\r{body}\r\n\r\n", "400"},
	{"a value that is folded", "{POST}{M}X-Fold: a\r\n b\r\n{length}\r\n{body}", "one,last or 400"},
	{"a first line that is folded", "{POST}{M}{length}\r\n{body}", "one,last"},
	{"folded with nothing before", "{POST line}\r\n X: x\r\nHost: {host}\r\n{M}{length}\r\n{body}", "400"},
	{"a NUL in a value", "{POST}{M}X: a\x00b\r\n{length}\r\n{body}{smuggled}", "400"},
	{"a control byte in a value", "{POST}{M}X: a\x01b\r\n{length}\r\n{body}{smuggled}", "400"},
	{"a DEL in a value", "{POST}{M}X: a\x7fb\r\n{length}\r\n{body}{smuggled}", "400"},
	{"a vertical tab in a value", "{POST}{M}X: a\x0bb\r\n{length}\r\n{body}{smuggled}", "400"},
	{"a tab in a value", "{POST}{M}X: a\tb\r\n{length}\r\n{body}", "one,last"},
	{"a byte above 127 in a value", "{POST}{M}X: \xe9\xff\r\n{length}\r\n{body}", "one,last or 400"},
	{"a NUL in a name", "{POST}{M}X\x00Y: a\r\n{length}\r\n{body}{smuggled}", "400"},
	{"a control byte in a name", "{POST}{M}X\x01Y: a\r\n{length}\r\n{body}{smuggled}", "400"},
	{"a byte above 127 in a name", "{POST}{M}X\xe9: a\r\n{length}\r\n{body}{smuggled}", "400"},
	{"a delimiter in a name", "{POST}{M}X(Y): a\r\n{length}\r\n{body}{smuggled}", "400"},
	{"a space in a name", "{POST}{M}X Y: a\r\n{length}\r\n{body}", "400 or 400,last"},
	{"a space before a colon", "{POST}{M}X : a\r\n{length}\r\n{body}{smuggled}", "400"},
	{"no name", "{POST}{M}: a\r\n{length}\r\n{body}{smuggled}", "400"},
	{"no colon", "{POST}{M}nothing\r\n{length}\r\n{body}{smuggled}", "400"},
	{"two hosts", "{POST}Host: {host}\r\n{M}{length}\r\n{body}{smuggled}", "400"},
	{"two different hosts", "{POST}Host: evil.example.com\r\n{M}{length}\r\n{body}{smuggled}", "400"},
	{"an absolute form and another host", "POST http://{host}/v1/chat/completions HTTP/1.1\r\nHost: evil.example.com\r\n{M}{length}\r\n{body}", "one,last or 400"},
	{"an absolute form with a user", "POST http://evil.example.com@{host}/v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}", "400,last or 400"},
	{"empty lines in front", "\r\n\r\n{POST}{M}{length}\r\n{body}", "one,last"},
	{"something in front", "x\r\n{POST}{M}{length}\r\n{body}{smuggled}", "400"},
	{"two spaces in the line", "POST  {target} HTTP/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}{smuggled}", "400"},
	{"a tab in the line", "POST\t{target}\tHTTP/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}{smuggled}", "400"},
	{"a space in the target", "POST {target}?a b HTTP/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}{smuggled}", "400"},
	{"a request in the target", "POST {target}?a HTTP/1.1\r\nX: HTTP/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}", "one,last or 400"},
	{"a NUL in the target", "POST {target}?a\x00b HTTP/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}{smuggled}", "400"},
	{"a CR in the target", "POST {target}?a\rb HTTP/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}{smuggled}", "400"},
	{"an escaped line in the target", "POST {target}?a=%0d%0aX-Evil:1 HTTP/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}", "one,last"},
	{"a fragment in the target", "POST {target}#x HTTP/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}", "400"},
	{"HTTP/0.9", "POST {target}\r\n{smuggled}", "400"},
	{"HTTP/1.2", "POST {target} HTTP/1.2\r\nHost: {host}\r\n{M}{length}\r\n{body}", "one or one,last or 400 or 505"},
	{"HTTP/2.0", "POST {target} HTTP/2.0\r\nHost: {host}\r\n{M}{length}\r\n{body}{smuggled}", "one or 400 or 505"},
	{"HTTP/11.1", "POST {target} HTTP/11.1\r\nHost: {host}\r\n{M}{length}\r\n{body}{smuggled}", "400 or 505"},
	{"HTTP/1.1x", "POST {target} HTTP/1.1x\r\nHost: {host}\r\n{M}{length}\r\n{body}{smuggled}", "400 or 505"},
	{"http/1.1", "POST {target} http/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}{smuggled}", "400 or 505"},
	{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{smuggled}", "400 or 505"},
	{"HTTP/1.0", "{POST 1.0}{M}{length}\r\n{body}", "one"},
	{"HTTP/1.0 that is kept", "{POST 1.0}{M}Connection: keep-alive\r\n{length}\r\n{body}", "one,last"},
	{"a name of 20 KiB", "{POST}{M}" + strings.Repeat("x", 20<<10) + ": 1\r\n{length}\r\n{body}{smuggled}", "400 or 431"},
	{"a method with a NUL", "PO\x00ST {target} HTTP/1.1\r\nHost: {host}\r\n{M}{length}\r\n{body}{smuggled}", "400"},
}

// connections are requests that speak of the connection.
var connections = []request{
	{"one after the other", "{POST}{M}{length}\r\n{body}{two}", "one,two,last"},
	{"one after the other, in chunks", "{POST}{M}{chunked}\r\n{chunk}0\r\n\r\n{two}", "one,two,last"},
	{"the key is nominated", "{POST}{M}Connection: Authorization\r\nAuthorization: Bearer mine\r\n{length}\r\n{body}", "one,last"},
	{"the length is nominated", "{POST}{M}Connection: Content-Length\r\n{length}\r\n{body}", "one,last or 400"},
	{"the coding is nominated", "{POST}{M}Connection: Transfer-Encoding\r\n{chunked}\r\n{chunk}0\r\n\r\n", "one,last or 400"},
	{"the host is nominated", "{POST}{M}Connection: Host\r\n{length}\r\n{body}", "one,last or 400"},
	{"an upgrade to HTTP/2", "{POST}{M}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n{length}\r\n{body}", "one,last"},
	{"an upgrade to WebSocket", "{POST}{M}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{length}\r\n{body}", "one,last"},
	{"a body is expected", "{POST}{M}Expect: 100-continue\r\n{length}\r\n{body}", "one,last"},
	{"a body is expected, in chunks", "{POST}{M}Expect: 100-continue\r\n{chunked}\r\n{chunk}0\r\n\r\n", "one,last"},
	{"something else is expected", "{POST}{M}Expect: a-miracle\r\n{length}\r\n{body}", "one,last or 400 or 417"},
	{"expectation in HTTP/1.0", "{POST 1.0}{M}Expect: 100-continue\r\n{length}\r\n{body}", "one"},
	{"another method is meant", "{POST}{M}X-HTTP-Method-Override: DELETE\r\n{length}\r\n{body}", "one,last"},
	{"a proxy's connection", "{POST}{M}Proxy-Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n{length}\r\n{body}", "one,last"},
}

// wholeRequest is a request without any trick.
func wholeRequest(line, marker, header string) string {
	body := prompt(marker)
	return line + "X-Marker: " + marker + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n" + header + "\r\n" + body
}

// written puts a request's words in. The prefix makes its markers its own.
func (r request) written(host, target, prefix string) string {
	line := func(version, end string) string {
		return "POST " + target + " HTTP/" + version + end + "Host: " + host + end
	}
	body := prompt(prefix + "one")
	var bytes strings.Builder
	for i := range len(body) {
		fmt.Fprintf(&bytes, "1\r\n%c\r\n", body[i])
	}
	post := line("1.1", "\r\n")
	size := strconv.Itoa(len(body))
	two := wholeRequest(post, prefix+"two", "")
	return strings.NewReplacer(
		"{POST}", post, "{POST 1.0}", line("1.0", "\r\n"), "{POST with LF}", line("1.1", "\n"),
		"{POST line}", "POST "+target+" HTTP/1.1", "{target}", target, "{host}", host,
		"{M}", "X-Marker: "+prefix+"one\r\n", "X-Marker: one", "X-Marker: "+prefix+"one",
		"{length}", "Content-Length: "+size+"\r\n", "{chunked}", "Transfer-Encoding: chunked\r\n",
		"{size}", size, "{SIZE}", fmt.Sprintf("%X", len(body)), "{size in hex}", fmt.Sprintf("%x", len(body)),
		"{body}", body, "{bytes}", bytes.String(), "{chunk}", fmt.Sprintf("%x\r\n%s\r\n", len(body), body),
		"{two}", two, "{smuggled after}", two, "{smuggled}", wholeRequest(post, prefix+"smuggled", ""),
	).Replace(r.text) + wholeRequest(post, prefix+"last", "Connection: close\r\n")
}

func TestWhatPassesIsOneRequestForEachServer(t *testing.T) {
	corpus := map[string][]request{
		"conflicts": conflicts, "codings": codings, "lengths": lengths, "chunks": chunks, "lines": lines, "connections": connections,
	}
	for _, name := range []string{"nginx", "nethttp", "llmserver"} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, name)
			owned := name + ".example.com"
			proxy := start(t, owned)
			n := 0
			for group, all := range corpus {
				for _, r := range all {
					n++
					t.Run(group+"/"+r.name, func(t *testing.T) {
						r.try(t, s, proxy, owned, "/v1/chat/completions", fmt.Sprintf("%do-", n))
						foreign := name + ".foreign.example.com"
						r.try(t, s, proxy, foreign, "http://"+foreign+"/v1/chat/completions", fmt.Sprintf("%df-", n))
					})
				}
			}
			if late := s.take(t, 0); len(late) > 0 {
				t.Errorf("requests that nobody sent: %+v", late)
			}
		})
	}
}

// try sends a request and compares what the app got with what the server saw.
func (r request) try(t *testing.T, s server, proxy, host, target, prefix string) {
	t.Helper()
	replies, err := dial(t, proxy).all(r.written(host, target, prefix))
	if err != nil {
		t.Errorf("%s: after %+v: %v", host, replies, err)
	}
	var got []string
	var want []seen
	for _, one := range replies {
		if one.status != 200 {
			got = append(got, strconv.Itoa(one.status))
			continue
		}
		marker := markerOf(one.body)
		got = append(got, strings.TrimPrefix(marker, prefix))
		body := prompt(marker)
		want = append(want, seen{Marker: marker, Method: "POST", Host: host, Status: "200", Body: told([]byte(body))})
	}
	if !slices.Contains(strings.Split(r.want, " or "), strings.Join(got, ",")) {
		t.Errorf("%s: the app got %s, want %s: %+v", host, strings.Join(got, ","), r.want, replies)
	}
	arrived := s.take(t, len(want))
	for i := range arrived {
		arrived[i].check(t, host, strings.HasPrefix(target, "/"))
	}
	byMarker := func(a, b seen) int { return strings.Compare(a.Marker, b.Marker) } // servers tell when they are done, in any order
	slices.SortFunc(arrived, byMarker)
	slices.SortFunc(want, byMarker)
	if !slices.Equal(arrived, want) {
		t.Errorf("%s: the server saw %+v, want %+v", host, arrived, want)
	}
}

// check compares what is not the same in all requests that are right, and takes it out.
func (s *seen) check(t *testing.T, host string, owned bool) {
	t.Helper()
	size, _, _ := strings.Cut(s.Body, " ")
	if (s.Length != size || s.Coding != "") && (s.Length != "" || s.Coding != "chunked") {
		t.Errorf("%s: %s: Content-Length %q and Transfer-Encoding %q for %s bytes", host, s.Marker, s.Length, s.Coding, size)
	}
	if path, _, _ := strings.Cut(s.Target, "?"); path != "/v1/chat/completions" {
		t.Errorf("%s: %s: the target is %s", host, s.Marker, s.Target)
	}
	if owned && s.Key != "Bearer "+key {
		t.Errorf("%s: %s: the key is %s", host, s.Marker, s.Key)
	}
	s.Length, s.Coding, s.Target, s.Key = "", "", "", ""
}
