//go:build linux

package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
)

// line is a text that the thief sends to a provider, and what it is answered with: a regular expression of the status.
type line struct{ name, text, status string }

const turnedAway = "4.."

var (
	prompt = question("of the thief")
	length = fmt.Sprintf("Content-Length: %d\r\n", len(prompt))
)

const (
	bye      = "Connection: close\r\n\r\n" // the end of a head
	farewell = "\x88\x80\x00\x00\x00\x00"  // the frame that ends a WebSocket
)

// plain is a request without a body.
func plain(method, target, host string, headers ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(headers, ""), "\r\n") + bye
}

// chat is a request with a prompt.
func chat(method, target, host string, headers ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(headers, ""), "\r\n") + length + bye + prompt
}

// administrative are calls of what is no inference, and of what some server on the way could take for it.
func administrative() (all []line) {
	for _, call := range []string{
		"DELETE /v1/models/small", "POST /v1/models", "PUT /v1/models/small", "PATCH /v1/models/small", "DELETE /v1/models",
		"GET /v1/files", "POST /v1/files", "DELETE /v1/files/file-1", "GET /v1/files/file-1/content", "POST /v1/uploads",
		"GET /v1/organization/admin_api_keys", "POST /v1/organization/admin_api_keys", "GET /v1/organization/users", "GET /v1/organization/costs", "GET /v1/organization/usage/completions",
		"POST /v1/organization/projects", "GET /v1/fine_tuning/jobs", "POST /v1/fine_tuning/jobs", "POST /v1/batches", "GET /v1/batches",
		"POST /v1/assistants", "POST /v1/threads", "POST /v1/vector_stores", "GET /v1/chat/completions", "GET /v1/chat/completions/chatcmpl-1",
		"DELETE /v1/chat/completions/chatcmpl-1", "GET /v1/responses/resp-1", "DELETE /v1/responses/resp-1", "POST /v1/responses/resp-1/cancel", "POST /v1/realtime/sessions",
		"POST /v1/realtime/client_secrets", "GET /dashboard/billing/usage", "GET /v1/api_keys", "GET /api/v1/auth/key", "GET /v1/me",
		"PUT /v1/chat/completions", "PATCH /v1/chat/completions", "OPTIONS /v1/chat/completions", "TRACE /v1/chat/completions", "HEAD /v1/files",
		"PROPFIND /v1/files", "LINK /v1/chat/completions", "PURGE /v1/chat/completions", "post /v1/chat/completions", "DELETE%20 /v1/models/small",
	} {
		method, path, _ := strings.Cut(call, " ")
		all = append(all, line{"calls " + call, chat(method, path, bankHost), turnedAway})
	}
	for _, path := range []string{
		"/v1/chat/completions/../files", "/v1/chat/completions/..%2f..%2ffiles", "/v1/chat/completions/%2e%2e/%2e%2e/files", "/v1/%63hat/completions", "//v1/files", "/v1//files",
		"//v1/chat/completions", "/v1/chat//completions", "/v1/chat/completions/", "/v1/chat/completions;/../../files", "/v1/files;/chat/completions", "/v1/files/.;/chat/completions",
		"/v1/chat/completions%00/../files", `/v1/chat/completions\..\files`, "/v1/chat/completions%5c..%5cfiles", "/v1/chat/completions%23", "/v1/files%3f/chat/completions",
		"/v1/files%0d%0aX:%20/chat/completions", "/v1/%c0%ae%c0%ae/files", "/v1/chat/./completions", "/V1/CHAT/COMPLETIONS", "/../v1/chat/completions", "/v1/..;/files", "*", "v1/files",
		"/v1/files#/v1/chat/completions", "/v1/files?/v1/chat/completions", "/v1/files/chat/completions",
	} {
		all = append(all, line{"calls POST " + path, chat("POST", path, bankHost), turnedAway})
	}
	for _, path := range []string{
		"/v1/models/..%2ffiles", "/v1/models/%2e%2e%2ffiles", "/v1/models/..", "/v1/models/../files", "/v1/models/a%2f..%2f..%2ffiles", "/v1/models/a/../../files", "/v1/models//files",
		"/v1/models/a%3f", "/v1/models/a%23", "/v1/models/a;x", "/v1/models/a%252f..%252ffiles", "/v1/models/%2e", "/v1/models/.%2e/files", "/v1/models/a%00", "/v1/models/a/permissions",
	} {
		all = append(all, line{"calls GET " + path, plain("GET", path, bankHost), turnedAway})
	}
	socket := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	upgrade := func(path string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: " + bankHost + "\r\n" + strings.Join(socket, "\r\n") + "\r\n\r\n"
	}
	for _, path := range []string{"/v1/files", "/v1/organization/users", "/v1/realtime/../files", "/v1/realtime/sessions", "/v1/chat/completions", "/v1/models"} {
		all = append(all, line{"opens a WebSocket at " + path, upgrade(path) + plain("GET", "/v1/files", bankHost), turnedAway})
	}
	return append(all,
		line{"asks to be upgraded to HTTP/2", plain("GET", "/v1/files", bankHost, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), turnedAway},
		line{"tunnels to the provider's port 443", "CONNECT " + bankHost + ":443 HTTP/1.1\r\nHost: " + bankHost + ":443\r\n\r\n" + plain("GET", "/v1/files", bankHost), "405"},
		line{"calls an administrative path in a tunnel", "CONNECT " + bankHost + ":80 HTTP/1.1\r\nHost: " + bankHost + ":80\r\n\r\n" + plain("DELETE", "/v1/models/small", bankHost), "200.*HTTP/1.1 4.."},
		line{"calls an administrative path after a good call", "GET /v1/models HTTP/1.1\r\nHost: " + bankHost + "\r\n\r\n" + plain("DELETE", "/v1/models/small", bankHost), "200.*HTTP/1.1 4.."},
		line{"means another method by a header", chat("POST", "/v1/chat/completions", bankHost, "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE"), "200"},
		line{"means another path by a header", chat("POST", "/v1/chat/completions", bankHost, "X-Original-URL: /v1/files", "X-Rewrite-URL: /v1/files", "X-Forwarded-Path: /v1/files", "X-Forwarded-Prefix: /v1/files"), "200"},
		line{"has the key nominated as the connection's", chat("POST", "/v1/chat/completions", bankHost, "Connection: Authorization, Host, Content-Type", "Keep-Alive: Authorization"), "200"},
		line{"sends credentials of its own in headers", chat("POST", "/v1/chat/completions", bankHost, "Authorization: Bearer mine-0", "api-key: mine-1", "X-API-Key: mine-2", "x-goog-api-key: mine-3", "Cookie: mine-4"), "200"},
		line{"sends credentials of its own in the query", chat("POST", "/v1/chat/completions?key=mine-5&api_key=mine-6&api-key=mine-7&access_token=mine-8", bankHost), "200|400"},
		line{"sends a credential as the protocol of a WebSocket", strings.Replace(upgrade("/v1/realtime?model=small"), "\r\n\r\n", "\r\nSec-WebSocket-Protocol: realtime, openai-insecure-api-key.mine-9\r\n\r\n"+farewell, 1), "101"},
	)
}

