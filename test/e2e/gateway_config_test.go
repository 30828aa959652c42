//go:build linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// processOf is the first process of the first container of a pod.
func processOf(p corev1.Pod) (pid int, err error) {
	for _, s := range p.Status.ContainerStatuses {
		_, id, _ := strings.Cut(s.ContainerID, "://")
		if pid := processIn(string(p.UID)+"/"+id, ""); pid != 0 {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("the process of %s is not found", p.Name)
}

// configIn is what people see of the configuration of a gateway's pod, from inside of it.
func configIn(ctx context.Context, p corev1.Pod) (string, error) {
	return configOf(ctx, func() (int, error) { return processOf(p) })
}

// gatewaysFollow waits until each pod of the gateway has, in what it says of something, all of the words, and none of those behind a "!".
func gatewaysFollow(t *testing.T, of string, words ...string) {
	t.Helper()
	eventually(t, "the gateway has "+strings.Join(words, ", ")+" for "+of, func() (string, bool) {
		for _, p := range gatewayPods(t) {
			text, err := configIn(t.Context(), p)
			if err != nil {
				return fmt.Sprintf("%s: %v", p.Name, err), false
			}
			if !slices.ContainsFunc(blocks(text), func(block string) bool {
				for _, w := range append(words, of) {
					if w, not := strings.CutPrefix(w, "!"); strings.Contains(block, w) == not {
						return false
					}
				}
				return true
			}) {
				return p.Name + ":\n" + text, false
			}
		}
		return "", true
	})
}

// blocks are the parts of a configuration: each begins with a line that is not set in.
func blocks(text string) (all []string) {
	for line := range strings.Lines(text) {
		if len(all) == 0 || !strings.HasPrefix(line, " ") {
			all = append(all, "")
		}
		all[len(all)-1] += line
	}
	return all
}
