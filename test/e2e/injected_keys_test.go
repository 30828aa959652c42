//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"remora.dev/remora/apis/v1beta1"
)

func TestARotatedKeyIsUsedAtOnceAndADeletedOneNoMore(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-keys")
	secret := func(key string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata: {name: of-example}\nstringData: {apiKey: " + key + "}\n"
	}
	apply(t, secret("sk-first"), "-n", in)
	apply(t, strings.Replace(exampleProvider("none"), "apiKey: none", "apiKeyRef: {name: of-example}", 1), "-n", in)
	apply(t, pod("app", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/app")
	keysSeen := func(words string) (all []string) {
		for _, r := range received(t, atAnybody, words) {
			all = append(all, r.Header.Get("Authorization"))
		}
		return all
	}
	calls := callAllTheTime(t, in, "pod/app", example, "of the rotation")
	calls.awaitMore(t, 10)
	began := time.Now()
	apply(t, secret("sk-second"), "-n", in)
	eventually(t, "the new key is used", func() (string, bool) {
		seen := keysSeen("of the rotation")
		return fmt.Sprint(seen), len(seen) > 0 && seen[len(seen)-1] == "Bearer sk-second"
	})
	t.Logf("the new key was seen %v after kubectl apply was started", time.Since(began).Round(time.Millisecond))
	calls.awaitMore(t, 10)
	t.Log(calls.stop(t))
	changes := 0
	seen := keysSeen("of the rotation")
	for i, key := range seen {
		if key != "Bearer sk-first" && key != "Bearer sk-second" {
			t.Errorf("call %d had %q", i, key)
		}
		if i > 0 && key != seen[i-1] {
			changes++
		}
	}
	// Calls of several clients may arrive in another order than they were sent in, but not for long.
	if seen[0] != "Bearer sk-first" || changes == 0 || changes > 2*callers {
		t.Errorf("the keys of all calls: %v", seen)
	}

	kubectl(t, "-n", in, "delete", "secret", "of-example")
	eventually(t, "calls are refused, saying why", func() (string, bool) {
		out := shell(t, in, "pod/app", `curl --silent --show-error --write-out ' %{http_code}' http://`+example+` --data '`+question("without a key")+`'`)
		return out, strings.Contains(out, `"code":"SecretNotFound"`) && strings.Contains(out, "of-example") && strings.HasSuffix(out, " 503")
	})
	before := len(keysSeen("without a key"))
	shell(t, in, "pod/app", "curl --silent http://"+example+" --data '"+question("without a key")+"'")
	if after := len(keysSeen("without a key")); after != before {
		t.Errorf("a call without a key went out")
	}
	for _, s := range onePod(t, in, "app=app").Status.InitContainerStatuses {
		if s.RestartCount != 0 {
			t.Errorf("%s was restarted", s.Name)
		}
	}
	logs := kubectl(t, "-n", in, "logs", "app", "-c", v1beta1.SidecarContainer)
	if strings.Contains(logs, "sk-first") || strings.Contains(logs, "sk-second") {
		t.Errorf("the sidecar's log shows a key:\n%s", logs)
	}
	if strings.Contains(logs, `"level":"error"`) {
		t.Errorf("the sidecar has an error to tell of:\n%s", logs)
	}
}