// misleading are calls that name the provider and somebody else.
func misleading() []line {
	const path = "/v1/chat/completions"
	any := `\d\d\d`
	return []line{
		{"sends two hosts", chat("POST", path, bankHost, "Host: "+thiefHost), turnedAway},
		{"sends two hosts, the other's first", chat("POST", path, thiefHost, "Host: "+bankHost), turnedAway},
		{"sends a list of hosts", chat("POST", path, bankHost+", "+thiefHost), turnedAway},
		{"sends two hosts in one", chat("POST", path, bankHost+" "+thiefHost), turnedAway},
		{"names the other in the target", chat("POST", "http://"+thiefHost+path, bankHost), any},
		{"names the other beside the target", chat("POST", "http://"+bankHost+path, thiefHost), any},
		{"names the other as the user of the target", chat("POST", "http://"+thiefHost+"@"+bankHost+path, bankHost), any},
		{"names the provider as the user of the target", chat("POST", "http://"+bankHost+"@"+thiefHost+path, bankHost), any},
		{"names the provider as the password", chat("POST", "http://a:"+bankHost+"@"+thiefHost+path, thiefHost), any},
		{"names the provider as the port", chat("POST", path, thiefHost+":"+bankHost), any},
		{"names the provider with another port", chat("POST", path, bankHost+":14020"), any},
		{"names the provider with a dot behind", chat("POST", path, bankHost+"."), any},
		{"names the provider and a fragment", chat("POST", path, bankHost+"#"+thiefHost), any},
		{"names the provider and a path", chat("POST", path, thiefHost+"/"+bankHost), any},
		{"names the provider with a NUL", chat("POST", path, bankHost+"\x00"+thiefHost), turnedAway},
		{"names the provider with another scheme", chat("POST", "https://"+bankHost+path, bankHost), any},
		{"names the other with another scheme", chat("POST", "ftp://"+thiefHost+path, bankHost), any},
		{"has no host", "POST " + path + " HTTP/1.1\r\n" + length + bye + prompt, turnedAway},
		{"has no host in HTTP/1.0", "POST " + path + " HTTP/1.0\r\n" + length + bye + prompt, any},
		{"has an empty host", chat("POST", path, ""), any},
		{"folds the host", "POST " + path + " HTTP/1.1\r\nHost:\r\n " + thiefHost + "\r\nHost: " + bankHost + "\r\n" + length + bye + prompt, turnedAway},
		{"names the other in headers of proxies", chat("POST", path, bankHost, "X-Forwarded-Host: "+thiefHost, "Forwarded: host="+thiefHost, "X-Host: "+thiefHost, "X-Original-Host: "+thiefHost, "X-Forwarded-Server: "+thiefHost), "200"},
		{"calls the provider on a connection that began with a call to the other", "GET / HTTP/1.1\r\nHost: " + thiefHost + "\r\n\r\n" + chat("POST", path, bankHost), any},
		{"tunnels to the other under the provider's name", "CONNECT " + thiefHost + ":80 HTTP/1.1\r\nHost: " + bankHost + "\r\n\r\n" + chat("POST", path, bankHost), any},
		{"tunnels to the provider and names the other there", "CONNECT " + bankHost + ":80 HTTP/1.1\r\nHost: " + bankHost + "\r\n\r\n" + chat("POST", path, thiefHost), any},
	}
}

