//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIPv6ThatCannotBeRedirectedStopsOnlyPodsWithAnAddressOfIt(t *testing.T) {
	f := func(name string, code int, want string, family ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod, _ := newPod(t, family...)
			folder := t.TempDir()
			for _, program := range []string{"ip6tables-nft-restore", "ip6tables-legacy-restore"} {
				write(t, filepath.Join(folder, program), "#!/bin/sh\necho refused by a test >&2; exit 4\n")
			}
			said, got := pod.redirect(t, both, "", "PATH="+folder+":"+os.Getenv("PATH"))
			for _, w := range []string{want, "could write the IPv6 rules", "refused by a test"} {
				if got != code || !strings.Contains(said, w) {
					t.Errorf("it ended with %d and does not say %q:\n%s", got, w, said)
				}
			}
		})
	}
	f("no address", exitOK, "IPv6 not at all (see above; this pod has no address of it")
	f("an address", exitFailed, "redirect: no back end of iptables could write the IPv6 rules", withIPv6)
}

func TestRulesThatCannotBeWrittenAreExplained(t *testing.T) {
	f := func(name, capabilities, path string, want ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod, _ := newPod(t)
			out, code := pod.redirect(t, capabilities, "", "PATH="+path)
			if code != exitFailed {
				t.Errorf("it ended with %d", code)
			}
			for _, w := range want {
				if !strings.Contains(out, w) {
					t.Errorf("it does not say %q:\n%s", w, out)
				}
			}
			if rules := pod.sh(t, "iptables-nft-save; iptables-legacy-save"); strings.Contains(rules, "REMORA") {
				t.Errorf("something was left behind:\n%s", rules)
			}
		})
	}
	f("no NET_ADMIN", "", os.Getenv("PATH"), "lacks the capability NET_ADMIN", "Remedy: allow NET_ADMIN", "remora.dev/inject=disabled")
	f("no iptables", both, t.TempDir(), `exec: "iptables-nft-save": executable file not found`, `exec: "iptables-legacy-save"`, "remora.dev/redirect")

	// A kernel with all modules can only be taken for one without them by way of the programs.
	broken := func(back, refuses string) string {
		folder := t.TempDir()
		for _, program := range []string{"iptables-nft", "iptables-legacy"} {
			real := "exec /usr/sbin/" + program
			script := "#!/bin/sh\n" + real + "-save \"$@\"\n"
			write(t, filepath.Join(folder, program+"-save"), script)
			// As a kernel does it: the tables before the one with the rule are there.
			script = "#!/bin/sh\nscript=$(cat)\ncase $script in *'" + refuses + "'*)\n" +
				"echo \"$script\" | sed '/" + refuses + "/,$d' | tac | sed '0,/^COMMIT/{/^COMMIT/!d}' | tac | " + real + "-restore \"$@\"\n" +
				"echo refused by a test >&2; exit 4;; esac\n" +
				"echo \"$script\" | " + real + "-restore \"$@\"\n"
			if program != "iptables-"+back {
				script = "#!/bin/sh\necho there is none >&2; exit 3\n"
			}
			write(t, filepath.Join(folder, program+"-restore"), script)
		}
		return folder + ":" + os.Getenv("PATH")
	}
	f("no xt_owner", both, broken("nft", "owner"), "nft: iptables-nft-restore: exit status 4: refused by a test",
		"modprobe xt_owner nft_compat", "legacy: iptables-legacy-restore: exit status 3: there is none", "modprobe iptable_filter")
	f("no xt_REDIRECT", both, broken("legacy", "REDIRECT"), "modprobe xt_REDIRECT\n", "modprobe nf_tables\n")
	f("no NET_RAW", onlyNFT, broken("nft", "REDIRECT"), "modprobe xt_REDIRECT nft_compat", "legacy: ", "lacks. Remedy", "add NET_RAW")
}

func write(t *testing.T, file, script string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestRulesThatDoNotWorkAreNoticed(t *testing.T) {
	f := func(name, before, sidecar, want string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod, _ := newPod(t)
			pod.sh(t, before)
			if sidecar != "" {
				pod.serve(t, "the sidecar", sidecar)
			}
			out, code := pod.redirect(t, onlyNFT, "")
			if code != exitFailed || !strings.Contains(out, "are written (iptables-nft), but do not work") || !strings.Contains(out, want) {
				t.Errorf("it ended with %d and does not say %q:\n%s", code, want, out)
			}
		})
	}
	const (
		refused  = "iptables-nft -A OUTPUT -p tcp --dport 14001 -j REJECT --reject-with tcp-reset"
		bypassed = "iptables-nft -t raw -A OUTPUT -p tcp -j CT --notrack"
	)
	f("refused", refused, "", "connection refused")
	f("bypassed", bypassed, "", "keeps the table nat from seeing them")
	f("bypassed, beside the sidecar", bypassed, "127.0.0.1:14001", "keeps the table nat from seeing them")
}

func TestRulesThatOthersOvertookAreNoticed(t *testing.T) {
	t.Parallel()
	pod, _ := newPod(t)
	pod.works(t, onlyNFT, "")
	pod.sh(t, "iptables-legacy -t nat -A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 9999") // the back end that came last is asked first
	pod.serve(t, "another mesh", "127.0.0.1:9999")
	if out, code := pod.redirect(t, onlyNFT, ""); code != exitFailed || !strings.Contains(out, "it reached something else") {
		t.Errorf("it ended with %d and says\n%s", code, out)
	}
}
