package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"remora.dev/remora/apis/v1beta1"
)

func providerNamed(name, host string) string {
	return fmt.Sprintf("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMProvider\nmetadata: {name: %s}\nspec: {host: %s}\n---\n", name, host)
}

func routeNamed(name, host, rules string) string {
	return fmt.Sprintf("apiVersion: istio.alibabacloud.com/v1beta1\nkind: LLMRoute\nmetadata: {name: %s}\nspec: {host: %s, rules: [%s]}\n---\n", name, host, rules)
}

func anOlderVersionsObjectsAreNotFrozen(in *admitted) {
	t := in.t
	for _, name := range []string{"invalid", "unreadable"} {
		in.kubectl(t, "", "-n", in.namespace, "label", "llmroute", name, "touched=yes")
		in.kubectl(t, "", "-n", in.namespace, "patch", "llmroute", name, "--type=merge", "-p", `{"metadata":{"finalizers":["example.com/wait"]}}`)
		in.kubectl(t, "", "-n", in.namespace, "patch", "llmroute", name, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	}
	in.refused(t, strings.Replace(admittedOnce, "host: older", "host: oldest", 1), "spec.rules[0].timeouts.request: ")
	in.refused(t, strings.Replace(admittedOnce, "host: old,", "host: oldest,", 1), `spec.gateways[0]: "Istio_Ingress" names no gateway: write mesh for the sidecars, or NAME or NAMESPACE/NAME of an Istio Gateway (InvalidValue)`)
	in.accepted(t, strings.NewReplacer("9999999999h", "9h", "Istio_Ingress", "mesh").Replace(admittedOnce), "llmroute.istio.alibabacloud.com/unreadable configured")
	in.kubectl(t, "", "-n", in.namespace, "delete", "llmroute", "--all")
}

func allFaultsAtOnce(in *admitted) {
	t := in.t
	in.refused(t, `
apiVersion: istio.alibabacloud.com/v1beta1
kind: LLMProvider
metadata: {name: qwen}
spec:
  host: llm.example.123
  path: /v1/../admin
  configs: {defaultConfig: {openAIConfig: {model: qwen, apiKey: sk-x}}}
`, `Warning: spec.configs.defaultConfig.openAIConfig.apiKey: whoever may read this object has the key: move it to a Secret and name that in apiKeyRef; the README has a line for that, under Keys (InlineKey)
The LLMProvider "qwen" is invalid: 
* spec.host: "llm.example.123" ends in a number, but is not an IPv4 address: write four numbers from 0 to 255 without leading zeros, or a name (InvalidValue)
* spec.path: "/v1/../admin" has a . or .. in it, or what decodes to that: write the path that is meant (InvalidValue)
`)
	if _, metrics := get(t, "http://"+in.flag(t, "metrics")+"/metrics"); !strings.Contains(metrics, `remora_admission_denials_total{code="InvalidValue",kind="LLMProvider"}`) {
		t.Error("the metrics do not count it")
	}
}

func aFolderInAnyOrder(in *admitted) {
	t := in.t
	in.accepted(t, routeNamed("r", "chat", "{backendRefs: [{providerHost: llm.example.com}]}"),
		"Warning: spec.rules[0].backendRefs[0].providerHost: no LLMProvider with host llm.example.com is in use in namespace "+in.namespace+": its share of the calls fails until there is one (ProviderNotFound)\n")
	in.accepted(t, providerNamed("p", "llm.example.com"), "llmprovider.istio.alibabacloud.com/p created")
}

func aPlanBeforeTheEdit(in *admitted) {
	t := in.t
	const before, after = "{backendRefs: [{providerHost: one.example.com}]}", "{backendRefs: [{providerHost: one.example.com}, {providerHost: two.example.com}]}"
	in.accepted(t, providerNamed("one", "one.example.com")+providerNamed("two", "two.example.com"), "created")
	in.accepted(t, routeNamed("r", "chat", before), "created")
	for _, args := range [][]string{{"--dry-run=server"}, {}} {
		out, ok := in.apply(t, routeNamed("r", "chat", after), args...)
		plan, _, _ := strings.Cut(out, "\n")
		if !ok || !strings.HasPrefix(plan, "Warning: ") {
			t.Errorf("%v: it prints\n%s", args, out)
		}
		for _, word := range []string{"chat", "50 %", "one.example.com", "two.example.com"} {
			if !strings.Contains(plan, word) {
				t.Errorf("%v: the plan does not speak of %s: %s", args, word, plan)
			}
		}
	}
	in.accepted(t, routeNamed("r", "chat", after), "unchanged")
	if out := in.kubectl(t, "", "-n", in.namespace, "delete", "llmroute", "r", "--dry-run=server"); !strings.Contains(out, "Warning: ") || !strings.Contains(out, "chat") {
		t.Errorf("a delete: it prints\n%s", out)
	}
}

func whoHasAHostKeepsIt(in *admitted) {
	t := in.t
	in.accepted(t, providerNamed("owner", "llm.example.com"), "created")
	// Its name is the lesser one, and its second may be the same.
	in.refused(t, providerNamed("a-rival", "LLM.example.com"), `spec.host: "LLM.example.com" has a provider already, LLMProvider `+in.namespace+`/owner, which is older`)
	in.accepted(t, providerNamed("a-rival", "other.example.com"), "created")
	in.refused(t, providerNamed("a-rival", "llm.example.com"), "(HostConflict)")
	in.accepted(t, strings.Replace(providerNamed("owner", "llm.example.com"), "}\n---", ", path: /api/chat/completions}\n---", 1), "configured")
}

func twoAtOnce(in *admitted) {
	t := in.t
	for round := range 5 {
		host := fmt.Sprintf("llm-%d.example.com", round)
		var all sync.WaitGroup
		var created [2]bool
		var outs [2]string
		for i := range created {
			all.Go(func() {
				outs[i], created[i] = in.apply(t, providerNamed(fmt.Sprintf("p-%d-%d", round, i), host))
			})
		}
		all.Wait()
		for i, ok := range created {
			if !ok && (!created[1-i] || !strings.Contains(outs[i], "(HostConflict)")) {
				t.Errorf("not created: %s", outs[i])
			}
		}
		if created[0] && created[1] { // neither was seen when the other was judged: the status tells who lost
			in.kubectl(t, "", "-n", in.namespace, "wait", "--timeout=30s", "--for=condition=Accepted", fmt.Sprintf("llmprovider/p-%d-0", round))
			in.kubectl(t, "", "-n", in.namespace, "wait", "--timeout=30s", "--for=condition=Accepted=False", fmt.Sprintf("llmprovider/p-%d-1", round))
		}
	}
}

func whatAnEditDoesToOthers(in *admitted) {
	t := in.t
	in.accepted(t, providerNamed("p", "llm.example.com"), "created")
	in.accepted(t, routeNamed("r", "chat", "{backendRefs: [{providerHost: llm.example.com, hostRewrite: inner.example.com}]}"), "created")
	withKey := strings.Replace(providerNamed("p", "llm.example.com"), "}\n---", ", configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: keys}}}}}\n---", 1)
	in.accepted(t, withKey, "Warning: this makes LLMRoute "+in.namespace+"/r invalid: spec.rules[0].backendRefs[0].hostRewrite: LLMProvider "+in.namespace+"/p sends a key with these calls, which must reach no other host: remove hostRewrite (InvalidValue)\n")
	in.accepted(t, providerNamed("q", "gone.example.com")+routeNamed("r1", "one", "{backendRefs: [{providerHost: gone.example.com}]}")+routeNamed("r2", "two", "{backendRefs: [{providerHost: gone.example.com}]}"), "created")
	if out := in.kubectl(t, "", "-n", in.namespace, "delete", "llmprovider", "q"); !strings.Contains(out, "Warning: LLMRoute "+in.namespace+"/r1: spec.rules[0].backendRefs[0].providerHost: ") || !strings.Contains(out, "(ProviderNotFound); and 1 more like this\n") {
		t.Errorf("it prints\n%s", out)
	}
}

func aProviderThatIsExported(in *admitted) {
	t := in.t
	shared := func(to string) string {
		return strings.Replace(providerNamed("shared", "shared.example.com"), "}\n---", ", exportTo: ["+to+"], configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: keys}}}}}\n---", 1)
	}
	route := func(more string) string {
		return routeNamed("r", "chat", "{backendRefs: [{providerHost: shared.example.com"+more+"}]}")
	}
	in.refused(t, shared("other"), "spec.exportTo: only providers of namespace remora-system are exported")
	installation := &admitted{in.Installation, t, v1beta1.InstallationNamespace}
	installation.accepted(t, shared(in.namespace), "created")
	// The webhook hears of it by a watch.
	for {
		out, ok := in.apply(t, route(""), "--dry-run=server")
		if !ok {
			t.Fatal(out)
		}
		if !strings.Contains(out, "ProviderNotFound") {
			break
		}
	}
	in.refused(t, route(", hostRewrite: evil.example.com"), "LLMProvider remora-system/shared sends a key with these calls, which must reach no other host")
	in.accepted(t, route(""), "created")
	const loss = "Warning: LLMRoutes of other namespaces (1) use this provider for shared.example.com, and have none for it after this: a-provider-that-is-exported;"
	installation.accepted(t, shared("other"), loss, "--dry-run=server")
	if out := in.kubectl(t, "", "-n", v1beta1.InstallationNamespace, "delete", "llmprovider", "shared"); !strings.Contains(out, loss) {
		t.Errorf("it prints\n%s", out)
	}
}

// Without its right to ask, the webhook lets no key go anywhere new; what moves none goes on.
func nobodySaysWhatAuthorsMayRead(in *admitted) {
	t := in.t
	withKey := func(host string) string {
		return strings.Replace(providerNamed("p", host), "}\n---", ", configs: {defaultConfig: {openAIConfig: {apiKeyRef: {name: keys}}}}}\n---", 1)
	}
	in.accepted(t, withKey("llm.example.com"), "created")
	in.kubectl(t, "", "patch", "clusterrole", v1beta1.WebhookName, "--type=json", "-p", `[{"op":"test","path":"/rules/7/resources","value":["subjectaccessreviews"]},{"op":"remove","path":"/rules/7"}]`)
	for { // the authorizer hears of it by a watch
		out, ok := in.apply(t, withKey("evil.example.com"), "--dry-run=server")
		if ok {
			continue
		}
		if !strings.Contains(out, "what admin may read, so try again: subjectaccessreviews.authorization.k8s.io is forbidden") {
			t.Errorf("it prints\n%s", out)
		}
		break
	}
	in.refused(t, withKey("evil.example.com"), "it could not be judged")
	in.accepted(t, withKey("llm.example.com"), "unchanged")
	in.kubectl(t, "", "-n", in.namespace, "label", "llmprovider", "p", "touched=yes")
	in.kubectl(t, "", "patch", "clusterrole", v1beta1.WebhookName, "--type=json", "-p", `[{"op":"add","path":"/rules/-","value":{"apiGroups":["authorization.k8s.io"],"resources":["subjectaccessreviews"],"verbs":["create"]}}]`)
	for ok := false; !ok; {
		_, ok = in.apply(t, withKey("other.example.com"))
	}
}

func TestWhatCannotBeJudgedIsNotLetIn(t *testing.T) {
	raw := runtime.RawExtension{Raw: []byte(`{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMProvider","metadata":{"name":"p","namespace":"ns"},"spec":{"host":"llm.example.com"}}`)}
	for name, namespace := range map[string]func(string) ([]*object, error){
		"not read yet": func(string) ([]*object, error) { return nil, errors.New("not all have been read yet") },
		"a fault":      func(string) ([]*object, error) { panic("secret") },
	} {
		r := &resources{namespace: namespace}
		create := r.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Operation: admissionv1.Create, Object: raw}})
		if create.Allowed || create.Result.Code != http.StatusInternalServerError || strings.Contains(create.Result.Message, "secret") {
			t.Errorf("%s: create: %+v", name, create)
		}
		remove := r.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Operation: admissionv1.Delete, OldObject: raw}})
		if !remove.Allowed || len(remove.Warnings) != 1 {
			t.Errorf("%s: delete: %+v", name, remove)
		}
	}
}

