package routing

import "testing"

func TestWhatAnAppMayCallIsTakenFromWhateverAHostFieldSays(t *testing.T) {
	for host, want := range map[string]string{
		"":                                   "",
		" LLM.Example.com ":                  "llm.example.com",
		"https://llm.example.com:443/v1?x#y": "llm.example.com",
		"//llm.example.com":                  "llm.example.com",
		"me:secret@llm.example.com":          "llm.example.com",
		"llm.example.com?key=1":              "llm.example.com",
		"llm.example.com...":                 "llm.example.com",
		"bücher.example.com":                 "xn--bcher-kva.example.com",
		"BÜCHER。example。com":                 "xn--bcher-kva.example.com",
		"*.bücher.example.com":               "*.xn--bcher-kva.example.com",
		"通义_千问.cn":                           "xn--_-5r6a52n650fidg.cn",
		"::1":                                "[::1]",
		"[::1]:80":                           "[::1]",
		"http://[2001:DB8::1]/v1":            "[2001:db8::1]",
		"10.0.0.1:80":                        "10.0.0.1",
	} {
		if got := salvage(host); got != want {
			t.Errorf("%q gives %q, want %q", host, got, want)
		}
	}
}

func TestAWildcardCoversWhatItStandsFor(t *testing.T) {
	for _, c := range []struct {
		host, name string
		want       bool
	}{
		{"*", "anything", true},
		{"*.example.com", "llm.example.com", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"*example.com", "example.com", true},
		{"api.*", "api.example.com", true},
		{"api.*", "example.com", false},
		{"a*b*c", "a-b-c", true},
		{"a*b*c", "a-c", false},
		{"ab*ba", "aba", false},
	} {
		var in Objects
		if _, err := in.Decode([]byte("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: p}\nspec: {host: '"+c.host+"'}"), "default"); err != nil {
			t.Fatal(err)
		}
		table, _ := Compile(in, nil)
		if h := table.Host([]byte(c.name)); (h != nil) != c.want || h != nil && h.Refusal == nil {
			t.Errorf("%s owns %s: %t, want %t", c.host, c.name, h != nil, c.want)
		}
	}
}
