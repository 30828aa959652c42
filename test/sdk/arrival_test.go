package sdk_test

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/test/llmserver"
)

// arrivals gives the requests of an SDK by their marks, once the provider is through with all of them.
func arrivals(t *testing.T, sdk string) map[string][]arrival {
	t.Helper()
	found := map[string][]arrival{}
	for mark, entries := range mock.requests(t) {
		for _, e := range entries {
			header := http.Header{}
			for name, value := range e.Headers {
				header.Set(name, value)
			}
			header.Del("Host")         // with the port, where it is called directly
			header.Del("X-Request-Id") // aimock's own
			found[mark] = append(found[mark], arrival{line: e.Method + " " + e.Path, header: kept(header), body: text(t, e.Body)})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ended := 0; ; ended++ {
		all, err := provider.AwaitEnded(ctx, ended)
		own := map[string][]arrival{}
		open := ""
		ended = 0
		for _, r := range all {
			mark := r.Header.Get(markHeader)
			if !r.Ended.IsZero() {
				ended++
			} else if strings.HasPrefix(mark, sdk+",") {
				open = mark
			}
			own[mark] = append(own[mark], arrivalOf(r))
		}
		if open != "" && err != nil {
			t.Errorf("the provider is still busy with a request of %s", open)
		}
		if open == "" || err != nil {
			maps.Copy(found, own)
			return found
		}
	}
}

func arrivalOf(r llmserver.Request) arrival {
	header, body := r.Header.Clone(), r.Body
	if kind, boundary, form := strings.Cut(header.Get("Content-Type"), "; boundary="); form {
		// A form has a random boundary.
		body = bytes.ReplaceAll(body, []byte(boundary), []byte("BOUNDARY"))
		header.Set("Content-Type", kind)
		header.Del("Content-Length")
		header.Del("Transfer-Encoding")
	}
	line := r.Method + " " + r.Host + " " + r.SNI + " " + r.Path + "?" + r.RawQuery
	return arrival{line: line, header: kept(header), body: string(body), ended: r.Ended, aborted: r.Aborted}
}

func kept(header http.Header) map[string][]string {
	for _, name := range []string{markHeader, "Accept-Encoding", "Connection", "Keep-Alive"} {
		header.Del(name)
	}
	return header
}
