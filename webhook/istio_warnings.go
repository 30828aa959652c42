package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/sidecar/routing"
)

// istioPath is where the API server asks about Istio's objects.
const istioPath = "/warn-istio"

// warnTime is how long a write of an object that is another program's too may wait for warnings. The API server waits for 2 seconds.
const warnTime = time.Second

// istioWarner warns of what Remora will make of a VirtualService, DestinationRule or Gateway that it executes. It refuses none: they are
// not its own, and whoever runs Istio must be able to write what only Istio understands.
type istioWarner struct {
	around    *surroundings
	namespace func(name string) ([]*object, error) // LLMProviders and LLMRoutes
	all       func() ([]*object, error)
	gateways  func() []routing.Workload
	turn      chan struct{} // one at a time: everything in the cluster has a say in what a gateway does
}

// Handle answers one admission request: always yes.
func (w *istioWarner) Handle(ctx context.Context, req admission.Request) (answer admission.Response) {
	answer = admission.Allowed("")
	defer func() {
		if p := recover(); p != nil {
			log.FromContext(ctx).Error(fmt.Errorf("panic: %v", p), "an object could not be judged", "stack", string(debug.Stack()))
			answer = admission.Allowed("")
		}
	}()
	candidate := candidateOf(&req)
	if candidate == nil || !w.around.known() {
		return answer
	}
	ctx, cancel := context.WithTimeout(ctx, warnTime)
	defer cancel()
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return answer
	}
	problems, err := w.problems(candidate)
	if err != nil {
		log.FromContext(ctx).Info("an object of Istio's could not be judged", "reason", err.Error())
		return answer
	}
	words := worded(problems)
	for i := range words {
		words[i] = "Remora: " + words[i]
	}
	return answer.WithWarnings(presentable(words)...)
}

// candidateOf gives what a request would make of an object; nil where that is not to be judged: an object that goes, or whose
// specification stays.
func candidateOf(req *admission.Request) *thing {
	if req.Operation == admissionv1.Delete || len(req.Object.Raw) == 0 {
		return nil
	}
	var now, old unstructured.Unstructured
	if json.Unmarshal(req.Object.Raw, &now.Object) != nil {
		return nil
	}
	if len(req.OldObject.Raw) > 0 && json.Unmarshal(req.OldObject.Raw, &old.Object) == nil &&
		equality.Semantic.DeepEqual(old.Object["spec"], now.Object["spec"]) && equality.Semantic.DeepEqual(old.GetAnnotations(), now.GetAnnotations()) {
		return nil
	}
	switch now.GetKind() {
	case istio.KindVirtualService, istio.KindDestinationRule, istio.KindGateway:
	default:
		return nil
	}
	if now.GetNamespace() == "" {
		now.SetNamespace(req.Namespace)
	}
	if now.GetName() == "" { // its name is to be made
		now.SetName(now.GetGenerateName())
	}
	if created := now.GetCreationTimestamp(); created.IsZero() {
		now.SetCreationTimestamp(metav1.Now()) // it is the newest
	}
	return newThing(&now)
}

// problems gives those of a candidate as it would be executed; none where nobody would.
func (w *istioWarner) problems(candidate *thing) ([]routing.Problem, error) {
	with := func(things []*thing) []*thing {
		others := slices.DeleteFunc(things, func(t *thing) bool { return t.ref == candidate.ref })
		return append(others, candidate)
	}
	x := newExecution()
	if candidate.ref.Kind != istio.KindGateway {
		objects, err := w.namespace(candidate.Namespace)
		if err != nil {
			return nil, err
		}
		in := together(objects, nil)
		addTo(&in, with(w.around.in(candidate.Namespace)))
		x.add(in, nil)
	}
	if workloads := w.gateways(); len(workloads) > 0 {
		objects, err := w.all()
		if err != nil {
			return nil, err
		}
		in := together(objects, nil)
		addTo(&in, with(w.around.all()))
		for i := range workloads {
			x.add(in, &workloads[i])
		}
	}
	// Which Secrets there are is not for this process to know.
	return slices.DeleteFunc(x.problems[candidate.ref], func(p routing.Problem) bool {
		return p.Code == routing.CertificateNotFound || p.Code == routing.SecretNotFound || p.Code == routing.SecretInvalid
	}), nil
}
