package integration

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

// From a user's own Secret to what the provider gets: by the controller, to three sidecars.
func TestAKeyIsRotatedAndRevokedInAllSidecars(t *testing.T) {
	t.Parallel()
	k := newKeyedTenant(t, installed)
	k.apply(t, providerWithKey(t, k.provider, "account")+keySecret("account", "sk-0"))
	var all []*sidecar
	for range 3 {
		s := k.follower(t)
		s.start(t)
		all = append(all, s)
	}
	k.awaitKey(t, "sk-0", all...)

	var apps []*calls
	for _, s := range all {
		apps = append(apps, s.call(t, 2, dashscope))
	}
	const rotations = 100
	for i := 1; i <= rotations; i++ {
		key := fmt.Sprintf("sk-%d", i)
		k.change(t, "account", key)
		await(t, "a call with "+key, func() (string, bool) { return "", k.times(key) > 0 })
	}
	total := 0
	for _, a := range apps {
		a.more(t, 10)
		a.noneFailed(t)
		total += a.total
	}
	last := fmt.Sprintf("sk-%d", rotations)
	k.awaitKey(t, last, all...)
	t.Logf("%d calls during %d rotations", total, rotations)

	// What is under way when the key goes, ends as it would have.
	running := all[0].stream(t, dashscope, "chunks=100 chunk-delay=50ms")
	apps = nil
	for _, s := range all {
		apps = append(apps, s.call(t, 2, dashscope))
	}
	k.kubectl(t, "delete", "secret", "account")
	k.awaitRefused(t, all...)
	for _, a := range apps {
		a.more(t, 4) // those that were under way have ended
	}
	uses := k.times(last)
	for _, a := range apps {
		a.more(t, 50)
		a.stop()
		for _, failure := range a.failed {
			if !strings.HasPrefix(failure, "503 SecretNotFound") && !strings.HasPrefix(failure, "503 KeyRevoked") {
				t.Errorf("a call whose key was deleted: %s", failure)
			}
		}
	}
	if event, n, err := running.rest(); event != "[DONE]" || err != nil {
		t.Errorf("a stream whose key was deleted ends after %d events with %q, %v", n, event, err)
	}
	if now := k.times(last); now > uses+1 { // the stream is told when it ends
		t.Errorf("a deleted key was used %d times after all sidecars had refused a call", now-uses)
	}

	k.apply(t, keySecret("account", "sk-back"))
	k.awaitKey(t, "sk-back", all...)
	for _, s := range all {
		if text := s.config(t) + s.logged(t); strings.Contains(text, "sk-") {
			t.Error("a key is shown")
		}
	}
}

// The token is bound to the Secret that it is in: who deletes that has ended it. The kubelet brings the next one later.
func TestASidecarOutlivesItsToken(t *testing.T) {
	t.Parallel()
	k := newKeyedTenant(t, installed)
	k.apply(t, providerWithKey(t, k.provider, "account")+keySecret("account", "sk-old"))
	s := k.follower(t)
	g := k.throughAGate(t, s, 0)
	s.start(t)
	k.awaitKey(t, "sk-old", s)
	apps := s.call(t, 1, dashscope)

	before := k.issued(t, "")
	k.kubectl(t, "delete", "secret", v1beta1.AccessSecret)
	next := k.issued(t, before)
	awaitFor(t, patient, "the token to be refused", func() (string, bool) { // the API server remembers for a while whom it has let in
		g.cut() // watches end by themselves after some minutes
		text := s.config(t)
		return text, strings.Contains(text, "does not accept the credentials")
	})
	g.cut() // those that came in just before
	awaitFor(t, patient, "all to be refused, and the metrics to tell it", func() (string, bool) {
		text, _, err := get(t.Context(), "http://"+s.Health+"/metrics")
		return text, err == nil && strings.Contains(text, "\nremora_configuration_unread 3\n")
	})
	k.change(t, "account", "sk-new")
	if a := s.mustAsk(t, dashscope); a.status != 200 || k.times("sk-new") > 0 {
		t.Errorf("without a token: %+v", a)
	}
	text, status, err := get(t.Context(), "http://"+s.Health+"/readyz")
	if err != nil || status != 200 {
		t.Errorf("it is not ready any more: %d %s %v", status, text, err)
	}

	k.mount(t, next)
	awaitFor(t, patient, "the key that was changed meanwhile", func() (string, bool) {
		return s.mustAsk(t, dashscope).code, k.times("sk-new") > 0
	})
	apps.noneFailed(t)
	s.awaitConfig(t, "secret:account/apiKey")
	if log := s.logged(t); !strings.Contains(log, "renew the token") || strings.Contains(log, next) {
		t.Errorf("it was not said, or with the token:\n%s", strings.ReplaceAll(log, next, "TOKEN"))
	}
}

