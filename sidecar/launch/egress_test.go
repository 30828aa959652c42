package launch_test

import (
	"strings"
	"testing"

	"remora.dev/remora/sidecar/launch"
)

func TestAProxyIsNamedByAURL(t *testing.T) {
	for value, want := range map[string]string{
		"http://proxy.corp:3128":              "http://proxy.corp:3128",
		"proxy.corp:3128":                     "http://proxy.corp:3128",
		"http://proxy.corp/":                  "http://proxy.corp:80",
		"https://proxy.corp":                  "https://proxy.corp:443",
		"HTTP://10.0.0.1:8080":                "http://10.0.0.1:8080",
		"http://[2001:db8::1]:3128":           "http://[2001:db8::1]:3128",
		"http://[2001:db8::1]":                "http://[2001:db8::1]:80",
		"http://user:p%40ss@proxy.corp:3128/": "http://user:p%40ss@proxy.corp:3128",
	} {
		got, err := launch.ParseEgress(value)
		if err != nil || got.String() != want {
			t.Errorf("%s is %v, %v; want %s", value, got, err, want)
		}
	}
}

func TestWhatIsNoProxyIsRefusedWithoutShowingItsPassword(t *testing.T) {
	for value, want := range map[string]string{
		"socks5://user:hunter2@proxy.corp:1080": "the scheme socks5",
		"http://user:hunter2@proxy.corp:0":      "its port",
		"http://user:hunter2@proxy.corp:99999":  "its port",
		"http://user:hunter2@proxy.corp:x":      "not the URL",
		"http://user:hunter2%zz@proxy.corp":     "not the URL",
		"http://user:hunter2@":                  "not the URL",
		"http://user:hunter2@proxy.corp/path":   "not the URL",
		"http://user:hunter2@proxy.corp?a=b":    "not the URL",
		"://hunter2":                            "not the URL",
		"":                                      "not the URL",
	} {
		_, err := launch.ParseEgress(value)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "http://HOST:PORT") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v; want %s", value, err, want)
		}
	}
}
