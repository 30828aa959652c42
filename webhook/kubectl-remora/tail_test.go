package main

import (
	"strings"
	"testing"
)

// A log as kubectl logs --timestamps has it: diagnostics, lines of calls, and what a thief writes who has the container.
const written = `2026-11-23T21:00:00.000000001Z {"level":"info","ts":"2026-11-23T21:00:00Z","msg":"serving"}
2026-11-23T21:00:01.000000001Z {"time":"2026-11-23T21:00:01.000Z","logger":"access","request_model":"qwen-turbo","request_prompt_tokens":12,"request_completion_tokens":34,"rule":"demo/chat/subscribers","provider":"demo/dashscope","status":200,"total_ms":3210.5,"first_token_ms":120.2,"cost":0.0012,"currency":"USD"}
2026-11-23T21:00:02.000000001Z {"time":"2026-11-23T21:00:02.000Z","logger":"access","request_model":"moonshot","rule":"demo/chat/everybody","provider":"demo/moonshot","status":502,"code":"UpstreamReset","total_ms":12,"retries":2}
2026-11-23T21:00:03.000000001Z {"time":"2026-11-23T21:00:03.000Z","logger":"access","request_model":"\u001b]0;gotcha\u0007\u009b2J\u202eevil","status":200,"total_ms":1}
2026-11-23T21:00:04.000000001Z not JSON ` + "\x1b[2J" + `
2026-11-23T21:00:05.000000001Z {"time":"2026-11-23T21:00:05.000Z","logger":"access","missing_lines":7}
`

func TestTheTailOfAPodIsItsCallsAndNothingElse(t *testing.T) {
	t.Setenv("TZ", "UTC")
	p := startPods(t)
	p.add("sleep-1", sidecar{})
	p.logs["sleep-1"] = written
	f := func(want string, args ...string) {
		t.Helper()
		out, fault, code := p.call(t.Context(), append([]string{"tail", "--follow=false", "--since", "876000h", "-o", "text"}, args...)...)
		var got []string
		for line := range strings.Lines(out) {
			_, line, _ = strings.Cut(strings.TrimSpace(line), " demo/sleep-1 ") // without the time, which is local
			got = append(got, line)
		}
		if strings.Join(got, "\n") != strings.TrimSpace(want) || code != exitOK || fault != "" || strings.ContainsAny(out, "\x1b\u009b\u202e") {
			t.Errorf("%v: %d %s\n%s\nwant\n%s", args, code, fault, strings.Join(got, "\n"), want)
		}
	}
	const (
		fine    = "200 qwen-turbo 12+34 tokens 3.2s first 120ms 0.0012 USD demo/chat/subscribers → demo/dashscope\n"
		failed  = "502 moonshot 12ms demo/chat/everybody → demo/moonshot retries 2 UpstreamReset\n"
		hostile = `200 \x1b]0;gotcha\x07\x9b2J\u202eevil 1.0ms` + "\n"
		missing = "7 lines are missing here, as they were not read fast enough\n"
	)
	f(fine + failed + hostile + missing)
	f(failed+missing, "--errors")
	f(fine+missing, "--slow", "2s")
	f(fine+missing, "--model", "qwen*")
	f(failed+missing, "--code", "429,upstreamreset", "pod/sleep-1")
	f(failed+missing, "--code", "502")

	out, _, _ := p.call(t.Context(), "tail", "--follow=false", "--since", "876000h")
	if strings.Count(out, "\n") != 4 || !strings.Contains(out, `\u001b]0;gotcha`) || strings.ContainsAny(out, "\x1b\u009b\u202e") || strings.Contains(out, "serving") {
		t.Errorf("as JSON:\n%s", out)
	}
}

func TestAPatternOfModelsFitsAsItReads(t *testing.T) {
	for pattern, want := range map[string]bool{"qwen": false, "qwen-max": true, "qwen*": true, "*max": true, "q*n*x": true, "*": true, "*turbo*": false, "qwen-max*max": false} {
		if like(pattern, "qwen-max") != want {
			t.Errorf("%s: %v", pattern, !want)
		}
	}
}
