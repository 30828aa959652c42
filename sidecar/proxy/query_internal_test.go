package proxy

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestAFixedQueryTakesThePlaceOfTheAppsOwn(t *testing.T) {
	f := func(fixed, app, want string) {
		t.Helper()
		if got := string(appendQuery([]byte("/path"), fixed, "", []byte(app))); got != "/path"+want {
			t.Errorf("%q with %q: got %q, want %q", fixed, app, got, "/path"+want)
		}
	}
	// Without a fixed one, all is kept.
	f("", "", "")
	f("", "a=1&b", "?a=1&b")
	f("", "?&&%zz;", "??&&%zz;")
	// The others are kept to the letter, in their order.
	f("v=1", "", "?v=1")
	f("v=1", "a=%41+%2B&b&c=&&d==", "?v=1&a=%41+%2B&b&c=&&d==")
	f("v=1", "vv=2&a=v&a=v=3&=v&v%3D=4", "?v=1&vv=2&a=v&a=v=3&=v&v%3D=4")
	f("v=1", "%76%76&%7&%&%v", "?v=1&%76%76&%7&%&%v")
	f("v=1", "%2576=2", "?v=1&%2576=2")
	// The same name gives way, however it is written and wherever it stands.
	f("v=1", "v=2", "?v=1")
	f("v=1", "v&v=&v=2&a=3&v=4", "?v=1&a=3")
	f("api-version=1", "api%2Dversion=2&API%2dVersion=3&%61pi-versio%6E=4&a=5&Api-Version", "?api-version=1&a=5")
	f("a=1&b=2&long=3", "b=x&c=y&long=z&lon=k&longer=l&A=m", "?a=1&b=2&long=3&c=y&lon=k&longer=l")
	f("v=1", "a=2;v=3;b=4", "?v=1&a=2;b=4")
	f("v=1", "v=3;b=4&c=5", "?v=1;b=4&c=5")
}

func TestTheAppsOwnCredentialsAreTakenOutOfAQuery(t *testing.T) {
	f := func(fixed, app, want string) {
		t.Helper()
		if got := string(appendQuery([]byte("/path"), fixed, ownCredentials, []byte(app))); got != "/path"+want {
			t.Errorf("%q with %q: got %q, want %q", fixed, app, got, "/path"+want)
		}
	}
	f("", "", "")
	f("", "key=sk", "")
	f("", "key=sk&a=1", "?a=1")
	f("", "a=1&key=sk&b;c", "?a=1&b;c")
	f("", "a;KEY=sk;b&key", "?a;b")
	f("", "api_key=1&api-key=2&apikey=3&access_token=4&token=5&subscription-key=6&key=7", "")
	f("", "k%65y=1&%41PI%2dKEY=2&Api%5FKey=3&aPiKeY&acce%73s_token=%20", "")
	f("", "keys=1&my_key=2&tokens=3&max_token=4&model=key", "?keys=1&my_key=2&tokens=3&max_token=4&model=key")
	f("v=1", "key=sk&v=2&a=3", "?v=1&a=3")
	f("key=provider", "KEY=app&b", "?key=provider&b")
}

func TestAFixedQueryCostsNoMemory(t *testing.T) {
	dst := make([]byte, 0, 4096)
	for _, fixed := range []string{"", "api-version=2024-10-21&mode=all"} {
		for _, app := range []string{"", "api%2Dversion=1&a=2&b=3;c"} {
			query := []byte(app)
			if n := testing.AllocsPerRun(100, func() { dst = appendQuery(dst[:0], fixed, ownCredentials, query) }); n != 0 {
				t.Errorf("%q with %q: %v allocations", fixed, app, n)
			}
		}
	}
}

func FuzzAppendQuery(f *testing.F) {
	for _, app := range []string{"", "api-version=2", "api%2Dversion=2&a=1", "%", "a&;b=%4", "API-version", "a=1;mode=2"} {
		f.Add(app)
	}
	const fixed = "api-version=1&mode=a%20b"
	f.Fuzz(func(t *testing.T, app string) {
		got, found := strings.CutPrefix(string(appendQuery(nil, fixed, "", []byte(app))), "?"+fixed)
		if !found {
			t.Fatalf("%q: got %q", app, got)
		}
		if got != "" && got[0] != '&' && got[0] != ';' {
			t.Fatalf("%q runs into the fixed parameters: %q", app, got)
		}
		for _, part := range strings.FieldsFunc(got, func(r rune) bool { return r == '&' || r == ';' }) {
			name, _, _ := strings.Cut(part, "=")
			if plain, err := url.QueryUnescape(name); err == nil && slices.Contains([]string{"api-version", "mode"}, strings.ToLower(plain)) {
				t.Errorf("%q: %q slips by", app, part)
			}
			// In its order, to the letter.
			at := strings.Index(app, part)
			if at < 0 {
				t.Fatalf("%q: %q is not of the app's ", app, part)
			}
			app = app[at+len(part):]
		}
	})
}
