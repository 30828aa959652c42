//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/llmserver"
	"remora.dev/remora/test/stage"
)

// walkthrough is that of the mesh whose manifests we take, step by step, by its own commands.
type walkthrough struct {
	in string // the namespace
}

func TestTheWalkthrough(t *testing.T) {
	t.Parallel()
	w := walkthrough{injected(t, "e2e-walkthrough")}
	_ = t.Run("ADeploymentGetsItsSidecarAndStaysAsWritten", w.deployed) && // each step builds on those before
		t.Run("APlainCallIsAnsweredByTheProvider", w.firstCall) &&
		t.Run("AHeaderDecidesAboutTheModel", w.subscriber) &&
		t.Run("AVirtualHostIsSplitOverTwoProviders", w.split) &&
		t.Run("BadConfigurationIsRefused", w.badConfiguration) &&
		t.Run("AnEditLosesNoCall", w.edited) &&
		t.Run("AStreamArrivesEventByEvent", w.streamed) &&
		t.Run("WhatIsNoLLMsPassesUntouched", w.untouched) &&
		t.Run("TheAppSeesNothingOfTheKey", w.keyless)
}

func (w walkthrough) deployed(t *testing.T) {
	apply(t, stage.Sleep(), "-n", w.in)
	began := time.Now()
	kubectl(t, "-n", w.in, "rollout", "status", "deployment/sleep", "--timeout="+patience.String())
	t.Logf("the Deployment was available after %v", time.Since(began).Round(time.Millisecond))
	p := onePod(t, w.in, "app=sleep")
	var names []string
	for _, c := range p.Spec.InitContainers {
		names = append(names, c.Name)
	}
	if want := []string{v1beta1.RedirectContainer, v1beta1.SidecarContainer}; !reflect.DeepEqual(names, want) {
		t.Fatalf("the init containers are %v, want %v", names, want)
	}
	if policy := p.Spec.InitContainers[1].RestartPolicy; policy == nil || *policy != corev1.ContainerRestartPolicyAlways {
		t.Errorf("the sidecar is no native one: restartPolicy %v", policy)
	}
	if s := p.Status.InitContainerStatuses; s[0].State.Terminated == nil || s[0].State.Terminated.ExitCode != 0 || s[1].State.Running == nil || !s[1].Ready {
		t.Errorf("the redirection has not ended well, or the sidecar does not run: %+v", s)
	}
	d, err := client.AppsV1().Deployments(w.in).Get(t.Context(), "sleep", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Kubernetes itself mounts the account's token.
	mounts := p.Spec.Containers[0].VolumeMounts
	if len(mounts) == 0 || mounts[len(mounts)-1].MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" {
		t.Fatalf("the app does not mount its account's token: %+v", mounts)
	}
	p.Spec.Containers[0].VolumeMounts = mounts[:len(mounts)-1]
	if !reflect.DeepEqual(p.Spec.Containers, d.Spec.Template.Spec.Containers) {
		t.Errorf("the pod's containers are\n%+v, written were\n%+v", p.Spec.Containers, d.Spec.Template.Spec.Containers)
	}
}

// followed returns when the sidecar of the walkthrough has said something: of what was applied it hears as soon as kubectl does, or just
// after.
func followed(t *testing.T, in, words string) {
	t.Helper()
	eventually(t, "the sidecar follows", func() (string, bool) {
		out := kubectl(t, "-n", in, "logs", "deployment/sleep", "-c", v1beta1.SidecarContainer)
		return out, strings.Contains(out, words)
	})
}

// onePod is the only pod with a label that is not about to end.
func onePod(t *testing.T, in, selector string) corev1.Pod {
	t.Helper()
	list, err := client.CoreV1().Pods(in).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	var live []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			live = append(live, p)
		}
	}
	if len(live) != 1 {
		t.Fatalf("there are %d pods with %s; want one", len(live), selector)
	}
	return live[0]
}

// article is the walkthrough's own command, with the headers that are given.
func article(headers ...string) string {
	line := `kubectl exec deployment/sleep -it -- curl --location 'http://dashscope.aliyuncs.com' --header 'Content-Type: application/json'`
	for _, h := range headers {
		line += " --header '" + h + "'"
	}
	return line + ` --data '{"messages": [{"role": "user", "content": "请介绍你自己"}]}'`
}

// answered runs a command line and gives the model that answered.
func answered(t *testing.T, in, line string) string {
	t.Helper()
	out, err := typed(t, in, line)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, line, out)
	}
	return modelOf(t, out)
}

