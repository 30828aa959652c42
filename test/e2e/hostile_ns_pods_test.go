//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/stage"
)

// hostilePod is a pod that would have a key, or the way to one. All that policies refuse is refused with every webhook down, too.
type hostilePod struct {
	name     string
	spec     string   // lines of the pod's spec
	app      string   // fields of its container
	harmless []string // what is to be replaced by what, so that the same is let in
	denied   []string
}

// manifest is the pod. What is marked "disabled" is asked about by no webhook.
func (p hostilePod) manifest(marked string) string {
	app := "name: app, image: " + stage.AppImage + ", imagePullPolicy: IfNotPresent, command: [sh, -c, \"" + idle + "\"]"
	if p.app != "" {
		app += ", " + p.app
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {generateName: attempt-, labels: {%s}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{%s}]\n  %s\n",
		marked, app, strings.ReplaceAll(strings.TrimSpace(p.spec), "\n", "\n  "))
}

// pods tries them all.
func (e *editor) pods(t *testing.T, marked string, all []hostilePod) {
	t.Helper()
	for _, p := range all {
		t.Run(p.name, func(t *testing.T) {
			e.attempt(t)
			_, err := e.create(t, p.manifest(marked))
			denied(t, err, append(p.denied, "emedy: ")...)
			if len(p.harmless) == 0 {
				return
			}
			if _, err := e.create(t, strings.NewReplacer(p.harmless...).Replace(p.manifest(marked)), metav1.DryRunAll); err != nil {
				t.Errorf("the same without what is refused of it: %v", err)
			}
		})
	}
}

// hostileVolume is a line of a pod's spec.
func hostileVolume(source string) string { return "volumes: [{name: v, " + source + "}]" }

