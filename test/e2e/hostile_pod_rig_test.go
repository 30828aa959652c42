//go:build linux

package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/stage"
)

// Who takes part: an injected pod with three containers that are the thief's, a bank that is all the providers, and a server of the
// thief's elsewhere in the cluster.
const (
	heistPod   = "e2e-hostile-pod"
	heistBank  = "e2e-hostile-pod-bank"
	heistThief = "e2e-hostile-pod-thief"

	bankHost    = "bank." + heistBank
	guardedHost = "guarded." + heistBank // only for UID 1000
	nginxHost   = "nginx." + heistBank   // the bank behind nginx
	hostsHost   = "hosts." + heistBank   // these three are called while the thief leads them elsewhere
	dnsHost     = "dns." + heistBank
	routedHost  = "routed." + heistBank
	openHost    = "open." + heistBank // these two have allowInsecureKey, and one key: it can be had, which shows that the attacks are able to
	plainHost   = "plain." + heistBank
	thiefHost   = "thief." + heistThief
)

// The containers of the pod.
const (
	asRoot  = "root"
	asOther = "other" // as UID 1000
	asAdmin = "admin" // root with NET_ADMIN
)

const (
	loot   = "sk-heist-"            // each key begins so, and what is planted, so that a search that has to find nothing finds something
	canary = loot + "canary-of-all" // planted by the attempts themselves
)

// heist is a pod in which somebody tries to get keys.
type heist struct {
	bank, thief stage.Provider
	thiefIP     string
	bankIP      string
	open        string            // the one key that is not protected
	keys        map[string]string // the others, by the host
	attempts    int
	found       int
}

// keyForms are the ways in which a key may be seen: as it is, in hexadecimal, and within what was written in base64.
func keyForms(key string) []string {
	forms := []string{key, hex.EncodeToString([]byte(key))}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			// The first and the last letters depend on what stands around the key.
			text := encoding.EncodeToString([]byte(strings.Repeat("-", before) + key))
			forms = append(forms, text[(before*8+5)/6:len(text)-1])
		}
	}
	return forms
}

// leak names the host of a key that a text holds, never the key.
func (h *heist) leak(text string) string {
	for host, key := range h.keys {
		for _, form := range keyForms(key) {
			if strings.Contains(text, form) {
				return host
			}
		}
	}
	return ""
}

// judge is an attempt that is over: what it brought must show that it was made, in each of the words (regular expressions), and hold no key.
func (h *heist) judge(t *testing.T, name, brought string, words ...string) {
	t.Helper()
	h.attempts++
	h.search(t, name, brought, words...)
}

// search looks for keys in a text that must have the words in it.
func (h *heist) search(t *testing.T, name, text string, words ...string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Helper()
		if host := h.leak(text); host != "" {
			h.found++
			t.Fatalf("the key of %s is in it", host) // and it is shown to nobody
		}
		for _, w := range words {
			if !regexp.MustCompile(`(?s)` + w).MatchString(text) {
				t.Errorf("it does not say %q:\n%.4000q", w, text)
			}
		}
	})
}

// works is what a container does that is allowed, beside that which is not.
func (h *heist) works(t *testing.T, container, script, word string) {
	t.Helper()
	if out := h.run(t, container, script); !regexp.MustCompile(word).MatchString(out) {
		t.Errorf("%s: it does not say %q:\n%.4000q", script, word, h.redacted(out))
	}
}

// attempt is a script, and what it says if it was made and failed. Lacks is what it must not say.
type attempt struct {
	name, script string
	says         []string
	lacks        string // a regular expression
	as           []string
}

// try has the containers make attempts, each container all of its own in one go.
func (h *heist) try(t *testing.T, all []attempt) {
	t.Helper()
	for _, container := range []string{asRoot, asOther} {
		var script strings.Builder
		var made []attempt
		for _, a := range all {
			if a.as == nil || slices.Contains(a.as, container) {
				fmt.Fprintf(&script, "timeout 120 sh 2>&1 <<'ATTEMPT'\n%s\nATTEMPT\necho; echo '<><>'\n", a.script)
				made = append(made, a)
			}
		}
		brought := strings.Split(h.run(t, container, script.String()), "\n<><>\n")
		if len(brought) != len(made)+1 {
			t.Fatalf("%d attempts as %s ended %d times", len(made), container, len(brought)-1)
		}
		for i, a := range made {
			h.judge(t, container+"/"+a.name, brought[i], a.says...)
			if a.lacks != "" && regexp.MustCompile(a.lacks).MatchString(brought[i]) {
				t.Errorf("%s/%s says %q:\n%.4000q", container, a.name, a.lacks, h.redacted(brought[i]))
			}
		}
	}
}

// run has a container run a script, with what the thief knows.
func (h *heist) run(t *testing.T, container, script string) string {
	t.Helper()
	known := fmt.Sprintf("THIEF=%s BANK=%s\n", h.thiefIP, h.bankIP) + "export THIEF BANK\ncd /loot\n"
	out, err := cluster.KubectlWith(t.Context(), known+script+"\ntrue", "-n", heistPod, "exec", "-i", "app", "-c", container, "--", "sh")
	if err != nil {
		t.Fatalf("%v as %s\n%.2000q", err, container, h.redacted(out))
	}
	return out
}

// redacted is what may be shown of a text.
func (h *heist) redacted(text string) string {
	if host := h.leak(text); host != "" {
		return "(with the key of " + host + " in it)"
	}
	return text
}

// sent is a text that goes to an address as it is.
type sent struct {
	To   string
	Text []byte
	Slow bool
}

// say has a container send texts, and gives what was answered.
func (h *heist) say(t *testing.T, container string, all []sent) (answers [][]byte) {
	t.Helper()
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	out := h.run(t, container, "hostile say <<'TEXTS'\n"+string(text)+"\nTEXTS\n")
	if err := json.Unmarshal([]byte(out), &answers); err != nil || len(answers) != len(all) {
		t.Fatalf("%d texts were answered by (%v) %.2000q", len(all), err, h.redacted(out))
	}
	return answers
}

// requests are all that somebody received.
func (h *heist) requests(t *testing.T, at stage.Provider) []llmserver.Request {
	t.Helper()
	return received(t, at, "")
}

// intercepted looks at what the thief's server received, the names of TLS handshakes included: something in each of the words, and no key.
func (h *heist) intercepted(t *testing.T, name string, words ...string) {
	t.Helper()
	h.search(t, name, told(h.requests(t, h.thief)), words...)
}

// told is all that is known of requests.
func told(all []llmserver.Request) string {
	var text strings.Builder
	for _, r := range all {
		fmt.Fprintf(&text, "tls %v %s %s %s?%s\n%s\n\n%s\n", r.TLS, r.SNI, r.Method, r.Path, r.RawQuery, strings.Join(r.RawHeader, "\n"), r.Body)
	}
	return text.String()
}
