package routing_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
)

// of compiles providers and routes that are written in a short form: "NAME HOST [plain]", or "route HOST PROVIDERHOST...".
func of(t *testing.T, lines ...string) *routing.Table {
	t.Helper()
	in := routing.Objects{Secrets: []routing.Secret{}}
	for _, line := range lines {
		words := strings.Fields(line)
		doc := fmt.Sprintf("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: %s}\nspec:\n  host: %q\n", words[0], words[1])
		if words[0] == "route" {
			doc = fmt.Sprintf("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: %s}\nspec:\n  host: %s\n  rules:\n  - backendRefs:\n", words[1], words[1])
			for _, host := range words[2:] {
				doc += "    - {providerHost: " + host + "}\n"
			}
		} else if len(words) > 2 {
			doc += "  tls: {mode: DISABLE}\n"
		}
		if _, err := in.Decode([]byte(doc), "team"); err != nil {
			t.Fatal(err)
		}
	}
	table, _ := routing.Compile(in, &routing.Workload{Namespace: "team"})
	return table
}

// fateOf is what becomes of calls to a host: "foreign", "served", or the code of its refusal.
func fateOf(t *routing.Table, host string) string {
	switch h := t.Host([]byte(host)); {
	case h == nil:
		return "foreign"
	case h.Refusal != nil:
		return string(h.Refusal.Code)
	}
	return "served"
}

func wantFates(t *testing.T, table *routing.Table, want map[string]string) {
	t.Helper()
	for host, fate := range want {
		if got := fateOf(table, host); got != fate {
			t.Errorf("%s is %s and not %s", host, got, fate)
		}
	}
}

func TestAHostThatIsNoLongerNamedStaysOwnedWhereItWasServedOverTLS(t *testing.T) {
	before := of(t, "a a.example", "b b.example plain", "c c.example", "route chat c.example b.example", "route quiet b.example", "route lost nowhere.example", "d https://d.example", "stays stays.example")
	after := of(t, "stays stays.example").Retaining(before)
	wantFates(t, after, map[string]string{
		"a.example": "HostRetired", "A.example.:80": "HostRetired", "c.example": "HostRetired", "stays.example": "served",
		"b.example": "foreign", "quiet": "foreign", // nothing of theirs was ever to be encrypted
		"chat": "HostRetired", "chat.team": "HostRetired", "chat.team.svc.cluster.local": "HostRetired", // in part it was
		"lost": "HostRetired", "nowhere.example": "HostRetired", "d.example": "HostRetired", // they would have been, for all that is known
		"never.example": "foreign",
	})
	message := after.Host([]byte("chat.team")).Refusal.Message
	if want := "no LLMProvider or LLMRoute names chat any more: apply one; pods that start from now on may pass calls to it on in plain text"; message != want {
		t.Errorf("it says %q", message)
	}
	var shown bytes.Buffer
	_, _ = after.WriteTo(&shown)
	for _, want := range []string{"host a.example\n  refused HostRetired: no LLM", "host chat chat.team chat.team.svc chat.team.svc.cluster.local\n  refused HostRetired"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("%q is not in\n%s", want, &shown)
		}
	}
}

func TestARetiredHostIsServedAgainOnceItIsNamed(t *testing.T) {
	first := of(t, "a a.example", "b b.example")
	second := of(t, "b b.example").Retaining(first)
	third := of(t, "b b.example", "c c.example").Retaining(second)
	wantFates(t, third, map[string]string{"a.example": "HostRetired", "c.example": "served"})
	fourth := of(t, "a a.example plain", "b b.example").Retaining(third)
	wantFates(t, fourth, map[string]string{"a.example": "served", "c.example": "HostRetired"})
	wantFates(t, of(t, "b b.example").Retaining(fourth), map[string]string{"a.example": "foreign", "c.example": "HostRetired"})
	wantFates(t, first, map[string]string{"a.example": "served"})
	wantFates(t, second, map[string]string{"c.example": "foreign"})
}

func TestAnotherProcessTakesUpWhatIsRetired(t *testing.T) {
	before := of(t, "b b.example").Retaining(of(t, "a a.example", "b b.example", "c c.example"))
	names := before.Retired()
	if want := [][]string{{"a.example"}, {"c.example"}}; !reflect.DeepEqual(names, want) {
		t.Errorf("retired are %v", names)
	}
	after := of(t, "b b.example", "c c.example").Retiring(names)
	wantFates(t, after, map[string]string{"a.example": "HostRetired", "b.example": "served", "c.example": "served", "d.example": "foreign"})
	if again := of(t, "b b.example").Retiring(names); again.Generation() != before.Generation() {
		t.Errorf("the same table has the generations %s and %s", before.Generation(), again.Generation())
	}
	if nothing := of(t, "b b.example"); nothing.Retiring(nothing.Retired()) != nothing {
		t.Error("with nothing retired there is another table")
	}
	all := of(t, "b b.example").Retiring([][]string{{"*"}, {}})
	wantFates(t, all, map[string]string{"b.example": "served", "d.example": "HostRetired"})
	if names := all.Retired(); !reflect.DeepEqual(names, [][]string{{"*"}}) {
		t.Errorf("retired are %v", names)
	}
}

