package plan_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/redirect/plan"
)

var update = flag.Bool("update", false, "write testdata/*.out.txt anew")

// Each testdata/NAME.in.txt says in its first lines what is wished, as "# redirect: FLAGS", "# family: IPv6",
// "# answer: DROP" and "# API server: ADDRESS", and has below what iptables-save shows. NAME.out.txt is the script.
func TestAScriptIsWhatItsGoldenFileSays(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.txt")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(input, ".in.txt")
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			wish, family := read(t, string(text))
			got := wish.Script(family, string(text))
			if *update {
				if err := os.WriteFile(name+".out.txt", []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name + ".out.txt")
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			uncommented(t, got)
		})
	}
}

// uncommented complains of a rule or chain without a comment before it.
func uncommented(t *testing.T, script string) {
	t.Helper()
	before := ""
	for line := range strings.Lines(script) {
		if strings.ContainsAny(line[:1], ":-") && !strings.HasPrefix(before, "# ") {
			t.Errorf("no comment says why: %s", line)
		}
		before = line
	}
}

func read(t *testing.T, text string) (plan.Wish, plan.Family) {
	t.Helper()
	var wish plan.Wish
	family := plan.IPv4
	for line := range strings.Lines(text) {
		words, _ := strings.CutPrefix(strings.TrimSpace(line), "# ")
		what, value, _ := strings.Cut(words, ": ")
		var err error
		switch what {
		case "redirect", "redirect:":
			wish.Args, err = plan.Parse(strings.Fields(value))
		case "family":
			family = plan.IPv6
		case "answer":
			wish.Answer = plan.Drop
		case "API server":
			wish.APIServer, err = netip.ParseAddrPort(value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return wish, family
}

func TestTheBackEndWithOurRulesWeighsMoreThanOneWithThoseOfOthers(t *testing.T) {
	f := func(saved string, want int) {
		t.Helper()
		if got := plan.Weight(saved); got != want {
			t.Errorf("weight %d, want %d, of:\n%s", got, want, saved)
		}
	}
	f("", 0)
	f("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n", 0)
	f("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n", 1)
	f("*nat\n:REMORA_OUTPUT - [0:0]\n-A OUTPUT -j X\nCOMMIT\n", 2)
}

func TestRulesThatAreNotAsWrittenAreNoticed(t *testing.T) {
	args, err := plan.Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	wish := plan.Wish{Args: args}
	const (
		guards = "-A REMORA_OUTPUT -m owner --uid-owner 14001 -j RETURN\n-A REMORA_OUTPUT -m owner --gid-owner 14001 -j RETURN\n" +
			"-A REMORA_OUTPUT -o lo -j RETURN\n"
		ours   = guards + "-A REMORA_OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 14001\n"
		jump   = "-A OUTPUT -p tcp -j REMORA_OUTPUT\n"
		others = "-A OUTPUT -p tcp -j ISTIO_OUTPUT\n"
		reject = "-A REMORA_OUTPUT -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -j REJECT --reject-with tcp-reset\n"
		filter = "*filter\n" + jump + guards + reject + "COMMIT\n"
		nat    = "*nat\n" + jump + ours + "COMMIT\n"
	)
	if err := wish.Verify(plan.IPv4, "*nat\n"+jump+others+ours+"COMMIT\n"+filter); err != nil {
		t.Errorf("as written: %v", err)
	}
	f := func(saved, want string) {
		t.Helper()
		if err := wish.Verify(plan.IPv4, saved); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q, of:\n%s", err, want, saved)
		}
	}
	f(filter+"*nat\n"+ours+"COMMIT\n", "table nat: the first rule of OUTPUT")
	f(filter+"*nat\n"+others+jump+ours+"COMMIT\n", "ISTIO_OUTPUT")
	f(filter+"*nat\n"+jump+jump+ours+"COMMIT\n", "2 rules lead")
	f(filter+"*nat\n"+jump+others+"COMMIT\n", "has 0 rules, not the 4")
	f(filter+"*nat\n"+jump+strings.Replace(ours, "--uid-owner 14001", "--uid-owner 0", 1)+"COMMIT\n", "rule 1 of REMORA_OUTPUT")
	f(filter+"*nat\n"+jump+strings.Replace(ours, "--gid-owner 14001 -j RETURN", "--gid-owner 14001 -j DROP", 1)+"COMMIT\n", "rule 2 of REMORA_OUTPUT")
	f(filter+strings.Replace(nat, "80", "8080", 1), "rule 4 of REMORA_OUTPUT")
	f(filter, "table nat: the first rule of OUTPUT")
	f(nat, "table filter: the first rule of OUTPUT")
	f(strings.Replace(filter, jump, others+jump, 1)+nat, "ISTIO_OUTPUT")
	f(strings.Replace(filter, reject, "", 1)+nat, "table filter: REMORA_OUTPUT has 3 rules, not the 4")
	f(strings.Replace(filter, "-j REJECT --reject-with tcp-reset", "-j ACCEPT", 1)+nat, `it should say "--dport 80 " and "-j REJECT"`)
	wish.Answer = plan.Drop
	f(filter+nat, `"-j DROP"`)
}

func TestWhatAScriptDidBeforeItFailedIsTakenBackUnlessThereWereRulesBefore(t *testing.T) {
	const (
		empty = "*filter\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j OTHERS\nCOMMIT\n*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
		half  = "*filter\n:OUTPUT ACCEPT [0:0]\n:REMORA_OUTPUT - [0:0]\n-A OUTPUT -p tcp -j REMORA_OUTPUT\n-A OUTPUT -j OTHERS\nCOMMIT\n" +
			"*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
	)
	const want = "*filter\n:REMORA_OUTPUT - [0:0]\n-D OUTPUT -p tcp -j REMORA_OUTPUT\n-X REMORA_OUTPUT\nCOMMIT\n"
	if got := plan.Withdrawal(empty, half); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := plan.Withdrawal(empty, empty) + plan.Withdrawal(half, half); got != "" {
		t.Errorf("with nothing to take back, or an earlier run's rules, there is\n%s", got)
	}
}

func TestTheRulesAreTriedWithAnAddressThatIsNotExcluded(t *testing.T) {
	f := func(family plan.Family, flags, want string) {
		t.Helper()
		args, err := plan.Parse(strings.Fields(flags))
		if err != nil {
			t.Fatal(err)
		}
		got, ok := plan.Wish{Args: args}.Target(family)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s, %s: %s, want %s", family, flags, got, want)
		}
	}
	f(plan.IPv4, "", "192.0.2.1")
	f(plan.IPv4, "--exclude 192.0.2.0/24,2001:db8::/32", "198.51.100.1")
	f(plan.IPv4, "--exclude 0.0.0.0/0", "")
	f(plan.IPv6, "", "2001:db8::1")
	f(plan.IPv6, "--exclude 192.0.2.0/24,2001:db8::/32", "3fff::1")
	f(plan.IPv6, "--exclude ::/0", "")
}