// smuggling are calls that servers may divide otherwise than the sidecar does. What would be smuggled is a DELETE.
func smuggling() []line {
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: " + nginxHost + "\r\n"
	hidden := plain("DELETE", "/v1/models/smuggled", nginxHost)
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(prompt), prompt)
	chunked := "Transfer-Encoding: chunked\r\n"
	f := func(name, headers, body string) line {
		return line{name, head + headers + "\r\n" + body + hidden, turnedAway}
	}
	return []line{
		f("sends a length and chunks", length+chunked, chunk+"0\r\n\r\n"),
		f("sends chunks and a length", chunked+"Content-Length: 4\r\n", chunk+"0\r\n\r\n"),
		f("sends two lengths", length+"Content-Length: 0\r\n", prompt),
		f("sends a list of lengths", fmt.Sprintf("Content-Length: %d, 0\r\n", len(prompt)), prompt),
		f("sends a length with a sign", fmt.Sprintf("Content-Length: +%d\r\n", len(prompt)), prompt),
		f("sends a length and hides another by a space", length+"Content-Length : 0\r\n", prompt),
		f("folds the coding", length+"Transfer-Encoding:\r\n chunked\r\n", prompt),
		{"folds a header over the coding", head + length + "X: a\r\n Transfer-Encoding: chunked\r\n\r\n" + prompt + "0\r\n\r\n" + hidden, "..."},
		f("sends a coding that is written otherwise", "Transfer-Encoding: xchunked\r\n"+length, prompt),
		f("sends a coding with a vertical tab", "Transfer-Encoding: \x0bchunked\r\n"+length, prompt),
		f("sends two codings", chunked+"Transfer-Encoding: identity\r\n", chunk+"0\r\n\r\n"),
		f("hides a coding by a space", "Transfer-Encoding : chunked\r\n"+length, prompt),
		f("sends extensions of chunks", chunked, fmt.Sprintf("%x;a=\"\r\n%s\"\r\n%s\r\n", len(prompt), hidden, prompt)+"0\r\n\r\n"),
		f("sends an extension with a bare LF", chunked, fmt.Sprintf("%x;\n", len(prompt))+prompt+"\r\n0\r\n\r\n"),
		f("ends chunks by bare LFs", chunked, strings.ReplaceAll(chunk+"0\r\n\r\n", "\r\n", "\n")),
		f("sends a chunk of a size that overflows", chunked, "10000000000000000\r\n"+prompt+"\r\n0\r\n\r\n"),
		f("sends a chunk of a size with 0x", chunked, "0x"+chunk+"0\r\n\r\n"),
		f("sends a chunk that is longer than it says", chunked, "2\r\n"+prompt+"\r\n0\r\n\r\n"),
		f("sends trailers that frame", chunked, chunk+"0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: "+thiefHost+"\r\n\r\n"),
		f("ends a header by a bare CR", "X: a\rTransfer-Encoding: chunked\r\n"+length, prompt),
		f("sends a NUL in a header", "X: a\x00\r\n"+length, prompt),
		f("sends a request in a header", "X: a\r\n\r\n"+hidden+"\r\n"+length, prompt),
		f("expects to be told to continue", "Expect: 100-continue\r\nContent-Length: 0\r\n", ""),
		{"sends a body with GET", "GET /v1/models HTTP/1.1\r\nHost: " + nginxHost + "\r\nContent-Length: " + fmt.Sprint(len(hidden)) + "\r\n\r\n" + hidden + plain("GET", "/v1/models", nginxHost), "..."},
		{"sends HTTP/1.0 with chunks", "POST /v1/chat/completions HTTP/1.0\r\nHost: " + nginxHost + "\r\nConnection: keep-alive\r\n" + chunked + "\r\n" + chunk + "0\r\n\r\n" + hidden, turnedAway},
		{"sends HTTP/0.9", "POST /v1/chat/completions\r\n" + hidden, "..."},
		{"puts a request into the target", "POST /v1/chat/completions?a HTTP/1.1\r\nX: HTTP/1.1\r\nHost: " + nginxHost + "\r\n" + length + bye + prompt, "..."},
		{"puts a request into the target, escaped", "POST /v1/chat/completions?%20HTTP/1.1%0d%0aHost:%20" + thiefHost + "%0d%0a HTTP/1.1\r\nHost: " + nginxHost + "\r\n" + length + bye + prompt, "..."},
	}
}

