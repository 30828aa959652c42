package telemetry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

const good = `
accessLog: {level: errors, sample: 0.5}
traces: {endpoint: "http://otel-collector.observability:4318", sample: 0.1}
prices:
  currency: CNY
  models:
  - {model: qwen-max, provider: apps/qwen, input: 2.4, cached: 0.24, output: 9.6}
  - {model: "gpt-*", input: 1, output: 2}
`

func TestSettingsAreReadAndWrittenAgain(t *testing.T) {
	s, faults := Parse([]byte(good))
	if len(faults) > 0 {
		t.Fatal(faults.ToAggregate())
	}
	s, faults = s.With(map[string]string{v1beta1.CaptureUntilAnnotation: "2026-11-23T12:00:00Z"}, time.Date(2026, 11, 23, 11, 0, 0, 0, time.UTC))
	if len(faults) > 0 {
		t.Fatal(faults.ToAggregate())
	}
	text, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if !back.Equal(&s) {
		t.Errorf("came back as\n%+v\nand was\n%+v", back, s)
	}
	price := back.Prices.Of(routing.Ref{Namespace: "apps", Name: "qwen"}, "qwen-max")
	if price == nil || *price.Cached != 0.24 || back.Prices.index == nil {
		t.Errorf("price %+v", price)
	}
	if back.AccessLog.Level != Errors || back.Capture.Bytes != DefaultCaptureBytes || back.Prices.Currency != "CNY" {
		t.Errorf("%+v", back)
	}
}

func TestNothingWrittenIsTheDefault(t *testing.T) {
	for _, text := range []string{"", "{}", "# nothing\n", "accessLog:\ntraces: {}\nprices: {models: []}\n"} {
		s, faults := Parse([]byte(text))
		if len(faults) > 0 || !s.Equal(Default()) {
			t.Errorf("%q: %+v, %v", text, s, faults)
		}
	}
}

func TestOffNeedsNoQuotes(t *testing.T) {
	s, faults := Parse([]byte("accessLog: {level: off}"))
	if len(faults) > 0 || s.AccessLog.Level != Off {
		t.Errorf("%+v, %v", s.AccessLog, faults)
	}
	if _, faults = Parse([]byte("accessLog: {level: on}")); len(faults) == 0 {
		t.Error("on is no level")
	}
}

func TestAllFaultsAreToldAtOnceWithPathsAndRemedies(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		_, faults := Parse([]byte(text))
		var all strings.Builder
		for _, e := range faults {
			fmt.Fprintln(&all, e)
		}
		if len(faults) != len(want) {
			t.Errorf("%d faults, want %d:\n%s", len(faults), len(want), &all)
		}
		for _, w := range want {
			if !strings.Contains(all.String(), w) {
				t.Errorf("%q is not in:\n%s", w, &all)
			}
		}
	}
	f("accessLog: {level: verbose, sample: 2, colour: red}\ntraces: {endpoint: 'ftp://x', sample: -1, headers: {Authorization: x}}\nprices: {currency: dollar, models: [{model: a}]}\nmetrics: {}\n",
		`accessLog.level: Unsupported value: "verbose": supported values: "all", "errors", "off"`,
		"accessLog.sample: Invalid value: 2: must be a share",
		`accessLog: Unsupported value: "colour"`,
		"traces.endpoint: Invalid value: \"ftp://x\": must be the base URL",
		"traces.sample: Invalid value: -1",
		"traces.headers: Forbidden: headers may be keys of others: put them into Secret remora-telemetry",
		"prices.currency: Invalid value: \"dollar\": must be three capital letters",
		"prices.models[0].input: Required value: what a million tokens cost",
		"prices.models[0].output: Required value",
		`telemetry.yaml: Unsupported value: "metrics"`)
	f("accessLog: {level: all}\naccessLog: {level: off}\n", "telemetry.yaml: Invalid value: \"\": cannot be read as YAML")
	f("- a\n", "telemetry.yaml: Invalid value: \"[a]\": must have the fields accessLog, capture, prices, traces")
	f("capture: {until: 2026-01-01T00:00:00Z}", "capture: Forbidden")
	f("prices: {models: [{model: a, input: 1, output: 1}, {model: a, input: 2, output: 2}]}", "prices.models[1].model: Invalid value: \"a\": has its price at models[0]")
	f("prices: {models: [{model: 4.1, input: '1', output: 1}]}", "models[0].model: Invalid value: \"4.1\": must be text", "models[0].input: Invalid value: \"1\": must be a number")
	f("prices: {models: [{model: a, input: .inf, output: 1}]}", "cannot be read as YAML")
	f("prices: {models: [null, 3]}", "models[0]: Invalid", "models[1]: Invalid")
	f("prices: {models: [{provider: A/b/c, model: a, input: -1, cached: -2, output: 1e10}]}", "models[0].provider", "models[0].input", "models[0].cached", "models[0].output")
	f("traces: {endpoint: 'https://me:secret@collector/'}", "must have no user and password")
	f("traces: {endpoint: 'https://collector/?a=b', caBundle: abc}", "must have no query", "traces.caBundle")
	f("accessLog: {sample: .nan}", "")
}

