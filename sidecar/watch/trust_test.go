package watch

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/test/cluster/pki"
)

func TestAuthoritiesInTheSecretOfKeysAreTrustedAndKeptWithTheLastGoodConfiguration(t *testing.T) {
	ca, err := pki.NewAuthority("Remora test")
	if err != nil {
		t.Fatal(err)
	}
	entry := func(text string) string {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		return keysSecret("_trusted-ca.crt: " + string(quoted))
	}
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one"))
	a := n.api()
	a.LastGood = filepath.Join(t.TempDir(), "kept", "last.json")
	w := watch(t, a)
	w.hasNot(w.awaitReady(), "trusted-ca")
	n.apply(entry(string(ca.Certificate)))
	s := w.awaitText("trusted-ca: 1 ")
	if len(s.Problems) > 0 {
		t.Errorf("problems where there are none:\n%s", show(s))
	}
	n.apply(entry(string(ca.Certificate) + "-----BEGIN CERTIFICATE-----\nnone\n"))
	s = w.awaitText("certificate 2 is damaged; the others are trusted")
	w.has(s, "trusted-ca: 1 ", "warning Secret "+n.name+"/remora-sidecar-keys data[_trusted-ca.crt]: ", "(SecretInvalid)")
	if p := w.problem(s, routing.SecretInvalid); p.Severity != routing.Warning {
		t.Errorf("it is %s", p.Severity)
	}
	w.awaitLog("configuration has a problem")
	w.stop()

	again := &API{Config: a.Config, Namespace: n.name, KeysSecret: a.KeysSecret, LastGood: a.LastGood}
	gate := newGate(t, again.Config)
	gate.closed.Lock()
	defer gate.closed.Unlock()
	w = watch(t, again)
	if later := w.awaitReady(); later.Table.Generation() != s.Table.Generation() {
		t.Errorf("another table than before:\n%s", show(later))
	}
}

// A prompt must not leave in plain text because somebody has deleted an object, nor because a configuration from disk was old.
func TestAHostThatIsDeletedInKubernetesStaysRefused(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one") + "---\n" + provider("b", "b.example", "two"))
	a := n.api()
	a.LastGood = filepath.Join(t.TempDir(), "kept", "last.json")
	w := watch(t, a)
	w.awaitReady()
	n.kubectl("delete", "llmprovider", "a", "-n", n.name)
	w.has(w.awaitText("host a.example\n  refused HostRetired"), "https://b.example")
	n.apply(provider("a", "a.example", "three"))
	w.hasNot(w.awaitText("model=three"), "HostRetired")
	w.stop()

	again := &API{Config: a.Config, Namespace: n.name, KeysSecret: a.KeysSecret, LastGood: a.LastGood}
	gate := newGate(t, again.Config)
	gate.closed.Lock()
	w = watch(t, again)
	w.has(w.awaitReady(), "https://a.example", "https://b.example")
	n.kubectl("delete", "llmproviders", "--all", "-n", n.name)
	gate.closed.Unlock()
	s := w.await("what the API server says", func(s *snapshot.Snapshot) bool { return s.Outage == nil })
	w.has(s, "host a.example\n  refused HostRetired", "host b.example\n  refused HostRetired")
	w.stop()

	// Who starts now has served nothing.
	later := n.api()
	w = watch(t, later)
	if s := w.awaitReady(); s.Table.Host([]byte("a.example")) != nil || s.Table.Host([]byte("b.example")) != nil {
		t.Errorf("a new sidecar owns\n%s", show(s))
	}
}
