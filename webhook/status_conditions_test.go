package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/sidecar/routing"
)

func TestTheWorstProblemGivesTheReasonAndAllAreInTheMessage(t *testing.T) {
	f := func(problems []routing.Problem, want string) {
		t.Helper()
		got := ""
		for _, c := range conditionsFor(problems, 7) {
			got += fmt.Sprintf("%s=%s %s %d: %s\n", c.Type, c.Status, c.Reason, c.ObservedGeneration, c.Message)
		}
		if got != want {
			t.Errorf("got:\n%swant:\n%s", got, want)
		}
	}
	bad := routing.Problem{Field: "spec.host", Severity: routing.Invalid, Code: routing.HostConflict, Message: "is taken"}
	worse := routing.Problem{Field: "spec.path", Severity: routing.Invalid, Code: routing.InvalidValue, Message: "is bad"}
	missing := routing.Problem{Field: "spec.ref", Severity: routing.Unresolved, Code: routing.SecretNotFound, Message: "is missing"}
	odd := routing.Problem{Severity: routing.Warning, Code: routing.InlineKey, Message: "hm"}
	f(nil, `Accepted=True Accepted 7: the object is valid and in use
ResolvedRefs=True ResolvedRefs 7: everything that the object names exists
`)
	f([]routing.Problem{bad, worse, missing, odd}, `Accepted=False HostConflict 7: spec.host: is taken (HostConflict); spec.path: is bad (InvalidValue); warning: hm (InlineKey)
ResolvedRefs=False SecretNotFound 7: spec.ref: is missing (SecretNotFound)
`)
	f([]routing.Problem{odd}, `Accepted=True Accepted 7: the object is valid and in use; warning: hm (InlineKey)
ResolvedRefs=True ResolvedRefs 7: everything that the object names exists
`)
	f([]routing.Problem{bad}, `Accepted=False HostConflict 7: spec.host: is taken (HostConflict)
ResolvedRefs=True ResolvedRefs 7: nothing is known to be missing
`)
}

func TestAMessageEndsAtASentenceAndCountsTheRest(t *testing.T) {
	var problems []routing.Problem
	for i := range 5000 {
		problems = append(problems, routing.Problem{Field: fmt.Sprintf("spec.rules[%d]", i), Severity: routing.Invalid, Code: routing.InvalidValue, Message: "is “wrong”"})
	}
	message := conditionsFor(problems, 1)[0].Message
	if len(message) > maxMessage || len(message) < maxMessage-100 {
		t.Errorf("the message has %d bytes", len(message))
	}
	shown := strings.Count(message, "(InvalidValue)")
	if want := fmt.Sprintf("(InvalidValue); and %d more", 5000-shown); !strings.HasSuffix(message, want) {
		t.Errorf("the message ends with %q, not %q", message[len(message)-60:], want)
	}
	for limit := range 10 {
		if s := clipped("“““““", 3+limit); len(s) > 3+limit || !utf8.ValidString(s) || !strings.HasSuffix(s, "…") {
			t.Errorf("within %d bytes it is %q", 3+limit, s)
		}
	}
	one := joined([]string{strings.Repeat("ä", maxMessage)}, maxMessage)
	if len(one) > maxMessage || !utf8.ValidString(one) || !strings.HasSuffix(one, "ä…") {
		t.Errorf("one long sentence became %d bytes that end with %q", len(one), one[len(one)-10:])
	}
}

func TestATransitionHasTheTimeOfItsFlip(t *testing.T) {
	early, late := metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
	there := conditionsFor(nil, 1)
	if !settle(there, nil, early) || settle(conditionsFor(nil, 1), there, late) || !settle(conditionsFor(nil, 2), there, late) {
		t.Error("what is new, or of another generation, is to be written, and what is the same is not")
	}
	next := conditionsFor([]routing.Problem{{Severity: routing.Invalid, Code: routing.InvalidValue}}, 1)
	if !settle(next, there, late) || !next[0].LastTransitionTime.Equal(&late) || !next[1].LastTransitionTime.Equal(&early) {
		t.Errorf("after a flip of Accepted: %+v", next)
	}
}

func TestNothingOfASecretIsKeptButWhetherItCanBeUsed(t *testing.T) {
	k, err := newSecretKnowledge(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := standInPair()
	if err != nil {
		t.Fatal(err)
	}
	got := k.reduce(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{
			"good": []byte("sk-1\n"), "bad": []byte("sk 2"), "empty": nil,
			"tls.crt": []byte(pair["tls.crt"].Reveal()), "tls.key": []byte(pair["tls.key"].Reveal()),
		},
	})
	for name, usable := range map[string]bool{"good": true, "bad": false, "empty": false, "tls.crt": true, "tls.key": true} {
		value, ok := got.Data[name]
		if !ok || value.IsZero() == usable || strings.Contains(value.Reveal(), "sk-1") || strings.Contains(value.Reveal(), "sk 2") || usable && value == pair[name] {
			t.Errorf("of %s is kept: %t, %q", name, ok, value.Reveal())
		}
	}
	if len(got.Data) != 5 || got.Type != "kubernetes.io/tls" {
		t.Errorf("it became %+v", got)
	}
}
