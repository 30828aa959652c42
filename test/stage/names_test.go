package stage

import (
	"strings"
	"testing"
)

const before = `.:53 {
    errors
    kubernetes cluster.local {
        ttl 2
    }
    cache 2
}
`

func TestNamesAreWrittenIntoTheDNSAndThoseOfBeforeForgotten(t *testing.T) {
	once, err := withNames(before, map[string]string{"old.example.com": "10.0.0.9"})
	if err != nil || !strings.Contains(once, "10.0.0.9 old.example.com\n") {
		t.Fatalf("%v\n%s", err, once)
	}
	names := map[string]string{"b.example.com": "10.0.0.2", "a.example.com": "10.0.0.1"}
	twice, err := withNames(once, names)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(before, ".:53 {\n", `.:53 {
    hosts {
        10.0.0.1 a.example.com
        10.0.0.2 b.example.com
        ttl 2
        fallthrough
    }
`, 1)
	if twice != want {
		t.Errorf("it became\n%s\nwant\n%s", twice, want)
	}
}

func TestAnotherDNSIsLeftAlone(t *testing.T) {
	if out, err := withNames("example.com {\n}\n", map[string]string{"a": "10.0.0.1"}); err == nil {
		t.Errorf("it was made into\n%s", out)
	}
}