// With the controller away, nobody carries keys. Who has to revoke one can.
func (f *faults) theControllerIsAwayAndAKeyIsStolen(t *testing.T) {
	k := newKeyedTenant(t, f.Installation)
	k.apply(t, providerWithKey(t, k.provider, "account")+keySecret("account", "sk-stolen"))
	s := k.follower(t)
	s.start(t)
	k.awaitKey(t, "sk-stolen", s)

	f.Controller.Kill()
	defer kubelet(t, f.Controller)
	late := newTenant(t, f.Installation)
	late.kubectl(t, "label", "namespace", late.namespace, v1beta1.InjectLabel+"="+v1beta1.InjectEnabled)
	k.change(t, "account", "sk-new")
	another := k.follower(t) // a pod that starts meanwhile
	another.start(t)
	k.awaitKey(t, "sk-stolen", s, another)
	k.kubectl(t, "delete", "secret", v1beta1.KeysSecret)
	k.awaitRefused(t, s, another)
	uses := k.times("sk-stolen")
	for _, s := range []*sidecar{s, another} {
		if got := s.shares(t, 10, dashscope); got["503 SecretNotFound"]+got["503 KeyRevoked"] != 10 {
			t.Errorf("calls whose key was taken away: %v", got)
		}
	}
	if k.times("sk-stolen") > uses || k.times("sk-new") > 0 {
		t.Error("a key was used that nobody has given")
	}
	if _, err := k.clients.CoreV1().Secrets(late.namespace).Get(t.Context(), v1beta1.AccessSecret, metav1.GetOptions{}); err == nil {
		t.Error("a namespace that was labelled meanwhile has an identity: the controller is not away")
	}

	kubelet(t, f.Controller)
	k.awaitKey(t, "sk-new", s, another)
	late.awaitOutput(t, v1beta1.AccessSecret, "get", "secrets")
}

func TestAnAnswerEndsWithItsKeyWhereTheProviderSaysSo(t *testing.T) {
	t.Parallel()
	k := newKeyedTenant(t, installed)
	k.apply(t, strings.Replace(providerWithKey(t, k.provider, "account"), "spec:\n", "spec:\n  revocationGracePeriod: 0s\n", 1)+keySecret("account", "sk-1"))
	s := k.follower(t)
	s.start(t)
	k.awaitKey(t, "sk-1", s)
	running := s.stream(t, dashscope, "chunks=1000 chunk-delay=1s")
	k.kubectl(t, "delete", "secret", "account")
	if event, n, _ := running.rest(); !strings.Contains(event, `"KeyRevoked"`) {
		t.Errorf("after %d events it ends with %q", n, event)
	}
	k.awaitRefused(t, s)
	if k.provider.Aborted() == 0 {
		t.Error("the provider goes on answering")
	}
}

func TestOneOfTwoKeysGoesAndTheOtherCarriesOn(t *testing.T) {
	t.Parallel()
	k := newKeyedTenant(t, installed)
	k.apply(t, strings.Replace(providerWithKey(t, k.provider, "one"), "apiKeyRef: {name: one}", "apiKeyRefs: [{name: one}, {name: two}]", 1)+
		keySecret("one", "sk-one")+keySecret("two", "sk-two"))
	s := k.follower(t)
	s.start(t)
	k.awaitKey(t, "sk-one", s)
	k.awaitKey(t, "sk-two", s)
	apps := s.call(t, 2, dashscope)
	k.kubectl(t, "delete", "secret", "one")
	await(t, "calls without the deleted key", func() (string, bool) {
		uses := k.times("sk-one")
		apps.more(t, 100)
		return "it is used", k.times("sk-one") == uses
	})
	uses := k.times("sk-one")
	apps.more(t, 200)
	apps.noneFailed(t)
	if now := k.times("sk-one"); now > uses {
		t.Errorf("the deleted key was used %d times more", now-uses)
	}
	k.kubectl(t, "delete", "secret", "two")
	k.awaitRefused(t, s)
}
