//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Containers beside the sidecar, one of root, one of another user and one with NET_ADMIN, try to read the key, to have it sent to
// a server of their own, and to spend it on anything but inference. Each attempt is a test; that it was made is seen in what it says,
// and that it could have succeeded, in what was planted for it.
func TestAContainerBesideTheSidecarGetsNoKey(t *testing.T) {
	t.Parallel()
	h := prepare(t)
	at := func(address, port string) string { return address + ":" + port }
	t.Run("Planting", h.planting)
	t.Run("Looking", func(t *testing.T) { h.try(t, looks) })
	t.Run("Asking", func(t *testing.T) { h.try(t, asks()) })
	t.Run("Guards", h.guarded)
	t.Run("Direct", h.direct)
	t.Run("Administration", func(t *testing.T) { h.sends(t, administrative(), at(h.bankIP, "80")) })
	t.Run("Misleading", func(t *testing.T) { h.sends(t, misleading(), at(h.bankIP, "80"), at(h.thiefIP, "80")) })
	t.Run("Smuggling", func(t *testing.T) { h.sends(t, smuggling(), at(h.bankIP, "80")) })
	t.Run("Slowness", h.slow)
	t.Run("Reflection", h.reflected)
	t.Run("Redirects", h.led)
	t.Run("Poison", h.poisoned)
	t.Run("Packets", h.captured)
	t.Run("Printed", func(t *testing.T) { h.printed(t, "while it runs") })
	t.Run("Memory", h.exhausted)
	t.Run("NetAdmin", h.powerful)
	t.Run("WhatWasSpent", h.spent)
	t.Run("Loot", h.looted)
	published(t, h.attempts, h.found)
}

// published compares what a hostile suite has tried with what the README says of it.
func published(t *testing.T, attempts, keys int) {
	t.Helper()
	t.Logf("%d attempts, %d keys", attempts, keys)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	// A suite that has failed may have made fewer.
	if words := fmt.Sprintf("%d attempts, %d keys", attempts, keys); !t.Failed() && !strings.Contains(string(readme), words) {
		t.Errorf("the README does not say %q: correct the number there", words)
	}
}

// slow sends requests byte by byte: whose they are is known late.
func (h *heist) slow(t *testing.T) {
	const path = "/v1/chat/completions"
	names := []string{"sends an administrative call byte by byte", "sends two hosts byte by byte", "sends a good call byte by byte, which works"}
	texts := []sent{
		{Text: []byte(plain("DELETE", "/v1/models/small", bankHost))}, {Text: []byte(chat("POST", path, thiefHost, "Host: "+bankHost))}, {Text: []byte(chat("POST", path, bankHost))},
	}
	for i := range texts {
		texts[i].To, texts[i].Slow = h.bankIP+":80", true
	}
	for i, answer := range h.say(t, asRoot, texts) {
		h.judge(t, "root/"+names[i], string(answer), "^HTTP/1.1 "+[]string{turnedAway, turnedAway, "200"}[i])
	}
}

// looted is all that the attempts kept in files.
func (h *heist) looted(t *testing.T) {
	for _, container := range []string{asRoot, asOther, asAdmin} {
		h.search(t, container+"/reads what all attempts left behind",
			h.run(t, container, `echo `+canary+` >planted; find /loot /tmp /etc /dev/shm -type f -exec cat {} +`), canary)
	}
	h.intercepted(t, "the thief's server received nothing else", canary)
}
