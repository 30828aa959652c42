package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"
)

// authorizer says what may be read, and keeps what it was asked.
type authorizer struct {
	readable []string // "secrets a", "llmproviders p"
	answer   func(context.Context) (authorizationv1.SubjectAccessReviewStatus, error)

	mu    sync.Mutex
	asked []authorizationv1.SubjectAccessReviewSpec
}

func (a *authorizer) review(ctx context.Context, r *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
	a.mu.Lock()
	a.asked = append(a.asked, r.Spec)
	a.mu.Unlock()
	about := r.Spec.ResourceAttributes
	r.Status.Allowed = slices.Contains(a.readable, about.Resource+" "+about.Name)
	if a.answer != nil {
		status, err := a.answer(ctx)
		r.Status = status
		return r, err
	}
	return r, nil
}

func (a *authorizer) resources() *resources {
	return &resources{
		namespace: func(string) ([]*object, error) { return nil, nil }, permits: &permits{review: a.review, patience: time.Minute},
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "denials"}, []string{"kind", "code"}),
	}
}

// write gives the request for a provider whose spec was before, where there was one, and becomes after.
func write(t *testing.T, author authenticationv1.UserInfo, before, after string) admission.Request {
	t.Helper()
	raw := func(spec string) runtime.RawExtension {
		doc, err := yaml.YAMLToJSON([]byte("{apiVersion: istio.alibabacloud.com/v1beta1, kind: LLMProvider, metadata: {namespace: ns, name: p}, spec: {" + spec + "}}"))
		if err != nil {
			t.Fatal(err)
		}
		return runtime.RawExtension{Raw: doc}
	}
	req := admissionv1.AdmissionRequest{Operation: admissionv1.Create, Namespace: "ns", Name: "p", UserInfo: author, Object: raw(after)}
	if before != "" {
		req.Operation, req.OldObject = admissionv1.Update, raw(before)
	}
	return admission.Request{AdmissionRequest: req}
}

var alice = authenticationv1.UserInfo{Username: "alice", UID: "7", Groups: []string{"team-a"}, Extra: map[string]authenticationv1.ExtraValue{"scopes": {"x"}}}

func TestTheAPIServerIsAskedAboutTheAuthorAsSheIs(t *testing.T) {
	a := &authorizer{readable: []string{"secrets a"}}
	if answer := a.resources().Handle(t.Context(), write(t, alice, "", "host: h.example.com, "+refA)); !answer.Allowed {
		t.Errorf("refused: %+v", answer.Result)
	}
	want := []authorizationv1.SubjectAccessReviewSpec{{
		User: "alice", UID: "7", Groups: []string{"team-a"}, Extra: map[string]authorizationv1.ExtraValue{"scopes": {"x"}},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Version: "v1", Resource: "secrets", Namespace: "ns", Name: "a"},
	}}
	if !reflect.DeepEqual(a.asked, want) {
		t.Errorf("it was asked %+v", a.asked)
	}
}

func TestWhoMayNotReadAKeySendsItNowhere(t *testing.T) {
	const h = "host: h.example.com, "
	a := &authorizer{readable: []string{"secrets a"}}
	for _, c := range []struct{ before, after, want string }{
		{"", h + refsAB, `LLMProvider.istio.alibabacloud.com "p" is not permitted: spec.configs.defaultConfig.openAIConfig.apiKeyRefs[1]: Secret ns/b is not for alice to read, ` +
			`and this would send it to h.example.com: somebody who may read it has to apply this, or give alice the right to get it (KeyNotPermitted)`},
		{h + refB, "host: evil.example.com, port: 1, " + refB, `spec.configs.defaultConfig.openAIConfig.apiKeyRef: Secret ns/b is not for alice to read, ` +
			`and with another spec.host, spec.port it would go elsewhere, or in another way: `},
		{h + inline, "host: evil.example.com, " + inline, `spec.configs.defaultConfig.openAIConfig.apiKey: the key that is written here is not for alice to read, ` +
			`and with another spec.host it would go elsewhere, or in another way: somebody who may read it has to apply this, or give alice the right to get this LLMProvider (KeyNotPermitted)`},
	} {
		answer := a.resources().Handle(t.Context(), write(t, alice, c.before, c.after))
		if answer.Allowed || answer.Result.Code != http.StatusForbidden || answer.Result.Reason != "Forbidden" || !strings.Contains(answer.Result.Message, c.want) {
			t.Errorf("the answer is %+v\nwant %s", answer.Result, c.want)
		}
		if len(answer.Warnings) > 0 || strings.Contains(answer.Result.Message, "sk-") {
			t.Errorf("the answer says too much: %+v", answer)
		}
	}
}

