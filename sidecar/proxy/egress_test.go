package proxy_test

import (
	"bufio"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr"

	"remora.dev/remora/sidecar/proxy"
	"remora.dev/remora/sidecar/routing"
)

// corporate is a proxy that connects wherever it is asked to, and remembers that.
type corporate struct {
	*httptest.Server
	mu       sync.Mutex
	asked    []string // CONNECT's targets
	credited []string // and their Proxy-Authorization
}

func newCorporate(t *testing.T, start func(http.Handler) *httptest.Server) *corporate {
	t.Helper()
	c := &corporate{}
	var tunnels sync.WaitGroup
	c.Server = start(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		c.mu.Lock()
		c.asked, c.credited = append(c.asked, q.Method+" "+q.RequestURI), append(c.credited, q.Header.Get("Proxy-Authorization"))
		c.mu.Unlock()
		to, err := net.Dial("tcp", q.RequestURI)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		from, in, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(from, "HTTP/1.1 200 Connection established\r\nVia: corporate\r\n\r\n")
		tunnels.Go(func() { _, _ = io.Copy(to, in); _ = to.Close() })
		tunnels.Go(func() { _, _ = io.Copy(from, to); _ = from.Close() })
	}))
	t.Cleanup(func() {
		c.Close()
		tunnels.Wait()
	})
	return c
}

func (c *corporate) requests() (asked, credited []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked, c.credited
}

// through has providers reached through a proxy.
func through(t *testing.T, address, except string) func(*proxy.Options) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	e, err := proxy.NewEgress(u, except, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	return func(o *proxy.Options) { o.Egress = e }
}

func TestProvidersWithTLSAreReachedThroughTheProxy(t *testing.T) {
	for name, start := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			c := newCorporate(t, start)
			r := newRig(t, providers, through(t, strings.Replace(c.URL, "://", "://app:p%40ss@", 1), ""), func(o *proxy.Options) {
				if name == "https" {
					o.TrustedCAs.AddCert(c.Certificate())
				}
			})
			for range 2 {
				if got := r.do("POST", "http://"+qwen, prompt); got.status != 200 {
					t.Fatalf("%d %s", got.status, got.body)
				}
			}
			if got := r.last(); !got.TLS || got.SNI != qwen || got.Header.Get("Proxy-Authorization") != "" {
				t.Errorf("the provider got %+v", got)
			}
			asked, credited := c.requests()
			if len(asked) != 1 || asked[0] != "CONNECT "+qwen+":443" {
				t.Errorf("the proxy was asked %q", asked)
			}
			if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("app:p@ss")); credited[0] != want {
				t.Errorf("the proxy got %q", credited[0])
			}
			if got := r.do("POST", "http://"+vllm, `{"model":"m","messages":[{"role":"user","content":"Hi"}]}`); got.status != 200 {
				t.Fatalf("%d %s", got.status, got.body)
			}
			if asked, _ := c.requests(); len(asked) != 1 {
				t.Errorf("a provider without TLS is reached through the proxy: %q", asked)
			}
		})
	}
}

func TestWhatIsExceptedIsReachedDirectly(t *testing.T) {
	c := newCorporate(t, httptest.NewServer)
	r := newRig(t, providers, through(t, c.URL, "internal.example.com,.aliyuncs.com"))
	for _, host := range []string{qwen, moonshot} {
		if got := r.do("POST", "http://"+host, `{"model":"m","messages":[{"role":"user","content":"Hi"}]}`); got.status != 200 {
			t.Errorf("%s: %d %s", host, got.status, got.body)
		}
	}
	if asked, credited := c.requests(); len(asked) != 1 || asked[0] != "CONNECT "+moonshot+":443" || credited[0] != "" {
		t.Errorf("the proxy was asked %q %q", asked, credited)
	}
}