// answered wants a status in what came back.
func (l line) answered() []string {
	return []string{`^(HTTP/1\.1 100 Continue\r\n\r\n)?HTTP/1\.1 (` + l.status + `)`}
}

// sends makes each of the attempts as root and as another user, at the address of the provider, and where there is a second one, at that of the thief.
func (h *heist) sends(t *testing.T, all []line, addresses ...string) {
	t.Helper()
	for _, container := range []string{asRoot, asOther} {
		for i, to := range addresses {
			where := []string{"", ", at the thief's address"}[i]
			texts := make([]sent, len(all))
			for i, l := range all {
				texts[i] = sent{To: to, Text: []byte(l.text)}
			}
			for i, answer := range h.say(t, container, texts) {
				h.judge(t, container+"/"+all[i].name+where, string(answer), all[i].answered()...)
			}
		}
	}
}

// inference are the calls that may carry a key.
var inference = regexp.MustCompile(`^(POST /v1/(chat/completions|embeddings)|GET /v1/models(/[A-Za-z0-9._:-]+)?|GET /v1/realtime)$`)

// spent looks at what the bank received with keys: inference only, encrypted, each key for its own host, and nothing that leads
// elsewhere or asks for something else.
func (h *heist) spent(t *testing.T) {
	t.Helper()
	all := h.requests(t, h.bank)
	with := map[string]int{}
	for _, r := range all {
		text := told([]llmserver.Request{r})
		host := strings.TrimSuffix(r.Host, ".")
		for of, key := range h.keys {
			if !strings.Contains(text, key) {
				continue
			}
			with[of]++
			call := r.Method + " " + r.Path
			if host != of || !r.TLS && of != nginxHost || !inference.MatchString(call) || r.Header.Get("Authorization") != "Bearer "+key {
				t.Errorf("the key of %s was spent on %s of %s, encrypted: %v", of, call, r.Host, r.TLS)
				h.found++
			}
			r.Body = nil // it may say what it likes
			text = strings.ToLower(told([]llmserver.Request{r}))
			for _, word := range []string{"mine-", ": delete", "-url: /v1/files"} {
				if strings.Contains(text, word) {
					t.Errorf("with the key of %s, %q went out, in %s", of, word, h.redactedRequest(r))
				}
			}
		}
		if r.Method == "DELETE" && !strings.HasSuffix(r.Path, canary) {
			t.Errorf("the bank was asked to %s %s", r.Method, r.Path)
		}
	}
	if !slices.ContainsFunc(all, func(r llmserver.Request) bool { return r.Method == "DELETE" && strings.HasSuffix(r.Path, canary) }) {
		t.Error("a DELETE that was sent with no key on its way is not in the bank's record: what is looked for would not be seen")
	}
	for _, host := range []string{bankHost, nginxHost, guardedHost} {
		if with[host] == 0 {
			t.Errorf("nothing came with the key of %s: nothing was tried", host)
		}
	}
	t.Logf("calls with a key, all of them inference: %v", with)
}

// redactedRequest is a request without its key.
func (h *heist) redactedRequest(r llmserver.Request) string {
	r.RawHeader = slices.DeleteFunc(slices.Clone(r.RawHeader), func(l string) bool { return h.leak(l) != "" })
	return h.redacted(told([]llmserver.Request{r}))
}
