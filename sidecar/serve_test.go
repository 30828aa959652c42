package main

import (
	"strings"
	"testing"

	"github.com/go-logr/logr"
)

func TestTheWayOutIsReadFromTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string // the proxy; empty: none
	}{
		{nil, ""},
		{map[string]string{"HTTP_PROXY": "http://a:1", "http_proxy": "http://a:1", "ALL_PROXY": "http://a:1", "NO_PROXY": "x"}, ""},
		{map[string]string{"HTTPS_PROXY": "http://user:hunter2@a:1"}, "http://a:1"},
		{map[string]string{"https_proxy": "https://b"}, "https://b:443"},
		{map[string]string{"HTTPS_PROXY": "a:1", "https_proxy": "b:1"}, "http://a:1"},
	} {
		got, err := egressOf(func(name string) string { return c.env[name] }, logr.Discard())
		if err != nil || got == nil && c.want != "" || got != nil && got.String() != c.want {
			t.Errorf("%v gives %v, %v", c.env, got, err)
		}
	}
	_, err := egressOf(func(string) string { return "socks5://user:hunter2@a:1" }, logr.Discard())
	if err == nil || !strings.HasPrefix(err.Error(), "HTTPS_PROXY: it has the scheme socks5") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