func TestWhatIsRefusedAnywayOrMovesNoKeyAsksNothing(t *testing.T) {
	a := &authorizer{}
	for _, c := range []struct {
		before, after string
		allowed       bool
	}{
		{"", "host: h.example.com", true},
		{"host: h.example.com, " + refA, "host: h.example.com, path: /v1/chat/completions, " + refA, true},
		{"", "host: h.example.com, path: /../x, " + refA, false},
		{"", "host: h.example.com, exportTo: [shop], " + refA, false},
	} {
		if answer := a.resources().Handle(t.Context(), write(t, alice, c.before, c.after)); answer.Allowed != c.allowed {
			t.Errorf("%s: %+v", c.after, answer.Result)
		}
	}
	if len(a.asked) > 0 {
		t.Errorf("it was asked %+v", a.asked)
	}
}

func TestAnAnswerThatDoesNotComeLetsNothingIn(t *testing.T) {
	type status = authorizationv1.SubjectAccessReviewStatus
	for want, a := range map[string]*authorizer{
		"connection refused":    {answer: func(context.Context) (status, error) { return status{Allowed: true}, errors.New("connection refused") }},
		"an authorizer is away": {answer: func(context.Context) (status, error) { return status{EvaluationError: "an authorizer is away"}, nil }},
		"deadline exceeded": {answer: func(ctx context.Context) (status, error) {
			<-ctx.Done()
			return status{}, ctx.Err()
		}},
	} {
		r := a.resources()
		if want == "deadline exceeded" {
			r.permits.patience = time.Millisecond
		}
		answer := r.Handle(t.Context(), write(t, alice, "", "host: h.example.com, "+refA))
		if answer.Allowed || answer.Result.Code != http.StatusInternalServerError || !strings.Contains(answer.Result.Message, "alice may read, so try again: ") || !strings.Contains(answer.Result.Message, want) {
			t.Errorf("%s: %+v", want, answer.Result)
		}
	}
	// An authorizer that says no, and one that says yes and no.
	for _, s := range []status{{Denied: true, EvaluationError: "odd"}, {Allowed: true, Denied: true}} {
		a := &authorizer{answer: func(context.Context) (status, error) { return s, nil }}
		if answer := a.resources().Handle(t.Context(), write(t, alice, "", "host: h.example.com, "+refA)); answer.Allowed || answer.Result.Code != http.StatusForbidden {
			t.Errorf("%+v: %+v", s, answer.Result)
		}
	}
}

// Of a thousand Secrets, a few are asked about at a time, and after the first that fails no other one.
func TestManySecretsAreAskedAboutAFewAtATimeAndNotAfterAFailure(t *testing.T) {
	var rules strings.Builder
	for rule := range 100 {
		fmt.Fprintf(&rules, "r%d: {openAIConfig: {apiKeyRefs: [", rule)
		for i := range 10 {
			fmt.Fprintf(&rules, "{name: s%d},", rule*10+i)
		}
		rules.WriteString("]}},")
	}
	spec := "host: h.example.com, configs: {routeSpecificConfigs: {" + rules.String() + "}}"
	type status = authorizationv1.SubjectAccessReviewStatus
	var now, most, total atomic.Int64
	a := &authorizer{answer: func(context.Context) (status, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if total.Add(1) == 1001 {
			return status{}, errors.New("too many requests")
		}
		return status{Allowed: true}, nil
	}}
	if answer := a.resources().Handle(t.Context(), write(t, alice, "", spec)); !answer.Allowed || total.Load() != 1000 || most.Load() > writesAtOnce {
		t.Errorf("%+v; %d questions, %d at a time", answer.Result, total.Load(), most.Load())
	}
	if answer := a.resources().Handle(t.Context(), write(t, alice, "", spec)); answer.Allowed || total.Load() > 1000+2*writesAtOnce {
		t.Errorf("%+v; %d questions", answer.Result, total.Load())
	}
	denied := (&authorizer{}).resources().Handle(t.Context(), write(t, alice, "", spec))
	if denied.Allowed || !strings.HasSuffix(denied.Result.Message, "; and 936 more") {
		t.Errorf("%+v", denied.Result)
	}
}
