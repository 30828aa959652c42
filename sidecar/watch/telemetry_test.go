package watch

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
	"remora.dev/remora/sidecar/telemetry"
)

func (f *follower) awaitLevel(want telemetry.Level) *snapshot.Snapshot {
	f.t.Helper()
	return f.await("access log "+string(want), func(s *snapshot.Snapshot) bool { return s.Ready && s.Telemetry.AccessLog.Level == want })
}

func telemetryEntry(t *testing.T, text string) string {
	t.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return keysSecret("_telemetry.json: " + string(quoted))
}

func TestTelemetryFollowsTheSecretOfKeysAndOutlivesIt(t *testing.T) {
	n := newNamespace(t)
	n.apply(provider("a", "a.example", "one"))
	a := n.api()
	a.LastGood = filepath.Join(t.TempDir(), "kept", "last.json")
	w := watch(t, a)
	if s := w.awaitReady(); s.Telemetry.AccessLog.Level != telemetry.All {
		t.Errorf("at first it is %+v", s.Telemetry)
	}
	n.apply(telemetryEntry(t, `{"accessLog":{"level":"errors","sample":1}}`))
	before := w.awaitLevel(telemetry.Errors)
	n.apply(telemetryEntry(t, `{"accessLog":{"level":"off","sample":1},"traces":{"sample":1,"headers":{"Authorization":"hidden"}}}`))
	if after := w.awaitLevel(telemetry.Off); after.Table.Generation() != before.Table.Generation() {
		t.Errorf("another table:\n%s", show(after))
	}
	// What cannot be read changes nothing, and is told.
	n.apply(telemetryEntry(t, `{"accessLog":{"level":"hidden"}}`))
	s := w.await("a problem", func(s *snapshot.Snapshot) bool { return len(s.Problems) > 0 })
	if p := w.problem(s, routing.SecretInvalid); p.Field != "data[_telemetry.json]" || s.Telemetry.AccessLog.Level != telemetry.Off {
		t.Errorf("%v, %+v", p, s.Telemetry)
	}
	w.awaitLog("configuration has a problem")
	n.apply(telemetryEntry(t, `{"accessLog":{"level":"errors","sample":0.5}}`))
	s = w.awaitLevel(telemetry.Errors)
	if len(s.Problems) > 0 {
		t.Errorf("still a problem:\n%s", show(s))
	}
	// A Secret that is gone is about to be made anew.
	n.kubectl("delete", "secret", "remora-sidecar-keys", "-n", n.name)
	n.apply(provider("b", "b.example", "two"))
	if s = w.awaitText("b.example"); s.Telemetry.AccessLog.Sample != 0.5 {
		t.Errorf("without the Secret it is %+v", s.Telemetry)
	}
	if strings.Contains(w.logged(), "Authorization") {
		t.Errorf("a header is in the log:\n%s", w.logged())
	}
	w.stop()

	again := &API{Config: a.Config, Namespace: n.name, KeysSecret: a.KeysSecret, LastGood: a.LastGood}
	gate := newGate(t, again.Config)
	gate.closed.Lock()
	defer gate.closed.Unlock()
	w = watch(t, again)
	if s := w.awaitReady(); s.Telemetry.AccessLog.Sample != 0.5 {
		t.Errorf("of the last good configuration it is %+v", s.Telemetry)
	}
}

const telemetryFile = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: remora-telemetry, namespace: remora-system}\ndata:\n  telemetry.yaml: |\n    "

func TestTelemetryFollowsAConfigMapAmongTheFiles(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"), "t.yaml", telemetryFile+"accessLog: {level: errors}\n")
	f.follow(f.dir)
	s := f.awaitLevel(telemetry.Errors)
	if len(s.Problems) > 0 {
		t.Errorf("problems where there are none:\n%s", show(s))
	}
	f.write("t.yaml", telemetryFile+"accessLog: {level: loud, sample: 9}\n")
	s = f.await("problems", func(s *snapshot.Snapshot) bool { return len(s.Problems) == 2 })
	f.has(s, "ConfigMap default/remora-telemetry data[telemetry.yaml].accessLog.level: ", "data[telemetry.yaml].accessLog.sample: ", "the settings of telemetry from before stay in use")
	if s.Telemetry.AccessLog.Level != telemetry.Errors {
		t.Errorf("it is %+v", s.Telemetry)
	}
	f.write("t.yaml", telemetryFile+"accessLog: {level: off}\n"+"---\napiVersion: v1\nkind: Secret\nmetadata: {name: remora-telemetry}\nstringData: {Authorization: Bearer x, Host: hidden}\n")
	s = f.awaitLevel(telemetry.Off)
	if s.Telemetry.Traces.Headers["Authorization"] != "Bearer x" || len(s.Telemetry.Traces.Headers) != 1 {
		t.Errorf("headers %v", s.Telemetry.Traces.Headers)
	}
	f.has(s, "warning Secret default/remora-telemetry data[Host]: ")
	f.hasNot(s, "hidden")
	f.must(os.Remove(f.path("t.yaml")))
	f.awaitLevel(telemetry.All)
}

func TestACheckJudgesTheSettingsOfTelemetry(t *testing.T) {
	f := newFollower(t, "a.yaml", provider("a", "a.example", "one"), "t.yaml", telemetryFile+"prices: {currency: dollar, model: []}\n")
	r, err := Read(f.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 2 || r.Objects != 2 || r.Ignored != 0 {
		t.Fatalf("%+v", r)
	}
	for _, found := range r.Findings {
		if found.Severity != routing.Invalid || found.File != f.path("t.yaml") || found.Line != 1 {
			t.Errorf("%+v", found)
		}
	}
}