func TestTheGenerationTellsWhatIsRetired(t *testing.T) {
	both, one := of(t, "a a.example", "b b.example"), of(t, "b b.example")
	retained := one.Retaining(both)
	generations := map[string]bool{both.Generation(): true, one.Generation(): true, retained.Generation(): true}
	if len(generations) != 3 {
		t.Errorf("%s, %s without it, %s while it is retired", both.Generation(), one.Generation(), retained.Generation())
	}
	if again := one.Retaining(retained); again.Generation() != retained.Generation() {
		t.Errorf("with nothing new it is %s instead of %s", again.Generation(), retained.Generation())
	}
	if same := of(t, "b b.example").Retaining(retained); same.Generation() != retained.Generation() {
		t.Errorf("compiled anew it is %s instead of %s", same.Generation(), retained.Generation())
	}
	if nothing := one.Retaining(of(t, "b b.example plain")); nothing.Generation() != one.Generation() {
		t.Errorf("with nothing retired it is %s instead of %s", nothing.Generation(), one.Generation())
	}
	if back := both.Retaining(retained); back.Generation() != both.Generation() {
		t.Errorf("named again it is %s instead of %s", back.Generation(), both.Generation())
	}
}

// What is not known may have the host: then nothing is passed on anyway, and for that reason.
func TestRetiredHostsOutliveATimeInWhichNothingIsKnown(t *testing.T) {
	unknown, _ := routing.Compile(routing.Objects{Incomplete: true}, nil)
	during := unknown.Retaining(of(t, "a a.example"))
	if !during.Incomplete() || fateOf(during, "a.example") != "foreign" {
		t.Errorf("incomplete: %v, and the host is %s", during.Incomplete(), fateOf(during, "a.example"))
	}
	wantFates(t, of(t, "b b.example").Retaining(during), map[string]string{"a.example": "HostRetired", "b.example": "served"})
	if empty := of(t); empty.Retaining(unknown) != empty {
		t.Error("of nothing, something is retired")
	}
}

// A pattern in the place of a host serves nothing, but covers what is retired.
func TestAPatternHidesARetiredHostAndIsNotRetiredItself(t *testing.T) {
	during := of(t, "broken *.example").Retaining(of(t, "a a.example"))
	wantFates(t, during, map[string]string{"a.example": "InvalidConfiguration", "x.example": "InvalidConfiguration"})
	wantFates(t, of(t).Retaining(during), map[string]string{"a.example": "HostRetired", "x.example": "foreign"})
}

func TestSoManyRetiredHostsThatTheyCannotBeRememberedRefuseAll(t *testing.T) {
	half := func(name string) *routing.Table {
		var lines []string
		for i := range 6000 {
			lines = append(lines, fmt.Sprintf("%s%d %s%d.example", name, i, name, i))
		}
		return of(t, lines...)
	}
	first := of(t, "stays stays.example").Retaining(half("a"))
	wantFates(t, first, map[string]string{"a0.example": "HostRetired", "stays.example": "served", "never.example": "foreign"})
	table := of(t, "stays stays.example").Retaining(half("b").Retaining(first))
	wantFates(t, table, map[string]string{"a0.example": "HostRetired", "b5999.example": "HostRetired", "never.example": "HostRetired", "stays.example": "served"})
	if message := table.Host([]byte("never.example")).Refusal.Message; !strings.Contains(message, "more than 10000 names") || !strings.Contains(message, "restart the pod") {
		t.Errorf("it says %q", message)
	}
	if table.Generation() == first.Generation() {
		t.Error("the generation does not tell")
	}
	var shown bytes.Buffer
	_, _ = table.WriteTo(&shown)
	if !strings.Contains(shown.String(), "every other host\n  refused HostRetired: more than 10000 names") || strings.Contains(shown.String(), "a0.example") {
		t.Errorf("shown is\n%.2000s", &shown)
	}
	wantFates(t, of(t, "a0 a0.example").Retaining(table), map[string]string{"a0.example": "served", "a1.example": "HostRetired", "never.example": "HostRetired"})
}

// What a plan says of hosts that are no longer named is what running pods do: some refuse their calls, some pass them on.
func TestAPlanTellsWhatRunningPodsDoWithHostsThatAreNoLongerNamed(t *testing.T) {
	d, secrets := dice{rand.New(rand.NewPCG(5, 6))}, []routing.Secret{
		{Namespace: "default", Name: "one", Data: map[string]routing.Key{"apiKey": routing.NewKey("sk-hidden-one")}},
		{Namespace: "default", Name: "two", Data: map[string]routing.Key{"apiKey": routing.NewKey("sk-hidden-two")}},
		clientSecret(t),
	}
	seen := map[string]int{}
	for range 2500 {
		before, after := d.edit()
		said := strings.Join(routing.Plan(before, after), "\n")
		before.Secrets, after.Secrets = secrets, secrets
		var refuses, passes bool
		for _, pod := range planPods {
			was, _ := routing.Compile(before, pod)
			is, _ := routing.Compile(after, pod)
			now := is.Retaining(was)
			for _, host := range planHosts {
				first, then, next := fateOf(was, host), fateOf(is, host), fateOf(now, host)
				refuses = refuses || next == "HostRetired"
				passes = passes || first != "foreign" && next == "foreign"
				if then != "foreign" && next != then || first == "foreign" && next != then {
					t.Errorf("%s was %s, is %s, and with what was %s", host, first, then, next)
				}
			}
		}
		for sentence, is := range map[string]bool{"running pods refuse": refuses, "calls pass on untouched": passes} {
			if is {
				seen[sentence]++
			}
			if strings.Contains(said, sentence) != is {
				t.Fatalf("%q is true: %v, and said is\n%s\n%s", sentence, is, said, describe(before, after))
			}
		}
	}
	if len(seen) != 2 || seen["running pods refuse"] < 50 || seen["calls pass on untouched"] < 5 {
		t.Errorf("the dice are loaded: %v", seen)
	}
}