// sayingProxy answers each CONNECT with a text, and goes on listening where it keeps the connection.
func sayingProxy(t *testing.T, text string, keep bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					return
				}
				_, _ = io.WriteString(c, text)
				if keep {
					_, _ = io.Copy(io.Discard, c)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

func TestAProxyThatDoesNotLeadOutSaysWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		scheme, user, answer string
		keep                 bool
		code                 routing.Code
		says                 []string
	}{
		"it demands credentials":        {"http://", "", "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", true, routing.ConnectFailure, []string{"demands credentials (407)", "HTTPS_PROXY"}},
		"it does not like those":        {"http://", "app:hunter2@", "HTTP/1.1 407 Go away\r\n\r\n", true, routing.ConnectFailure, []string{"does not accept the credentials in HTTPS_PROXY"}},
		"it does not allow it":          {"http://", "app:hunter2@", "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!", true, routing.ConnectFailure, []string{"does not allow connections to " + qwen + ":443 (403)", "NO_PROXY"}},
		"it does not get there":         {"http://", "", "HTTP/1.0 502 Bad Gateway\r\n\r\n", false, routing.ConnectFailure, []string{"does not reach " + qwen + ":443 (502)"}},
		"it is a teapot":                {"http://", "", "HTTP/1.1 418\r\n\r\n", true, routing.ConnectFailure, []string{"refuses to connect", "(418)"}},
		"it is no proxy":                {"http://", "app:hunter2@", "220 mail.example.com ESMTP\r\n", true, routing.ConnectFailure, []string{"does not answer as an HTTP proxy", "HTTPS_PROXY"}},
		"it switches protocols":         {"http://", "", "HTTP/1.1 101 Switching Protocols\r\n\r\n", true, routing.ConnectFailure, []string{"does not answer as an HTTP proxy"}},
		"it says too much":              {"http://", "", "HTTP/1.1 200 OK\r\n\r\nhello", true, routing.ConnectFailure, []string{"does not answer as an HTTP proxy"}},
		"its head has no end":           {"http://", "", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: b\r\n", 10000), true, routing.ConnectFailure, []string{"does not answer as an HTTP proxy"}},
		"its line has no end":           {"http://", "", "HTTP/1.1 200 " + strings.Repeat("x", 1<<20), true, routing.ConnectFailure, []string{"does not answer as an HTTP proxy"}},
		"it only promises":              {"http://", "", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10000), true, routing.ConnectFailure, []string{"does not answer as an HTTP proxy"}},
		"it says half":                  {"http://", "app:hunter2@", "HTTP/1.1 200 OK\r\nVia: x", true, routing.ConnectFailure, []string{"did not answer in time", "connectTimeout"}},
		"it says nothing":               {"http://", "app:hunter2@", "", true, routing.ConnectFailure, []string{"did not answer in time", "connectTimeout"}},
		"it says half and ends":         {"http://", "", "HTTP/1.1 200 OK\r\nVia: x", false, routing.ConnectFailure, []string{"ended the connection before it answered"}},
		"it ends":                       {"http://", "app:hunter2@", "", false, routing.ConnectFailure, []string{"ended the connection before it answered"}},
		"it is plain":                   {"https://", "app:hunter2@", "", false, routing.ConnectFailure, []string{"TLS with the proxy", "http:// in HTTPS_PROXY"}},
		"an answer to others, then 200": {"http://", "", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", false, routing.ConnectFailure, []string{"TLS with it failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			config := providers
			if slices.Contains(c.says, "connectTimeout") {
				config = strings.Replace(providers, "  path: /compatible", "  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 300ms}}}\n  path: /compatible", 1)
			}
			address := c.scheme + c.user + sayingProxy(t, c.answer, c.keep)
			r := newRig(t, config+route("once", "\n  - retries: {attempts: 0}\n    backendRefs: [{providerHost: "+qwen+"}]"), through(t, address, ""))
			got := r.do("POST", "http://once", prompt)
			got.wantError(t, 502, c.code, c.says...)
			r.await(openConnections, 0)
			for _, secret := range []string{"hunter2", base64.StdEncoding.EncodeToString([]byte("app:hunter2"))} {
				if strings.Contains(got.body, secret) || r.log.find(secret) != "" {
					t.Errorf("the password is shown: %s %s", got.body, r.log.find(secret))
				}
			}
		})
	}
}

func TestAProxyThatIsNotThereSaysThatItIsTheProxy(t *testing.T) {
	once := route("once", "\n  - retries: {attempts: 0}\n    backendRefs: [{providerHost: "+qwen+"}]")
	for address, says := range map[string]string{
		"http://127.0.0.1:9":                  "no connection to the proxy 127.0.0.1:9 could be made: check HTTPS_PROXY",
		"http://nowhere.corp.example.com:312": "the name nowhere.corp.example.com in HTTPS_PROXY could not be looked up",
	} {
		t.Run(address, func(t *testing.T) {
			r := newRig(t, providers+once, through(t, address, ""))
			r.do("POST", "http://once", prompt).wantError(t, 502, routing.ConnectFailure, says)
		})
	}
	stranger := newCorporate(t, httptest.NewTLSServer)
	r := newRig(t, providers+once, through(t, stranger.URL, ""))
	r.do("POST", "http://once", prompt).wantError(t, 502, routing.UntrustedCertificate, "the certificate of the proxy", "--trusted-ca")
	if asked, _ := stranger.requests(); len(asked) != 0 {
		t.Errorf("it was asked %q", asked)
	}
}

func TestTheSidecarIsNotItsOwnWayOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, providers, through(t, "http://"+l.Addr().String(), ""))
	go func() { _ = r.proxy.Serve(l) }()
	// The rig's own listener shows when the other has been taken in.
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
	r.do("POST", "http://"+qwen, prompt).wantError(t, 421, routing.MisdirectedRequest, "HTTPS_PROXY is this sidecar itself")
}