// modelOf reads a chat completion, which curl's progress and kubectl's remarks may stand around.
func modelOf(t *testing.T, out string) string {
	t.Helper()
	var chat struct {
		Model   string
		Choices []struct{ Message struct{ Content string } }
	}
	_, text, _ := strings.Cut(out, "{")
	if err := json.NewDecoder(strings.NewReader("{" + text)).Decode(&chat); err != nil || len(chat.Choices) != 1 || chat.Choices[0].Message.Content == "" {
		t.Fatalf("that is no answer of a model (%v): %s", err, out)
	}
	return chat.Model
}

// newest is the last request that a provider received.
func newest(t *testing.T, p stage.Provider) llmserver.Request {
	t.Helper()
	all := received(t, p, "")
	if len(all) == 0 {
		t.Fatalf("%s received nothing", p.Name)
	}
	return all[len(all)-1]
}

// wantRequest compares what a provider received with what its LLMProvider says.
func wantRequest(t *testing.T, r llmserver.Request, host, path, model, key string) {
	t.Helper()
	var body struct{ Model string }
	_ = json.Unmarshal(r.Body, &body)
	got := fmt.Sprintf("tls %v, SNI %s, %s %s%s, model %s, %s", r.TLS, r.SNI, r.Method, r.Host, r.Path, body.Model, r.Header.Get("Authorization"))
	if want := fmt.Sprintf("tls true, SNI %s, POST %[1]s%s, model %s, Bearer %s", host, path, model, key); got != want {
		t.Errorf("the provider received %s\nwant %s", got, want)
	}
}

const qwenPath = "/compatible-mode/v1/chat/completions"

func (w walkthrough) firstCall(t *testing.T) {
	apply(t, stage.PlainProvider(keys["DASHSCOPE_API_KEY"]), "-n", w.in)
	followed(t, w.in, `"hosts":1,`)
	if model := answered(t, w.in, article()); model != "qwen-1.8b-chat" {
		t.Errorf("the model is %s", model)
	}
	r := newest(t, atQwen)
	wantRequest(t, r, qwen, qwenPath, "qwen-1.8b-chat", keys["DASHSCOPE_API_KEY"])
	has(t, "the request", string(r.Body), `"messages": [{"role": "user", "content": "请介绍你自己"}]`)
}

func (w walkthrough) subscriber(t *testing.T) {
	apply(t, sample(t, "dashscope-route.yaml"), "-n", w.in)
	apply(t, sample(t, "dashscope-qwen.yaml"), "-n", w.in)
	followed(t, w.in, "routeSpecificConfigs[vip-route]") // that there is a key in it, the sidecar remarks
	for model, headers := range map[string][]string{"qwen-turbo": {"user-type: subscriber"}, "qwen-1.8b-chat": nil} {
		if got := answered(t, w.in, article(headers...)); got != model {
			t.Errorf("with headers %v, the model is %s; want %s", headers, got, model)
		}
		wantRequest(t, newest(t, atQwen), qwen, qwenPath, model, keys["DASHSCOPE_API_KEY"])
	}
}

func sample(t *testing.T, name string) string {
	t.Helper()
	text, err := stage.Sample(root, name, keys)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const virtual = "demo-llm-server"

func (w walkthrough) split(t *testing.T) {
	for _, manifest := range []string{stage.DemoService(), sample(t, "moonshot.yaml"), sample(t, "demo-llm-server.yaml")} {
		apply(t, manifest, "-n", w.in)
	}
	followed(t, w.in, `"hosts":3,`)
	if out := kubectl(t, "-n", w.in, "get", "endpointslices", "-l", "kubernetes.io/service-name="+virtual, "-o", "jsonpath={.items[*].endpoints[*].addresses}"); out != "" {
		t.Fatalf("the Service has endpoints: %s", out)
	}
	const calls = 100
	out := shell(t, w.in, "deployment/sleep", fmt.Sprintf("for i in $(seq %d); do %s; echo; done", calls, ask(virtual, "of the split")))
	toQwen, toMoonshot := received(t, atQwen, "of the split"), received(t, atMoonshot, "of the split")
	// Of a hundred tosses of a coin, fewer than 25 show heads once in ten million times.
	if len(toQwen)+len(toMoonshot) != calls || len(toQwen) < 25 || len(toMoonshot) < 25 {
		t.Errorf("%d and %d calls arrived; want %d, half of them each\n%s", len(toQwen), len(toMoonshot), calls, out)
	}
	for _, r := range toQwen {
		wantRequest(t, r, qwen, qwenPath, "qwen-1.8b-chat", keys["DASHSCOPE_API_KEY"])
	}
	for _, r := range toMoonshot {
		wantRequest(t, r, moonshot, "/v1/chat/completions", "moonshot-v1-8k", keys["MOONSHOT_API_KEY"])
	}
}
