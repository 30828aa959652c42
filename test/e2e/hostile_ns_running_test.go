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

// running tries what can be done to a pod that runs with its sidecar. All of it is refused by policies, and by Kubernetes itself.
func (e *editor) running(t *testing.T, pod string) {
	t.Helper()
	const evil = stage.AppImage
	object := "v1 Pod " + pod
	f := func(name, patch string, part string, words ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			e.attempt(t)
			var parts []string
			if part != "" {
				parts = append(parts, part)
			}
			denied(t, e.patch(t, object, patch, parts...), words...)
		})
	}
	const frozen = "the images of remora-redirect and remora-sidecar cannot be changed in a running pod"
	f("patch another image into the sidecar", "spec: {initContainers: [{name: remora-sidecar, image: "+evil+"}]}", "", frozen, "Remedy: ")
	f("patch another image into the redirection", "spec: {initContainers: [{name: remora-redirect, image: "+evil+"}]}", "", frozen)
	f("patch it together with one of the app", "spec: {initContainers: [{name: remora-sidecar, image: "+evil+"}], containers: [{name: app, image: "+evil+"}]}", "", frozen)
	f("give the sidecar another command", "spec: {initContainers: [{name: remora-sidecar, command: [sh]}]}", "", "pod updates may not change fields other than")
	f("write the status of the pod", "status: {phase: Failed}", "status", `cannot patch resource "pods/status"`)
	t.Run("another image by way of a resize", func(t *testing.T) {
		e.attempt(t)
		before := e.images(t, pod)
		err := e.patch(t, object, "spec: {initContainers: [{name: remora-sidecar, image: "+evil+", resources: {requests: {cpu: 11m}}}]}", "resize")
		if after := e.images(t, pod); after != before {
			t.Errorf("the images were %s and are %s (%v)", before, after, err)
		}
	})
	t.Run("kubectl set image", func(t *testing.T) {
		e.attempt(t)
		_, err := e.kubectl(t, "set", "image", "pod/"+pod, "remora-sidecar="+evil)
		denied(t, err, frozen)
	})
	t.Run("kubectl apply --server-side --force-conflicts", func(t *testing.T) {
		e.attempt(t)
		_, err := e.kubectlWith(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: "+pod+"}\nspec: {containers: [{name: app}], initContainers: [{name: remora-sidecar, image: "+evil+"}]}",
			"apply", "--server-side", "--force-conflicts", "-f", "-")
		denied(t, err, frozen)
	})
	t.Run("relabel it first", func(t *testing.T) {
		e.attempt(t)
		if err := e.patch(t, object, "metadata: {labels: {remora.dev/injected: null, remora.dev/inject: disabled}}"); err != nil {
			t.Fatal(err)
		}
		denied(t, e.patch(t, object, "spec: {initContainers: [{name: remora-sidecar, image: "+evil+"}]}"), frozen)
		denied(t, e.debugs(t, pod, "targetContainerName: remora-sidecar"), "targetContainerName of Remora")
		if err := e.patch(t, object, `metadata: {labels: {remora.dev/injected: "true", remora.dev/inject: null}}`); err != nil {
			t.Fatal(err)
		}
	})
	f("name a container of the app, then debug the sidecar", "spec: {ephemeralContainers: [{name: d, image: "+evil+", targetContainerName: app}, {name: e, image: "+evil+", targetContainerName: remora-sidecar}]}",
		"ephemeralcontainers", "spec.ephemeralContainers: e has a targetContainerName of Remora")

	for _, d := range []struct{ name, fields, words string }{
		{"debug the sidecar", "targetContainerName: remora-sidecar", "targetContainerName of Remora"},
		{"debug the redirection", "targetContainerName: remora-redirect", "targetContainerName of Remora"},
		{"debug with the token", "volumeMounts: [{name: remora-access, mountPath: /a}]", "container d mounts remora-access"},
		{"debug with the sidecar's memory", "volumeMounts: [{name: remora-state, mountPath: /a, readOnly: true}]", "container d mounts"},
		{"debug with variables of the keys", "envFrom: [{secretRef: {name: remora-sidecar-keys}}]", "env, envFrom: container d "},
		{"debug with a variable of the token", "env: [{name: T, valueFrom: {secretKeyRef: {name: remora-sidecar-access, key: token}}}]", "env, envFrom: container d "},
		{"debug with a variable from a file of the sidecar", "env: [{name: K, valueFrom: {fileKeyRef: {volumeName: remora-state, path: last-good.json, key: k}}}]", "env, envFrom: container d "},
		{"debug as the sidecar's user", "securityContext: {runAsUser: 14001}", "container d: user and group 14001"},
		{"debug as its group", "securityContext: {runAsGroup: 14001}", "container d: user and group 14001"},
		{"debug with tracing", "securityContext: {capabilities: {add: [SYS_PTRACE]}}", "container d is privileged or has a capability"},
	} {
		t.Run(d.name, func(t *testing.T) {
			e.attempt(t)
			denied(t, e.debugs(t, pod, d.fields), d.words, "Remedy: ")
		})
	}
	t.Run("debug by the sidecar's name", func(t *testing.T) {
		e.attempt(t)
		denied(t, e.debugs(t, pod, "name: remora-sidecar"), "Duplicate value")
	})
	t.Run("kubectl debug --target", func(t *testing.T) {
		e.attempt(t)
		_, err := e.kubectl(t, "debug", pod, "--image="+evil, "--target=remora-sidecar", "--profile=baseline", "--", "cat", "/proc/1/environ")
		denied(t, err, "targetContainerName of Remora")
	})
	t.Run("kubectl debug --profile=sysadmin", func(t *testing.T) {
		e.attempt(t)
		_, err := e.kubectl(t, "debug", pod, "--image="+evil, "--target=app", "--profile=sysadmin", "--", "ls")
		denied(t, err, "is privileged", "another --profile")
	})

	const entered = "is Remora's and holds keys: nobody runs commands in it or attaches to it"
	for name, args := range map[string][]string{
		"kubectl exec":                  {"exec", pod, "-c", "remora-sidecar", "--", "/sidecar", "version"},
		"kubectl exec, the redirection": {"exec", pod, "-c", "remora-redirect", "--", "ls"},
		"kubectl attach":                {"attach", pod, "-c", "remora-sidecar"},
		"kubectl cp":                    {"cp", pod + ":/var/run/secrets/kubernetes.io/serviceaccount/token", t.TempDir() + "/token", "-c", "remora-sidecar"},
	} {
		t.Run(name, func(t *testing.T) {
			e.attempt(t)
			_, err := e.kubectl(t, args...)
			denied(t, err, entered)
		})
	}
	t.Run("kubectl exec into the default container, which was made to be the sidecar", func(t *testing.T) {
		e.attempt(t)
		enters := func(container string) error {
			if err := e.patch(t, object, "metadata: {annotations: {kubectl.kubernetes.io/default-container: "+container+"}}"); err != nil {
				t.Fatal(err)
			}
			_, err := e.kubectl(t, "exec", pod, "--", "id")
			return err
		}
		denied(t, enters("remora-sidecar"), entered)
		if err := enters("app"); err != nil {
			t.Errorf("the same into the app: %v", err)
		}
	})
	t.Run("exec with two containers in the query", func(t *testing.T) {
		e.attempt(t)
		text, err := e.client.CoreV1().RESTClient().Post().AbsPath("/api/v1/namespaces/"+e.in+"/pods/"+pod+"/exec").
			Param("container", "remora-sidecar").Param("container", "app").Param("command", "/sidecar").Param("stdout", "true").DoRaw(t.Context())
		denied(t, fmt.Errorf("%w: %s", err, text), entered)
	})
	t.Run("the logs of the sidecar", func(t *testing.T) {
		e.attempt(t)
		for _, c := range []string{v1beta1.SidecarContainer, v1beta1.RedirectContainer} {
			if out, err := e.kubectl(t, "logs", pod, "-c", c); err != nil || out == "" {
				t.Errorf("they say %q, %v", out, err)
			}
		}
	})
	t.Run("its ports through the API server", func(t *testing.T) {
		e.attempt(t)
		for _, port := range []string{"14001", "14020"} {
			text, err := e.client.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/" + e.in + "/pods/" + pod + ":" + port + "/proxy/config").DoRaw(t.Context())
			denied(t, fmt.Errorf("%w: %s", err, e.saw(string(text))), "refused")
		}
		for _, path := range []string{"config", "metrics", "readyz"} {
			text, _ := e.client.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/" + e.in + "/pods/" + pod + ":14021/proxy/" + path).DoRaw(t.Context())
			e.saw(string(text))
		}
	})
}

// debugs adds an ephemeral container, for real: nothing may run it.
func (e *editor) debugs(t *testing.T, pod, fields string) error {
	t.Helper()
	name := "name: d, "
	if strings.HasPrefix(fields, "name: ") {
		name = ""
	}
	return e.patch(t, "v1 Pod "+pod, "spec: {ephemeralContainers: [{"+name+"image: "+stage.AppImage+", command: [sh, -c, env], "+fields+"}]}", "ephemeralcontainers")
}

func (e *editor) images(t *testing.T, pod string) string {
	t.Helper()
	p, err := client.CoreV1().Pods(e.in).Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Spec.InitContainers[0].Image + " " + p.Spec.InitContainers[1].Image
}
