package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"remora.dev/remora/injector"
)

// Where the API server asks about pods: to have them changed, and, after everybody has, whether they may be.
const (
	injectPath   = "/inject"
	judgePodPath = "/judge-pod"
)

// askTime is how long the API server may take to answer a question of ours. It waits five seconds for our own answer.
const askTime = 3 * time.Second

// Codes of what becomes of a pod, beside those of decisions.
const (
	notUnderstood injector.Code = "NotUnderstood" // Deny: an annotation
	refused       injector.Code = "Refused"       // Deny: by the last judgement
	noSettings    injector.Code = "NoSettings"    // Deny: nobody has said what is to be injected
)

// pods gives pods their sidecars, and judges them. It changes nothing else, anywhere: that is what sideEffects: None promises.
type pods struct {
	decoder    admission.Decoder
	namespaces *namespaces
	settings   *settings
	decided    *prometheus.CounterVec // by verdict and code
}

func newPods(n *namespaces, s *settings) (*pods, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	decided, err := podCounter()
	return &pods{decoder: admission.NewDecoder(scheme), namespaces: n, settings: s, decided: decided}, err
}

// handler gives the two ways to ask. They have a lane of their own: a pod does not wait behind a large LLMRoute.
func (p *pods) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(injectPath, &admission.Webhook{Handler: p.sure(p.inject)})
	mux.Handle(judgePodPath, &admission.Webhook{Handler: p.sure(p.judge)})
	return newLanes(mux)
}

// question is a pod that is about to be created, where.
type question struct {
	*admission.Request
	pod *corev1.Pod // its namespace is the request's: it may say none itself
}

// sure answers where what is within cannot: with an error, so that nothing is let in unjudged.
func (p *pods) sure(answer func(context.Context, question) (admission.Response, error)) admission.HandlerFunc {
	return func(ctx context.Context, req admission.Request) (response admission.Response) {
		defer func() {
			if r := recover(); r != nil {
				log.FromContext(ctx).Error(fmt.Errorf("panic: %v", r), "a pod could not be judged", "stack", string(debug.Stack()))
				response = unjudged(&req, errors.New("there is a fault in the webhook; its log says more"))
			}
		}()
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		q := question{&req, &corev1.Pod{}}
		err := errors.New("only the creation of pods is judged here: correct the rules of the webhook configurations")
		if req.Operation == admissionv1.Create && req.Kind.Kind == "Pod" && req.SubResource == "" {
			if err = p.decoder.DecodeRaw(req.Object, q.pod); err == nil {
				q.pod.Namespace = req.Namespace
				response, err = answer(ctx, q)
			}
		}
		if err != nil {
			log.FromContext(ctx).Error(err, "a pod could not be judged")
			return unjudged(&req, err)
		}
		return response
	}
}

// decide is the decision on a pod. The API server asks only about pods that somebody wants a sidecar for, or that ask
// themselves. So where the labels of a namespace as they are known here say that it takes no sidecar, or refuse the pod, they may be
// old, and the API server has the last word.
func (p *pods) decide(ctx context.Context, q question) (injector.Namespace, injector.Decision, error) {
	if ns, ok := p.namespaces.known(q.Namespace); ok {
		if d := injector.Decide(q.pod, ns); d.Verdict == injector.VerdictInject || d.Verdict == injector.VerdictSkip {
			return ns, d, nil
		}
	}
	ns, err := p.namespaces.live(ctx, q.Namespace)
	if err != nil {
		return ns, injector.Decision{}, err
	}
	return ns, injector.Decide(q.pod, ns), nil
}

// inject answers the first question: what the pod is to become.
func (p *pods) inject(ctx context.Context, q question) (admission.Response, error) {
	_, d, err := p.decide(ctx, q)
	if err != nil {
		return admission.Response{}, err
	}
	switch d.Verdict {
	case injector.VerdictDeny:
		p.count(q, d.Verdict, d.Code)
		return forbidden(q, d), nil
	case injector.VerdictSkip:
		answer, err := changed(q, injector.Mark(q.pod, d))
		return answer.WithWarnings(presentable([]string{d.Message})...), err
	case injector.VerdictInject:
		s, err := p.settings.current()
		if err != nil {
			p.count(q, injector.VerdictDeny, noSettings)
			return unavailable(q, err), nil
		}
		after, faults := injector.Inject(q.pod, s)
		if len(faults) > 0 {
			p.count(q, injector.VerdictDeny, notUnderstood)
			return invalid(q, faults), nil
		}
		return changed(q, after)
	default:
		return admission.Allowed(""), nil
	}
}

// changed lets a pod in as it is after a change.
func changed(q question, after *corev1.Pod) (admission.Response, error) {
	patch, err := patchOf(q.Object.Raw, q.pod, after)
	if err != nil {
		return admission.Response{}, err
	}
	answer := admission.Allowed("")
	if patch != nil {
		answer.Patch, answer.PatchType = patch, ptr.To(admissionv1.PatchTypeJSONPatch)
	}
	return answer, nil
}

// judge answers the last question: whether the pod may be, as everybody's changes have left it.
func (p *pods) judge(ctx context.Context, q question) (admission.Response, error) {
	ns, d, err := p.decide(ctx, q)
	if err != nil {
		return admission.Response{}, err
	}
	if d.Verdict == injector.VerdictDeny {
		p.count(q, d.Verdict, d.Code)
		return forbidden(q, d), nil
	}
	recent := p.settings.recent()
	if d.Verdict != injector.VerdictInject {
		recent = []injector.Settings{{}} // they make no difference
	}
	for _, s := range recent {
		if len(injector.Judge(q.pod, ns, s)) == 0 {
			p.count(q, d.Verdict, d.Code)
			return admission.Allowed(""), nil
		}
	}
	faults, err := p.faults(ctx, q)
	if err != nil {
		return admission.Response{}, err
	}
	if len(faults) > 0 {
		p.count(q, injector.VerdictDeny, refused)
		return invalid(q, faults), nil
	}
	p.count(q, d.Verdict, d.Code)
	return admission.Allowed(""), nil
}

// faults judges a pod by what the API server has now: a refusal must not be for what was true a moment ago.
func (p *pods) faults(ctx context.Context, q question) (field.ErrorList, error) {
	ns, err := p.namespaces.live(ctx, q.Namespace)
	if err != nil {
		return nil, err
	}
	s, err := p.settings.live(ctx)
	if err != nil {
		return nil, err
	}
	return injector.Judge(q.pod, ns, s), nil
}

// count counts each pod once: where it is refused, or at its last judgement. A dry run makes no pod.
func (p *pods) count(q question, v injector.Verdict, c injector.Code) {
	if !ptr.Deref(q.DryRun, false) {
		p.decided.WithLabelValues(string(v), string(c)).Inc()
	}
}

// title is what to call the pod: it may not have its name yet.
func (q question) title() string {
	switch {
	case q.pod.Name != "":
		return q.pod.Name
	case q.pod.GenerateName != "":
		return strings.TrimSuffix(q.pod.GenerateName, "-")
	}
	return q.Name
}
