package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"remora.dev/remora/sidecar/launch"
	"remora.dev/remora/sidecar/metrics"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/sidecar/snapshot"
)

// shown gives a metric as Prometheus reads it.
func shown(t *testing.T, m *metrics.Set, name string) string {
	t.Helper()
	var b strings.Builder
	m.Write(&b)
	for line := range strings.Lines(b.String()) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("there is no %s in\n%s", name, b.String())
	return ""
}

func TestTheLifeOfTheTokenInTheFileIsShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	m := metrics.New()
	showToken(m, file)
	f := func(content, issued, expires string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"remora_token_issued_timestamp_seconds": issued, "remora_token_expiry_timestamp_seconds": expires} {
			if got := shown(t, m, name); got != want {
				t.Errorf("%.100q: %s is %s, want %s", content, name, got, want)
			}
		}
	}
	jwt := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	if got := shown(t, m, "remora_token_expiry_timestamp_seconds"); got != "0" {
		t.Errorf("without a file: %s", got)
	}
	f(jwt(`{"iat":1800000000,"exp":1900000000}`), "1800000000", "1900000000")
	f(jwt(`{"iat":1800086400,"exp":1900086400}`)+"\n", "1800086400", "1900086400") // the file has changed meanwhile
	f(jwt(`{"sub":"somebody"}`), "0", "0")
	f(jwt(`{"iat":1800000000,"exp":"soon"}`), "0", "0")
	f(jwt(`[`), "0", "0")
	f("an opaque token", "0", "0")
	f("", "0", "0")
	f(jwt(fmt.Sprintf(`{"exp":1900000000,"more":%q}`, strings.Repeat("x", maxToken))), "0", "0")
}

func TestWhatKeepsTheConfigurationFromBeingTheNewestIsShown(t *testing.T) {
	store, m := snapshot.NewStore(), metrics.New()
	showConfiguration(m, store)
	f := func(unreachable bool, unread, problems string) {
		t.Helper()
		if got := shown(t, m, "remora_api_server_unreachable_seconds"); (got != "0") != unreachable {
			t.Errorf("unreachable for %s s", got)
		}
		if got := shown(t, m, "remora_configuration_unread"); got != unread {
			t.Errorf("unread: %s, want %s", got, unread)
		}
		if got := shown(t, m, "remora_configuration_problems"); got != problems {
			t.Errorf("problems: %s, want %s", got, problems)
		}
	}
	f(false, "0", "0")
	next := *store.Load()
	next.Outage = &snapshot.Outage{Since: time.Now().Add(-time.Hour)}
	next.Problems = []routing.Problem{
		{Severity: routing.Invalid, Code: routing.ConfigurationUnread},
		{Severity: routing.Invalid, Code: routing.InvalidValue},
		{Severity: routing.Warning, Code: routing.InvalidValue},
		{Severity: routing.Unresolved, Code: routing.SecretNotFound},
	}
	store.Publish(&next)
	f(true, "1", "1")
	store.Publish(snapshot.NewStore().Load())
	f(false, "0", "0")
}

func TestTheConfigurationThatRunsIsNamedAndAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, m := snapshot.NewStore(), metrics.New()
		showConfiguration(m, store)
		f := func(ready, age string) {
			t.Helper()
			if got := shown(t, m, "remora_configuration_ready"); got != ready {
				t.Errorf("ready: %s, want %s", got, ready)
			}
			if got := shown(t, m, "remora_configuration_age_seconds"); got != age {
				t.Errorf("age: %s, want %s", got, age)
			}
			shown(t, m, fmt.Sprintf(`remora_configuration_info{generation="%s"}`, store.Load().Table.Generation()))
		}
		f("0", "0")
		<-time.After(time.Minute)
		f("0", "60")
		var in routing.Objects
		if _, err := in.Decode([]byte(valid), "default"); err != nil {
			t.Fatal(err)
		}
		table, _ := routing.Compile(in, nil)
		store.Publish(&snapshot.Snapshot{Table: table, Ready: true})
		f("1", "0")
		<-time.After(time.Minute)
		store.Publish(&snapshot.Snapshot{Table: table, Ready: true, Outage: &snapshot.Outage{Since: time.Now()}}) // the same
		f("1", "60")
	})
}

func TestWhoseCallsTheseAreIsShownWhereItIsKnown(t *testing.T) {
	m := metrics.New()
	showIdentity(m, snapshot.NewStore(), launch.Identity{Workload: "Deployment/sleep", ServiceAccount: "sleeper"})
	shown(t, m, `remora_workload_info{workload="Deployment/sleep",service_account="sleeper"}`)
	m = metrics.New()
	showIdentity(m, snapshot.NewStore(), launch.Identity{})
	var b strings.Builder
	if m.Write(&b); strings.Contains(b.String(), "remora_workload_info") {
		t.Error("a workload is shown that nobody named")
	}
}
