package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/injector"
)

// someSettings are what the shipped PodTemplate says, more or less.
func someSettings() injector.Settings {
	return injector.Settings{
		Sidecar:              injector.Container{Image: "sidecar", PullPolicy: corev1.PullIfNotPresent},
		Redirect:             injector.Container{Image: "redirect", PullPolicy: corev1.PullIfNotPresent},
		RedirectCapabilities: []corev1.Capability{"NET_ADMIN"},
		Egress:               []corev1.EnvVar{{Name: "HTTPS_PROXY", Value: "http://proxy.corp:3128"}},
		PullSecrets:          []corev1.LocalObjectReference{{Name: "pull"}},
	}
}

// applied does to a document what an API server does with a patch.
func applied(t *testing.T, document, patch []byte) map[string]any {
	t.Helper()
	var whole map[string]any
	var all []operation
	for text, into := range map[string]any{string(document): &whole, string(patch): &all} {
		if err := json.Unmarshal([]byte(text), into); text != "" && err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range all {
		path := strings.Split(o.Path, "/")[1:]
		for i := range path {
			path[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(path[i])
		}
		at := whole
		for _, key := range path[:len(path)-1] {
			at = at[key].(map[string]any)
		}
		key := path[len(path)-1]
		if _, there := at[key]; there != (o.Op != "add") {
			t.Errorf("%s %s, which is there: %v", o.Op, o.Path, there)
		}
		if o.Op == "remove" {
			delete(at, key)
		} else {
			at[key] = o.Value
		}
	}
	return whole
}

func typed(t *testing.T, document any) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	text, err := json.Marshal(document)
	if err == nil {
		err = json.Unmarshal(text, pod)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// injectedInto gives what an API server makes of a pod by our patch, once it is known to be what Inject says.
func injectedInto(t *testing.T, document string) map[string]any {
	t.Helper()
	pod := typed(t, json.RawMessage(document))
	want, faults := injector.Inject(pod, someSettings())
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	patch, err := patchOf([]byte(document), pod, want)
	if err != nil {
		t.Fatal(err)
	}
	got := applied(t, []byte(document), patch)
	if g, w := fmt.Sprint(mustJSON(t, typed(t, got))), fmt.Sprint(mustJSON(t, want)); g != w {
		t.Errorf("the patch makes\n%s\nwant\n%s", g, w)
	}
	return got
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The pod as an API server of next year sends it: with fields that this program has never heard of.
const newer = `{
 "kind": "Pod", "apiVersion": "v1", "newAtTheTop": 1.0,
 "metadata": {"generateName": "app-", "newInMetadata": "m", "creationTimestamp": null, "annotations": {"a/b~c": "d"}},
 "spec": {
  "newInSpec": {"deep": [1, 9007199254740993]},
  "initContainers": [
   {"name": "first", "image": "one", "newInContainer": "first's", "resources": {"requests": {"cpu": "0.5"}}},
   {"name": "second", "image": "two", "newInContainer": {"of": "second"}, "env": [{"name": "A", "value": "1", "newInEnv": true}, {"name": "A", "value": "2"}]}],
  "containers": [{"name": "app", "image": "app", "newInContainer": "app's"}],
  "volumes": [{"name": "data", "newKindOfVolume": {"size": "1"}}]},
 "status": {}
}`

func TestFieldsThatOnlyANewerAPIServerKnowsStayWhereTheyWere(t *testing.T) {
	got := injectedInto(t, newer)
	var was map[string]any
	if err := json.Unmarshal([]byte(newer), &was); err != nil {
		t.Fatal(err)
	}
	spec, old := got["spec"].(map[string]any), was["spec"].(map[string]any)
	f := func(what string, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is\n%v\nand was\n%v", what, got, want)
		}
	}
	inits := spec["initContainers"].([]any)
	f("the user's init containers", inits[2:], old["initContainers"])
	f("the user's containers", spec["containers"], old["containers"])
	f("the user's volume", spec["volumes"].([]any)[0], old["volumes"].([]any)[0])
	f("newInSpec", spec["newInSpec"], old["newInSpec"])
	f("newInMetadata", got["metadata"].(map[string]any)["newInMetadata"], "m")
	f("newAtTheTop", got["newAtTheTop"], was["newAtTheTop"])
	if text := mustJSON(t, inits[:2]); strings.Contains(text, "newIn") {
		t.Errorf("ours have fields of the user's: %s", text)
	}
}

// Whoever brings a container with our name brings nothing into ours.
func TestNothingThatWasInAContainerOfOurNameIsLeft(t *testing.T) {
	got := injectedInto(t, `{"metadata":{"name":"a"},"spec":{
	 "initContainers":[{"name":"remora-sidecar","image":"theirs","newPrivilege":true},{"name":"user","newInContainer":1}],
	 "volumes":[{"name":"remora-access","newKindOfVolume":{}}],"containers":[{"name":"app"}]}}`)
	if text := mustJSON(t, got["spec"]); strings.Contains(text, "newPrivilege") || strings.Contains(text, "newKindOfVolume") || !strings.Contains(text, "newInContainer") {
		t.Error(text)
	}
}

func TestThePatchMakesOfEachPodWhatInjectSays(t *testing.T) {
	for name, document := range map[string]string{
		"nothing but a container": `{"metadata":{},"spec":{"containers":[{"name":"app"}]}}`,
		"lists that are null":     `{"metadata":{"labels":null,"annotations":null},"spec":{"initContainers":null,"volumes":null,"imagePullSecrets":null,"containers":[{"name":"app"}]}}`,
		"names that come twice":   `{"metadata":{},"spec":{"initContainers":[{"name":"a","image":"1"},{"name":"a","image":"2"}],"containers":[{"name":"app"}]}}`,
		"a label to be replaced":  `{"metadata":{"labels":{"remora.dev/injected":"false","app":"x"},"annotations":{"remora.dev/skip-reason":"x"}},"spec":{"containers":[{"name":"app"}]}}`,
		"its own pull secret":     `{"metadata":{},"spec":{"imagePullSecrets":[{"name":"own"}],"containers":[{"name":"app"}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			again := injectedInto(t, document)
			injectedInto(t, mustJSON(t, again)) // the second time too
		})
	}
}

func TestAPodThatIsInjectedAlreadyNeedsNoPatch(t *testing.T) {
	text := []byte(mustJSON(t, injectedInto(t, newer)))
	pod := typed(t, json.RawMessage(text))
	after, _ := injector.Inject(pod, someSettings())
	if patch, err := patchOf(text, pod, after); err != nil || patch != nil {
		t.Errorf("%v, and the patch %s", err, patch)
	}
}

// large are pods that grow with n, at 16 the largest that people have, and then some.
func large(n int) map[string]*corev1.Pod {
	variables, volumes := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "a-"}}, &corev1.Pod{}
	for _, name := range []string{"app", "other"} {
		c := corev1.Container{Name: name}
		for i := range 100 * n {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", i), Value: strings.Repeat("x", 60)})
		}
		variables.Spec.Containers = append(variables.Spec.Containers, c)
		c.Name += "-first"
		variables.Spec.InitContainers = append(variables.Spec.InitContainers, c)
	}
	for i := range 12 * n {
		c := corev1.Container{Name: fmt.Sprintf("c%d", i), Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}}}
		for j := range 10 {
			name := fmt.Sprintf("v%d-%d", i, j)
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: "/" + name})
			volumes.Spec.Volumes = append(volumes.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		}
		volumes.Spec.Containers = append(volumes.Spec.Containers, c)
		c.Name = "i" + c.Name
		volumes.Spec.InitContainers = append(volumes.Spec.InitContainers, c)
	}
	return map[string]*corev1.Pod{fmt.Sprintf("%dVariables", 400*n): variables, fmt.Sprintf("%dContainers%dVolumes", 24*n, 120*n): volumes}
}

// A pod that is 16 times as large takes some 16 times as long; quadratic, it would be 256 times.
func TestThePatchOfALargePodCostsInProportionToItsSize(t *testing.T) {
	// The fastest of some: what else the machine does only adds.
	fastest := func(pod *corev1.Pod) time.Duration {
		text := []byte(mustJSON(t, pod))
		best := time.Hour
		for range 5 {
			began := time.Now()
			after, _ := injector.Inject(pod, someSettings())
			if _, err := patchOf(text, pod, after); err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	sum := func(pods map[string]*corev1.Pod) (all time.Duration) {
		for name, pod := range pods {
			took := fastest(pod)
			t.Logf("%s: %v", name, took)
			all += took
		}
		return all
	}
	if little, much := sum(large(1)), sum(large(16)); much > 64*little {
		t.Errorf("16 times as much took %v instead of %v", much, little)
	}
}

func BenchmarkPatch(b *testing.B) {
	pods := large(16)
	pods["Usual"] = &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
	for name, pod := range pods {
		text, err := json.Marshal(pod)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				after, _ := injector.Inject(pod, someSettings())
				if _, err := patchOf(text, pod, after); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
