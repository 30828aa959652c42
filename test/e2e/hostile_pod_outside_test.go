//go:build linux

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/llmserver"
)

// guarded are pods that the guards refuse: with what they ask for, a container would reach the sidecar's memory or files.
func (h *heist) guarded(t *testing.T) {
	for name, spec := range map[string]string{
		"SYS_PTRACE":                    "containers: [{name: a, image: a, securityContext: {capabilities: {add: [SYS_PTRACE]}}}]",
		"sys_ptrace, as cap_sys_ptrace": "containers: [{name: a, image: a, securityContext: {capabilities: {add: [cap_sys_ptrace]}}}]",
		"ALL capabilities":              "containers: [{name: a, image: a, securityContext: {capabilities: {add: [ALL]}}}]",
		"SYS_ADMIN":                     "containers: [{name: a, image: a, securityContext: {capabilities: {add: [SYS_ADMIN]}}}]",
		"DAC_READ_SEARCH":               "containers: [{name: a, image: a, securityContext: {capabilities: {add: [DAC_READ_SEARCH]}}}]",
		"BPF and PERFMON":               "containers: [{name: a, image: a, securityContext: {capabilities: {add: [BPF, PERFMON]}}}]",
		"SYS_PTRACE of an init":         "initContainers: [{name: b, image: b, securityContext: {capabilities: {add: [SYS_PTRACE]}}}], containers: [{name: a, image: a}]",
		"privilege":                     "containers: [{name: a, image: a, securityContext: {privileged: true}}]",
		"the pod's processes":           "shareProcessNamespace: true, containers: [{name: a, image: a}]",
		"the node's processes":          "hostPID: true, containers: [{name: a, image: a}]",
		"the sidecar's user":            "containers: [{name: a, image: a, securityContext: {runAsUser: 14001}}]",
		"the sidecar's group":           "securityContext: {supplementalGroups: [14001]}, containers: [{name: a, image: a}]",
		"the kubelet's folder":          "volumes: [{name: v, hostPath: {path: /var/lib/kubelet}}], containers: [{name: a, image: a, volumeMounts: [{name: v, mountPath: /v}]}]",
		"the node's processes' folder":  "volumes: [{name: v, hostPath: {path: /proc}}], containers: [{name: a, image: a, volumeMounts: [{name: v, mountPath: /v}]}]",
		"the sidecar's memory":          "containers: [{name: a, image: a, volumeMounts: [{name: remora-state, mountPath: /v}]}]",
		"the sidecar's token":           "containers: [{name: a, image: a, volumeMounts: [{name: remora-access, mountPath: /v}]}]",
	} {
		manifest := "apiVersion: v1\nkind: Pod\nmetadata: {name: guarded}\nspec: {" + spec + "}\n"
		out, err := cluster.KubectlWith(t.Context(), manifest, "-n", heistPod, "create", "--dry-run=server", "-f", "-")
		if err == nil {
			out = "it was accepted"
		}
		h.judge(t, "a pod asks for "+name, out, "(denied|forbidden|Forbidden|not found)")
	}
}

// direct calls the sidecar's own listener: from the pod, by each of its addresses, and by kubectl port-forward.
func (h *heist) direct(t *testing.T) {
	var all []attempt
	for _, address := range []string{"127.0.0.1", "[::1]", "$IP"} {
		call := func(name, curl string) {
			says := []string{`DirectConnection.*403$`}
			if address == "$IP" {
				says = []string{`(DirectConnection.*403|000)$`} // it listens on loopback only
			}
			all = append(all, attempt{name: "calls " + name + " at " + address, script: curl + ` --globoff --data '` + question("of a direct hit") + `' 2>&1`, says: says})
		}
		call("the listener", curlChat+address+`:14001 --header 'Host: `+bankHost+`'`)
		call("the listener as a proxy", curlChat+bankHost+` --proxy http://`+address+`:14001`)
	}
	all = append(all,
		attempt{name: "calls the listener as the sidecar's user", as: []string{asRoot}, says: []string{`DirectConnection.*403$`},
			script: `hostile as 14001 ` + curlChat + `127.0.0.1:14001 --header 'Host: ` + bankHost + `' --data '` + question("of a direct hit") + `'`},
		attempt{name: "calls a provider that admits another user only", as: []string{asRoot}, says: []string{`CallerNotAllowed.*403$`},
			script: curlChat + guardedHost + ` --data '` + question("of a stranger") + `'`},
		attempt{name: "calls it as a third user", as: []string{asRoot}, says: []string{`CallerNotAllowed.*403$`},
			script: `hostile as 1001 ` + curlChat + guardedHost + ` --data '` + question("of a stranger") + `'`},
	)
	h.try(t, all)
	h.works(t, asOther, curlChat+guardedHost+` --data '`+question("of one that is admitted")+`'`, `200$`)
	h.works(t, asRoot, `hostile as 1000 `+curlChat+guardedHost+` --data '`+question("of root, which can be anybody")+`'`, `200$`)
	for port, says := range map[string]string{
		"14001": "DirectConnection", "14020": `"?hosts?"?|` + bankHost, "14021": "remora_",
	} {
		h.judge(t, "kubectl port-forward to "+port, h.forwarded(t, port), says)
	}
}