// hostilePods are those that policies refuse, with a sidecar and without.
func hostilePods() []hostilePod {
	mine := []string{v1beta1.KeysSecret, "mine"}
	volume := func(name, source string) hostilePod {
		return hostilePod{name: name, spec: hostileVolume(source), harmless: mine, denied: []string{"spec.volumes: v ", "use a Secret of your own"}}
	}
	environment := func(name, app string) hostilePod {
		return hostilePod{name: name, app: app, harmless: mine, denied: []string{"env, envFrom: container app "}}
	}
	node := func(name, spec, app, instead string, words ...string) hostilePod {
		return hostilePod{name: name, spec: spec, app: app, harmless: strings.Split(instead, " → "), denied: append(words, "a namespace without sidecars")}
	}
	const withV = "volumeMounts: [{name: v, mountPath: /a}]"
	return []hostilePod{
		{name: "run as the account of sidecars", spec: "serviceAccountName: remora-sidecar", harmless: []string{v1beta1.SidecarName, "default"},
			denied: []string{"spec.serviceAccountName: remora-sidecar is the account"}},
		{name: "run as it by the old field", spec: "serviceAccount: remora-sidecar", harmless: []string{v1beta1.SidecarName, "default"}, denied: []string{"spec.serviceAccountName"}},
		{name: "run as an account that pulls with our Secret", spec: "serviceAccountName: puller", harmless: []string{"puller", "default"}, denied: []string{"spec.imagePullSecrets"}},
		{name: "pull with our Secret", spec: "imagePullSecrets: [{name: remora-sidecar-keys}]", harmless: mine, denied: []string{"spec.imagePullSecrets"}},
		{name: "pull an image volume with it", spec: "imagePullSecrets: [{name: remora-sidecar-keys}]\n" + hostileVolume("image: {reference: r.example/i}"),
			harmless: mine, denied: []string{"spec.imagePullSecrets"}},

		volume("mount the keys", "secret: {secretName: remora-sidecar-keys}"),
		volume("mount one of them under another name", "secret: {secretName: remora-sidecar-keys, optional: true, items: [{key: team_apiKey, path: harmless}]}"),
		{name: "mount the token", spec: hostileVolume("secret: {secretName: remora-sidecar-access}"), harmless: []string{"remora-sidecar-access", "mine"}, denied: []string{"spec.volumes: v "}},
		{name: "mount the keys by a path of its own", spec: hostileVolume("secret: {secretName: remora-sidecar-keys}"),
			app:      "env: [{name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}], volumeMounts: [{name: v, mountPath: /a, subPathExpr: $(WHO)}]",
			harmless: mine, denied: []string{"spec.volumes: v "}},
		volume("project the keys among harmless things", "projected: {sources: [{configMap: {name: c}}, {serviceAccountToken: {path: t}}, {downwardAPI: {items: []}}, {secret: {name: remora-sidecar-keys}}]}"),
		volume("have a driver publish with it", "csi: {driver: d.example.com, nodePublishSecretRef: {name: remora-sidecar-keys}}"),
		volume("have a driver look for it", "csi: {driver: d.example.com, volumeAttributes: {secretName: remora-sidecar-keys}}"),
		volume("azureFile", "azureFile: {shareName: s, secretName: remora-sidecar-keys}"),
		volume("cephfs", "cephfs: {monitors: [m], secretRef: {name: remora-sidecar-keys}}"),
		volume("cinder", "cinder: {volumeID: i, secretRef: {name: remora-sidecar-keys}}"),
		volume("flexVolume", "flexVolume: {driver: a/b, secretRef: {name: remora-sidecar-keys}}"),
		volume("iscsi", "iscsi: {targetPortal: 192.0.2.1, iqn: 'iqn.2001-04.com.example:s', lun: 0, secretRef: {name: remora-sidecar-keys}}"),
		volume("rbd", "rbd: {monitors: [m], image: i, secretRef: {name: remora-sidecar-keys}}"),
		volume("scaleIO", "scaleIO: {gateway: g, system: s, volumeName: a, secretRef: {name: remora-sidecar-keys}}"),
		volume("storageos", "storageos: {volumeName: a, secretRef: {name: remora-sidecar-keys}}"),

		environment("a variable of a key", "env: [{name: K, valueFrom: {secretKeyRef: {name: remora-sidecar-keys, key: team_apiKey, optional: true}}}]"),
		environment("variables of all keys", "envFrom: [{secretRef: {name: remora-sidecar-keys}}]"),
		{name: "variables in an init container", spec: "initContainers: [{name: first, image: a.example/b, envFrom: [{prefix: P, secretRef: {name: remora-sidecar-keys}}]}]",
			harmless: mine, denied: []string{"env, envFrom: container first "}},

		node("a privileged container", "", "securityContext: {privileged: true}", "true → false", "container app is privileged"),
		node("a capability over the node", "", "securityContext: {capabilities: {add: [cap_sys_admin]}}", "cap_sys_admin → NET_BIND_SERVICE", "container app is privileged or has a capability"),
		{name: "the processes of the node", spec: "hostPID: true", harmless: []string{"true", "false"}, denied: []string{"spec.hostPID"}},
		node("the files of the node, as kubectl debug node/… does", hostileVolume("hostPath: {path: /}"), withV, "hostPath: {path: /} → emptyDir: {}", "hostPath / leads"),
		node("the kubelet's folder of a pod", hostileVolume("hostPath: {path: /var//lib/kubelet/./pods}"), withV, "hostPath: {path: /var//lib/kubelet/./pods} → emptyDir: {}", "/var/lib/kubelet/pods leads"),
		node("the runtime's socket by a link", hostileVolume("hostPath: {path: /var/run/containerd/containerd.sock, type: Socket}"), withV,
			"hostPath: {path: /var/run/containerd/containerd.sock, type: Socket} → emptyDir: {}", "/run/containerd/containerd.sock leads"),
		node("the logs of all pods", hostileVolume("hostPath: {path: /var/log/pods}"), withV, "hostPath: {path: /var/log/pods} → emptyDir: {}", "/var/log/pods leads"),
		node("a link in a folder of the node, for the next pod to mount", hostileVolume("hostPath: {path: /data, type: DirectoryOrCreate}"), withV,
			"mountPath: /a → mountPath: /a, readOnly: true", "container app may write into a hostPath volume"),
	}
}

