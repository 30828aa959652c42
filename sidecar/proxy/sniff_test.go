package proxy

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"remora.dev/remora/sidecar/routing"
)

const ownedHost = "dashscope.aliyuncs.com"

func sniffTable(tb testing.TB) *routing.Table {
	tb.Helper()
	o := routing.Objects{Secrets: []routing.Secret{}}
	if _, err := o.Decode([]byte("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: qwen}\nspec: {host: "+ownedHost+"}\n"), "default"); err != nil {
		tb.Fatal(err)
	}
	table, _ := routing.Compile(o, &routing.Workload{Namespace: "default"})
	if table.Host([]byte(ownedHost)) == nil {
		tb.Fatal("the host is not owned")
	}
	return table
}

func TestTheFirstBytesTellWhatAConnectionIs(t *testing.T) {
	table := sniffTable(t)
	f := func(want verdict, text string) {
		t.Helper()
		if got := sniff([]byte(strings.ReplaceAll(text, "OWNED", ownedHost)), table); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
	f(undecided, "")
	f(undecided, "\r\n")
	f(undecided, "GET")
	f(undecided, "GET / HTTP/1.1")
	f(undecided, "GET / HTTP/1.1\r\nHost: foreign\r\n")
	f(undecided, "GET / HTTP/1.1\r\nHost: foreign\r\n\r")
	f(undecided, "PRI * HTTP/2.0\r\n")

	f(owned, "GET / HTTP/1.1\r\nHost: OWNED\r\n\r\n")
	f(owned, "\r\n\r\nget / http/1.1\nhOST:OWNED:80\n\n")
	f(owned, " GET / HTTP/1.1\r\nHost: DashScope.Aliyuncs.Com.\r\n\r\n")
	f(owned, "GET http://OWNED HTTP/1.1\r\n")
	f(owned, "GET http://user:word@OWNED:80/ HTTP/1.1\r\nHost: foreign\r\n\r\n")
	f(owned, "GET http:///\\OWNED/ HTTP/1.1\r\n")
	f(owned, "GET http://foreign/ HTTP/1.1\r\nHost: OWNED\r\n\r\n")
	f(owned, "GET / HTTP/1.1\r\nHost: foreign\r\nHost: OWNED\r\n\r\n")
	f(owned, "GET / HTTP/1.1\r\nHost: OWNED\r\nHost: foreign\r\n\r\n")
	f(owned, "GET / HTTP/1.1\r\nHost \t: OWNED\r\n\r\n")
	f(owned, "GET / HTTP/1.1\r\n\x00Host:\x00OWNED\r\n\r\n")
	f(owned, "GET / HTTP/1.1\r\nX: 1\r\n Host: OWNED\r\n\r\n")
	f(owned, "GET / HTTP/1.1\r\nX: 1\rHost: OWNED\r\n\r\n")
	f(owned, "GET / HTTP/1.1\rHost: OWNED\r\n\r\n")
	f(owned, "GET / HTTP/1.1\r\nHost:\r\n\tOWNED\r\n\r\n")
	f(owned, "GET / HTTP/1.1\r\nHost\r\n : OWNED\r\n\r\n")
	f(owned, "GET / HTTP/1.1\r\nHost: foreign, OWNED\r\n\r\n")
	f(owned, "GET\t/\tHTTP/1.0\nHost: OWNED\n\r\n")
	f(owned, "GET http://OWNED/\r\n")
	f(owned, "GET /\r\nHost: OWNED\r\n\r\n")
	f(owned, "CONNECT OWNED:443 HTTP/1.1\r\n")
	f(owned, "PRI * HTTP/2.0\r\nHost: OWNED\r\n\r\n")

	f(foreign, "GET / HTTP/1.1\r\nHost: foreign\r\n\r\n")
	f(foreign, "GET / HTTP/1.1\n\n")
	f(foreign, "GET /OWNED HTTP/1.1\r\nReferer: http://OWNED/\r\nX-Host: OWNED\r\n\r\n")
	f(foreign, "GET / HTTP/1.1\r\nHost: foreign\r\n\r\nHost: OWNED\r\n\r\n")
	f(foreign, "GET / HTTP/1.1\r\nHost: OWNED.evil.example\r\n\r\n")
	f(foreign, "GET / HTTP/1.1\r\nHost: evil-OWNED\r\n\r\n")
	f(foreign, "GET http://foreign/?to=OWNED HTTP/1.1\r\n\r\n")
	f(foreign, "CONNECT foreign:443 HTTP/1.1\r\n\r\n")

	f(alien, "\x16\x03\x01")
	f(alien, "\x00")
	f(alien, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	f(alien, "GET /\r\n")
	f(alien, "EHLO foreign\r\n")
	f(alien, "SSH-2.0-app\r\n")
	f(alien, "*1\r\n$4\r\nPING\r\n")
	f(alien, "OPTIONS rtsp://foreign/ RTSP/1.0\r\n")
	f(alien, "HELO\x00")
}

// FuzzSniff asks the two servers that many others are built on: where one of them reads a request for an owned host, the
// connection must not be passed on, however its bytes come in.
func FuzzSniff(f *testing.F) {
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: dashscope.aliyuncs.com\r\n\r\n", "\r\n\nPOST http://dashscope.aliyuncs.com:80/x HTTP/1.0\r\nHost: foreign\r\n\r\n",
		"GET http://u:p@DASHSCOPE.aliyuncs.com./ HTTP/1.1\nHost: a\n\n", "CONNECT dashscope.aliyuncs.com:80 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nX: a\r\n b\r\nhost:\r\n dashscope.aliyuncs.com\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /\r\n", "\x16\x03\x01",
		"GET / HTTP/1.1\n\r\nHost: dashscope.aliyuncs.com\r\n\r\n", "GET  / HTTP/1.1\r\nHost : dashscope.aliyuncs.com\r\n\r\n", "GET //dashscope.aliyuncs.com HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: dashscope.aliyuncs.com\r\n\r\n", "GET / HTTP/1.1\rHost: dashscope.aliyuncs.com\r\n\r\n", "g a://dashscope.aliyuncs.com HTTP/9.9\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	table := sniffTable(f)
	isOwned := func(authority string) bool { return table.Host([]byte(authority)) != nil }
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4<<10 {
			return
		}
		first, at := undecided, 0
		for ; first == undecided && at <= len(b); at++ {
			first = sniff(b[:at:at], table)
		}
		whole := sniff(b, table)
		if first == owned && whole != owned || first == undecided && whole != undecided {
			t.Fatalf("%q: %d after %d bytes, and %d after all", b, first, at-1, whole)
		}
		if first != foreign && first != alien {
			return
		}
		if q, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b))); err == nil {
			if isOwned(q.Host) || isOwned(q.URL.Host) || isOwned(q.URL.Hostname()) || isOwned(q.Header.Get("Host")) {
				t.Fatalf("%q is passed on, and net/http reads %q", b, q.Host)
			}
		}
		var h fasthttp.RequestHeader
		if err := h.Read(bufio.NewReaderSize(bytes.NewReader(b), appHeadSize)); err == nil {
			var uri fasthttp.URI
			_ = uri.Parse(h.Host(), h.RequestURI())
			if isOwned(string(h.Host())) || isOwned(string(uri.Host())) {
				t.Fatalf("%q is passed on, and fasthttp reads %q", b, h.Host())
			}
		}
	})
}
