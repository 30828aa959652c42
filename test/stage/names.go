package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// ownNames is the part of the DNS's configuration that Resolve writes.
var ownNames = regexp.MustCompile(`(?s)\n    hosts \{.*?\n    \}`)

// Resolve makes the cluster's DNS give these addresses for these names, and returns when it does; those of a call before are
// forgotten. It is for the cluster of package node: it knows how that one's CoreDNS is configured.
func Resolve(ctx context.Context, k Kubectl, addresses map[string]string) error {
	dns := func(args ...string) (string, error) {
		return said(k(ctx, "", append([]string{"--namespace=kube-system"}, args...)...))
	}
	old, err := dns("get", "configmap", "coredns", "-o", "jsonpath={.data.Corefile}")
	if err != nil {
		return err
	}
	corefile, err := withNames(old, addresses)
	if err != nil || corefile == old {
		return err
	}
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"Corefile": corefile}})
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"patch", "configmap", "coredns", "--patch=" + string(patch)},
		{"rollout", "restart", "deployment/coredns"},
		{"rollout", "status", "deployment/coredns", "--timeout=2m"},
	} {
		if _, err := dns(args...); err != nil {
			return err
		}
	}
	return nil
}

func withNames(corefile string, addresses map[string]string) (string, error) {
	corefile = ownNames.ReplaceAllString(corefile, "")
	first, rest, ok := strings.Cut(corefile, ".:53 {\n")
	if !ok {
		return "", fmt.Errorf("the DNS of this cluster is configured otherwise than that of a test cluster:\n%s", corefile)
	}
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		fmt.Fprintf(&lines, "        %s %s\n", addresses[name], name)
	}
	return first + ".:53 {\n    hosts {\n" + lines.String() + "        ttl 2\n        fallthrough\n    }\n" + rest, nil
}