func TestNoFaultTellsAPassword(t *testing.T) {
	_, faults := Parse([]byte("traces: {endpoint: 'https://me:hidden@collector/'}"))
	if s := faults.ToAggregate().Error(); strings.Contains(s, "hidden") {
		t.Error(s)
	}
	s := *Default()
	_, faults = s.WithHeaders(map[string][]byte{"Authorization": []byte("hidden\nline"), "Host": []byte("hidden"), "a b": []byte("hidden")})
	if s := faults.ToAggregate().Error(); len(faults) != 3 || strings.Contains(s, "hidden") {
		t.Error(s)
	}
}

func TestMoreThanASidecarShouldHoldIsRefused(t *testing.T) {
	list := func(n int, more string) []byte {
		var b strings.Builder
		b.WriteString("prices:\n  models:\n")
		for i := range n {
			fmt.Fprintf(&b, "  - {model: m%d, input: 1, output: 2%s}\n", i, more)
		}
		return []byte(b.String())
	}
	if s, faults := Parse(list(MaxPrices, ", cached: 0.123456")); len(faults) > 0 || len(s.Prices.Models) != MaxPrices {
		t.Errorf("%d prices are refused: %v", MaxPrices, faults)
	}
	f := func(text []byte, want string) {
		t.Helper()
		_, faults := Parse(text)
		if len(faults) != 1 || !strings.Contains(faults[0].Error(), want) {
			t.Errorf("%v, want %q", faults, want)
		}
	}
	f(list(MaxPrices+500, ""), "prices.models: Too many: 1500: must have at most 1000 items")
	f(list(10_000, ""), "telemetry.yaml: Too long")
	if _, faults := Parse(list(MaxPrices, ", wrong: 1")); len(faults) != maxTold+1 || !strings.Contains(faults[maxTold].Error(), "980 faults more") {
		t.Errorf("%d faults are told", len(faults))
	}
	f([]byte("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n"), "cannot be read as YAML")
}

func TestHeadersForACollectorAreThoseThatCanBeSent(t *testing.T) {
	s, faults := Default().WithHeaders(map[string][]byte{"Authorization": []byte("Bearer x\n"), "X-Scope-OrgID": []byte("apps"), "Content-Length": []byte("1")})
	if len(faults) != 1 || len(s.Traces.Headers) != 2 || s.Traces.Headers["Authorization"] != "Bearer x" {
		t.Errorf("%v, %v", s.Traces.Headers, faults)
	}
	many := map[string][]byte{}
	for i := range 100 {
		many[fmt.Sprintf("X-%d", i)] = []byte("v")
	}
	if s, faults = s.WithHeaders(many); len(faults) != 1 || len(s.Traces.Headers) != maxHeaders {
		t.Errorf("%d headers, %v", len(s.Traces.Headers), faults)
	}
}

func TestWhatASidecarReadsOfANewerControllerIsWhatItKnows(t *testing.T) {
	s, err := Decode([]byte(`{"accessLog":{"level":"off","sample":1,"new":true},"prices":{"currency":"EUR"},"other":{}}`))
	if err != nil || s.AccessLog.Level != Off || s.Traces.Sample != DefaultTraceSample {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "null,", `{"accessLog":{"level":"some"}}`, `{"accessLog":{"sample":"much"}}`, `{"traces":{"sample":9}}`, `{"capture":{"until":"2026-01-01T00:00:00Z","sample":1,"bytes":99999999}}`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}
