package routing

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
)

func seeds(f *testing.F) [][]byte {
	f.Helper()
	var all [][]byte
	for _, pattern := range []string{"testdata/*.in.yaml", "../../test/cases/*/*.yaml", "../../config/samples/*.yaml", "../../config/samples/asm/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("nothing matches %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			all = append(all, bytes.Split(text, []byte("---\n"))...)
		}
	}
	return all
}

// Whatever is written, Decode and Compile come to an end, and no host that is named in it is passed on.
func FuzzDecodeCompile(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		in := Objects{Secrets: []Secret{}}
		if _, err := in.Decode(doc, "default"); err != nil && strings.Contains(err.Error(), "%!") {
			t.Errorf("an error without words: %q", err)
		}
		var hosts []string
		for i := range in.Providers {
			hosts = append(hosts, in.Providers[i].Spec.Host)
		}
		for i := range in.Routes {
			hosts = append(hosts, in.Routes[i].Spec.Host)
			for _, rule := range in.Routes[i].Spec.Rules {
				for _, b := range rule.BackendRefs {
					hosts = append(hosts, b.ProviderHost)
				}
			}
		}
		for _, u := range in.Unreadable {
			hosts = append(hosts, u.Hosts...)
			if len(u.Problems) == 0 || u.Problems[0].Severity != Invalid {
				t.Errorf("unreadable, but not invalid: %+v", u)
			}
		}
		for _, w := range []*Workload{nil, {Namespace: namespaceOf(in)}} {
			table, problems := Compile(in, w)
			for _, p := range problems {
				if said := fmt.Sprint(p); p.Message == "" || p.Code == "" || strings.Contains(said, "%!") && !bytes.Contains(doc, []byte("%!")) {
					t.Errorf("a problem without words: %#v", p)
				}
			}
			for _, host := range hosts {
				if name := salvage(host); name != "" && table.Host([]byte(name)) == nil {
					t.Errorf("%q is named as %q, and passed on", name, host)
				}
			}
			if _, err := table.WriteTo(io.Discard); err != nil {
				t.Error(err)
			}
		}
		// As if all of it were of the installation's namespace, and exported.
		given := Objects{Secrets: in.Secrets}
		hosts = nil
		for i := range in.Providers {
			p := in.Providers[i]
			p.Namespace, hosts = v1beta1.InstallationNamespace, append(hosts, p.Spec.Host)
			given.Exported = append(given.Exported, Exported{"shop", p})
		}
		for _, u := range in.Unreadable {
			u.Object.Namespace, u.To, hosts = v1beta1.InstallationNamespace, "shop", append(hosts, u.Hosts...)
			given.Unreadable = append(given.Unreadable, u)
		}
		table, _ := Compile(given, &Workload{Namespace: "shop"})
		for _, host := range hosts {
			if name := salvage(host); name != "" && table.Host([]byte(name)) == nil {
				t.Errorf("%q is exported as %q, and passed on", name, host)
			}
		}
	})
}

func namespaceOf(in Objects) string {
	for i := range in.Providers {
		return in.Providers[i].Namespace
	}
	for i := range in.Routes {
		return in.Routes[i].Namespace
	}
	for _, u := range in.Unreadable {
		return u.Object.Namespace
	}
	return "default"
}

// An owned host is owned in capital letters, with a port and with final dots, and nothing else is.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"llm.example.com", "LLM.Example.com:443", "demo", "demo.default.svc.", "[::1]:80", "llm.example.com.evil.org", ":", "", "a:b:c", "demo..:80", "[", "]", "[2001:db8::1]", "x.wild.example.com"} {
		f.Add(seed)
	}
	var in Objects
	for i, host := range []string{"llm.example.com", "demo", "*.wild.example.com", "2001:db8::1"} {
		doc := fmt.Sprintf("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: p%d}\nspec: {host: %q}", i, host)
		if _, err := in.Decode([]byte(doc), "default"); err != nil {
			f.Fatal(err)
		}
	}
	table, _ := Compile(in, &Workload{Namespace: "default"})
	owned := map[string]bool{
		"llm.example.com": true, "demo": true, "demo.default": true, "demo.default.svc": true, "demo.default.svc.cluster.local": true, "[2001:db8::1]": true,
	}
	f.Fuzz(func(t *testing.T, authority string) {
		name := authority
		if i := strings.LastIndex(name, ":"); i >= 0 && !strings.Contains(name[i:], "]") {
			name = name[:i]
		}
		name = strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				return r - 'A' + 'a'
			}
			return r
		}, strings.TrimRight(name, "."))
		want := owned[name] || strings.HasSuffix(name, ".wild.example.com")
		host := table.Host([]byte(authority))
		if (host != nil) != want {
			t.Errorf("%q owned: %t, want %t", authority, host != nil, want)
		}
		if want && !strings.HasSuffix(authority, ":") && table.Host([]byte(name+":8080")) != host {
			t.Errorf("%q with a port is another host", name)
		}
	})
}