// Whoever reaches the webhook can send what no API server would.
func TestWhatIsNoObjectIsNeitherShownNorReadAtAnyCost(t *testing.T) {
	r := &resources{namespace: func(string) ([]*object, error) { return nil, nil }}
	for want, object := range map[string]string{
		"it could not be judged: it is not a Kubernetes object":    `{"apiVersion":"istio.alibabacloud.com/v1beta1","spec":{"apiKey":"sk-0123456789"}}`,
		"it could not be judged: it holds more than 250000 values": `{"apiVersion":"istio.alibabacloud.com/v1beta1","kind":"LLMRoute","spec":{"rules":[` + strings.Repeat("{},", 300_000) + `{}]}}`,
	} {
		answer := r.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: []byte(object)}}})
		if answer.Allowed || answer.Result.Message != want {
			t.Errorf("the answer is %+v, want %q", answer.Result, want)
		}
	}
}

func TestWarningsFitIntoTheRoomThatTheAPIServerHas(t *testing.T) {
	if got := presentable([]string{"one\ntwo", strings.Repeat("long ", 100)}); got[0] != "one two" || len(got[1]) != 500 {
		t.Errorf("where there is room: %q", got)
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("%d %s", i, strings.Repeat("é", 400)))
	}
	got, total := presentable(many), 0
	for _, w := range got {
		total += utf8.RuneCountInString(w)
	}
	if last := got[len(got)-1]; !strings.HasPrefix(got[0], "0 é") || total > 4096 || total < 3000 || last != fmt.Sprintf("and %d more warnings", 101-len(got)) {
		t.Errorf("%d characters, the last of them %q", total, last)
	}
}