// withoutASidecar are those that would be written over, or could not be written, where a sidecar is injected.
func withoutASidecar() []hostilePod {
	return []hostilePod{
		{name: "mount the token by the name of the sidecar's volume", spec: "volumes: [{name: remora-access, secret: {secretName: remora-sidecar-access}}]",
			harmless: []string{"secret: {secretName: remora-sidecar-access}", "emptyDir: {}", "remora-access,", "v,"}, denied: []string{"spec.volumes: remora-access "}},
		{name: "a container by the sidecar's name", app: "envFrom: [{secretRef: {name: mine}}]}, {name: remora-sidecar, image: a.example/b",
			harmless: []string{"remora-sidecar", "another"}, denied: []string{"the name remora-sidecar is", "choose another name"}},
		{name: "a sidecar written by hand", spec: handmadePod, denied: []string{"remora-redirect and remora-sidecar are for injection to write"}},
	}
}

// handmadePod is an injected pod as an editor writes it by hand, with an image of his own for the sidecar.
const handmadePod = `
volumes: [{name: remora-access, secret: {secretName: remora-sidecar-access}}, {name: remora-state, emptyDir: {}}]
initContainers:
- name: remora-sidecar
  image: ` + stage.AppImage + `
  restartPolicy: Always
  command: [sh, -c, sleep 9999]
  env: [{name: SSL_CERT_FILE, value: /theirs}]
  lifecycle: {preStop: {exec: {command: [cat, /a/token]}}}
  readinessProbe: {exec: {command: [cat, /a/token]}}
  restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]
  volumeMounts: [{name: remora-access, mountPath: /a}]
`

// besideASidecar are those that reach into the sidecar of their own pod. Each is refused when it would get one.
func besideASidecar() []hostilePod {
	volume := func(name, app string) hostilePod {
		return hostilePod{name: name, app: app, denied: []string{"container app"}}
	}
	none := []string{"14001", "14002"}
	return []hostilePod{
		{name: "share the processes", spec: "shareProcessNamespace: true", harmless: []string{"true", "false"}, denied: []string{"spec.shareProcessNamespace"}},
		{name: "the sidecar's user for the pod", spec: "securityContext: {runAsUser: 14001}", harmless: none, denied: []string{"user and group 14001"}},
		{name: "the sidecar's group for the pod", spec: "securityContext: {runAsGroup: 14001}", harmless: none, denied: []string{"user and group 14001"}},
		{name: "the sidecar's group for files", spec: "securityContext: {fsGroup: 14001}", harmless: none, denied: []string{"user and group 14001"}},
		{name: "the sidecar's group beside others", spec: "securityContext: {supplementalGroups: [1, 14001]}", harmless: none, denied: []string{"user and group 14001"}},
		{name: "the sidecar's user for a container", app: "securityContext: {runAsUser: 14001}", harmless: none, denied: []string{"container app: user and group 14001"}},
		{name: "the sidecar's group for an init container", spec: "initContainers: [{name: first, image: a.example/b, securityContext: {runAsGroup: 14001}}]",
			harmless: none, denied: []string{"container first: user and group 14001"}},
		{name: "trace processes", app: "securityContext: {capabilities: {add: [SYS_PTRACE]}}", harmless: []string{"SYS_PTRACE", "CHOWN"}, denied: []string{"container app is privileged or has a capability"}},
		volume("the sidecar's token", "volumeMounts: [{name: remora-access, mountPath: /a}]"),
		volume("the sidecar's memory", "volumeMounts: [{name: remora-state, mountPath: /a, readOnly: true, subPath: last-good.json}]"),
		volume("the sidecar's memory by a path of its own", "env: [{name: P, value: last-good.json}], volumeMounts: [{name: remora-state, mountPath: /a, subPathExpr: $(P)}]"),
		volume("a variable from a file of the sidecar", "env: [{name: K, valueFrom: {fileKeyRef: {volumeName: remora-state, path: last-good.json, key: k}}}]"),
		{name: "the sidecar's memory for an init container", spec: "initContainers: [{name: first, image: a.example/b, volumeMounts: [{name: remora-state, mountPath: /a}]}]",
			denied: []string{"volumeMounts: container first "}},
	}
}