// forwarded is what the sidecar says on a port to somebody who comes by kubectl port-forward.
func (h *heist) forwarded(t *testing.T, port string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	forward := exec.CommandContext(ctx, cluster.Binary("kubectl"), "--kubeconfig="+cluster.Kubeconfig(), "-n", heistPod, "port-forward", "pod/app", ":"+port)
	out, err := forward.StdoutPipe()
	if err == nil {
		err = forward.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = forward.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n') // Forwarding from 127.0.0.1:45678 -> 14001
	local := regexp.MustCompile(`127\.0\.0\.1:[0-9]+`).FindString(line)
	if local == "" {
		t.Fatalf("kubectl port-forward says %q (%v)", line, err)
	}
	var said strings.Builder
	for _, path := range []string{"/config", "/metrics", "/v1/models", "/debug/pprof/heap?debug=2"} {
		curl := exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--header", "Host: "+bankHost, "http://"+local+path)
		answer, _ := curl.CombinedOutput()
		said.Write(answer)
	}
	return said.String()
}

// printed looks at all that the sidecar and the installation tell to whoever may read objects and logs.
func (h *heist) printed(t *testing.T, when string) {
	t.Helper()
	for _, look := range []struct {
		name, says string
		args       []string
	}{
		{"the sidecar's log", "configuration in use", []string{"logs", "app", "-c", v1beta1.SidecarContainer}},
		{"the redirection's log", "REDIRECT", []string{"logs", "app", "-c", v1beta1.RedirectContainer}},
		{"the pod", "containerStatuses", []string{"get", "pod", "app", "-o", "yaml"}},
		{"the providers and their status", "ResolvedRefs", []string{"get", "llmproviders", "-o", "yaml"}},
		{"the events", "LAST SEEN", []string{"get", "events"}},
		{"the account, its role and its binding", v1beta1.SidecarName, []string{"get", "serviceaccounts,roles,rolebindings", "-o", "yaml"}},
		{"the sidecar's metrics", "remora_", []string{"get", "--raw", "/api/v1/namespaces/" + heistPod + "/pods/app:14021/proxy/metrics"}},
	} {
		args := append([]string{"-n", heistPod}, look.args...)
		if look.args[1] == "--raw" {
			args = look.args
		}
		h.judge(t, "reads "+look.name+", "+when, kubectl(t, args...), look.says)
	}
	for _, name := range []string{v1beta1.WebhookName, v1beta1.ControllerName} {
		h.judge(t, "reads the log of "+name+", "+when, kubectl(t, "-n", system, "logs", "-l", "app.kubernetes.io/name="+name, "--tail=-1"), ".")
	}
}

// exhausted has the sidecar run out of memory with the key in it, which ends it, and looks at what it leaves.
func (h *heist) exhausted(t *testing.T) {
	h.run(t, asOther, `
{ printf '{"model":"m","messages":[{"role":"user","content":"it is too much'; head -c 15000 /dev/zero | tr '\0' x; printf '"}]}'; } >/tmp/small
for i in 1 2; do
  curl --silent --parallel --parallel-immediate --parallel-max 300 --output /dev/null --max-time 60 --header '`+llmserver.FaultHeader+`: delay=40s' \
    --json @/tmp/small 'http://`+bankHost+`/?[1-300]' >/dev/null 2>&1 &
  echo $! >>/tmp/flood
done`)
	eventually(t, "the sidecar was killed for its memory", func() (string, bool) {
		s := onePod(t, heistPod, "app=app").Status.InitContainerStatuses[1]
		return fmt.Sprintf("%+v", s), s.RestartCount >= 1
	})
	h.run(t, asOther, "kill $(cat /tmp/flood)")
	eventually(t, "the sidecar runs again", func() (string, bool) {
		s := onePod(t, heistPod, "app=app").Status.InitContainerStatuses[1]
		return fmt.Sprintf("%+v", s), s.Ready
	})
	last := onePod(t, heistPod, "app=app").Status.InitContainerStatuses[1].LastTerminationState.Terminated
	h.judge(t, "other/has the sidecar run out of memory, and reads what it printed",
		fmt.Sprintf("%+v\n", last)+kubectl(t, "-n", heistPod, "logs", "app", "-c", v1beta1.SidecarContainer, "--previous"), "configuration in use")
	h.try(t, []attempt{{name: "looks for a core dump of the sidecar", script: `find / -xdev -name 'core*' -type f -size +100k; echo searched`, says: []string{"searched"}, lacks: "/core"}})
}
