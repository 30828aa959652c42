//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/stage"
)

// neighbour is another injector, which wants the first place for itself, as those of meshes do. It is a policy, so that it
// needs no server: one that is asked before ours, and again when ours has changed the pod.
func neighbour(in, name, condition string) string {
	return fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: e2e-%[2]s}
spec:
  reinvocationPolicy: IfNeeded
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[1]s}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  variables:
  - {name: there, expression: "object.spec.?initContainers.orValue([])"}
  - name: wanted
    expression: "!variables.there.exists(c, c.name == '%[2]s') && (%[3]s)"
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: >-
        variables.wanted ? [
          JSONPatch{op: "add", path: variables.there.size() == 0 ? "/spec/initContainers" : "/spec/initContainers/0", value:
            variables.there.size() == 0 ? dyn([%[4]s]) : dyn(%[4]s)},
          JSONPatch{op: "add", path: "/spec/containers/-", value: %[5]s}
        ] : []
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: e2e-%[2]s}
spec: {policyName: e2e-%[2]s}
`, in, name, condition, foreign(name, ask(example, "of the first of "+name)), foreign(name+"-beside", idle))
}

// foreign is CEL of a container.
func foreign(name, script string) string {
	return fmt.Sprintf(`Object.spec.initContainers{name: %q, image: %q, imagePullPolicy: "Never", command: ["sh", "-c", %q]}`, name, stage.AppImage, script)
}

func TestOtherInjectorsBeforeAndAfterOursLeaveAPodThatWorks(t *testing.T) {
	t.Parallel()
	in := injected(t, "e2e-neighbours")
	apply(t, exampleProvider("sk-of-neighbours"), "-n", in)
	// The second does nothing until it sees our sidecar.
	neighbours := neighbour(in, "a-neighbour", "true") + "---" + neighbour(in, "z-neighbour", "variables.there.exists(c, c.name == '"+v1beta1.SidecarContainer+"')")
	t.Cleanup(func() {
		kubectl(t, "delete", "mutatingadmissionpolicies,mutatingadmissionpolicybindings", "e2e-a-neighbour", "e2e-z-neighbour")
	})
	apply(t, neighbours)
	// Policies begin to work a moment after they were applied.
	eventually(t, "both are at work", func() (string, bool) {
		out, err := cluster.KubectlWith(t.Context(), pod("tried", container("app", idle)), "-n", in, "create", "--dry-run=server", "-o", "jsonpath={.spec.containers[*].name}", "-f", "-")
		return fmt.Sprint(out, err), err == nil && out == "app a-neighbour-beside z-neighbour-beside"
	})
	apply(t, pod("app", container("app", idle)), "-n", in)
	awaitReady(t, in, "pod/app")
	p := onePod(t, in, "app=app")
	var names []string
	for _, c := range append(p.Spec.InitContainers, p.Spec.Containers...) {
		names = append(names, c.Name)
	}
	want := []string{v1beta1.RedirectContainer, v1beta1.SidecarContainer, "z-neighbour", "a-neighbour", "app", "a-neighbour-beside", "z-neighbour-beside"}
	if !slices.Equal(names, want) {
		t.Errorf("the containers are %v\nwant %v", names, want)
	}
	shell(t, in, "app", ask(example, "of the app among neighbours"))
	for _, words := range []string{"of the first of a-neighbour", "of the first of z-neighbour", "of the app among neighbours"} {
		if r := received(t, atAnybody, words); len(r) != 1 || r[0].Header.Get("Authorization") != "Bearer sk-of-neighbours" {
			t.Errorf("%s, the provider received %+v", words, r)
		}
	}
}
