package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// resources judges LLMProviders and LLMRoutes at admission.
//
// It reads requests itself, and not through a typed validator: that one refuses what it cannot decode, and so an object
// that does not fit the Go types (one that was let in by another CRD) could be neither corrected nor deleted.
type resources struct {
	namespace func(name string) ([]*object, error) // all objects of a namespace, and what is exported to it
	around    *surroundings                        // may be nil
	users     func(host string) ([]string, error)  // namespaces that name a host and have no provider for it
	permits   *permits
	denied    *prometheus.CounterVec // by kind and code
}

// Handle answers one admission request. What keeps it from judging is an internal error, so nothing is let in unjudged;
// a delete, which would be let through in any case, is let through.
func (r *resources) Handle(ctx context.Context, req admission.Request) (answer admission.Response) {
	defer func() {
		if p := recover(); p != nil {
			log.FromContext(ctx).Error(fmt.Errorf("panic: %v", p), "an object could not be judged", "stack", string(debug.Stack()))
			answer = unjudged(&req, errors.New("there is a fault in the webhook; its log says more"))
		}
	}()
	c, err := changeOf(&req)
	if err != nil {
		log.FromContext(ctx).Info("an object could not be read", "reason", err.Error())
		return unjudged(&req, err)
	}
	all, err := r.namespace(req.Namespace)
	if err != nil {
		log.FromContext(ctx).Error(err, "an object could not be judged")
		return unjudged(&req, err)
	}
	var others []*object
	for _, o := range all {
		if o.ref != c.ref() {
			others = append(others, o)
		}
	}
	c.around = r.around.with(req.Namespace, all, c.after)
	v := judge(others, c)
	if len(v.denied) == 0 {
		missing, err := r.permits.missing(ctx, &req.UserInfo, c.ref(), needsOf(&c))
		if err != nil {
			log.FromContext(ctx).Error(err, "the rights of an author are not known")
			return unjudged(&req, err)
		}
		if len(missing) > 0 {
			v = verdict{denied: missing}
		}
	}
	if loss, err := lossOf(&c, r.users); err != nil {
		log.FromContext(ctx).Error(err, "who uses an exported provider is not known")
		return unjudged(&req, err)
	} else if loss != "" && len(v.denied) == 0 {
		v.warnings = append([]string{loss}, v.warnings...)
	}
	for _, p := range v.denied {
		r.denied.WithLabelValues(p.Object.Kind, string(p.Code)).Inc()
	}
	return answerOf(c, v)
}

// changeOf reads what a request asks for. The old version is the API server's own, which is newer than ours.
func changeOf(req *admission.Request) (change, error) {
	old, before, err := readObject(req.OldObject)
	if err != nil {
		return change{}, err
	}
	now, after, err := readObject(req.Object)
	if err != nil {
		return change{}, err
	}
	c := change{before: before, after: after}
	switch {
	case before == nil && after == nil:
		return change{}, errors.New("the request holds no object")
	case before != nil && after != nil:
		c.sameSpec = equality.Semantic.DeepEqual(old.Object["spec"], now.Object["spec"])
	}
	return c, nil
}

// maxValues bounds the memory that reading an object takes: some kilobyte for each value. What etcd takes, and the schema, has
// fewer; but not only an API server can ask here.
const maxValues = 250_000

func readObject(raw runtime.RawExtension) (*unstructured.Unstructured, *object, error) {
	if len(raw.Raw) == 0 {
		return nil, nil, nil
	}
	if bytes.Count(raw.Raw, []byte{','}) > maxValues {
		return nil, nil, fmt.Errorf("it holds more than %d values", maxValues)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw.Raw); err != nil {
		return nil, nil, errors.New("it is not a Kubernetes object") // the reason would show the whole of it
	}
	if kind := u.GetKind(); kind != v1beta1.KindLLMProvider && kind != v1beta1.KindLLMRoute {
		return nil, nil, fmt.Errorf("%s is not judged here: correct the rules of the ValidatingWebhookConfiguration", kind)
	}
	return u, newObject(u), nil
}

func unjudged(req *admission.Request, err error) admission.Response {
	if req.Operation == admissionv1.Delete {
		return admission.Allowed("").WithWarnings("what this delete changes is not known: " + err.Error())
	}
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{Result: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
		Message: "it could not be judged: " + err.Error(),
	}}}
}

func answerOf(c change, v verdict) admission.Response {
	answer := admission.Allowed("")
	if len(v.denied) > 0 {
		status := refusal(c.after, v.denied)
		answer = admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{Result: &status}}
	}
	return answer.WithWarnings(presentable(v.warnings)...)
}

// maxFaults bounds a refusal. Who has corrected so many sees the rest.
const maxFaults = 64

// refusal words the faults of an object as the API server does its own: all of them, by field. kubectl shows the causes as
// a list. The words are those of status and `sidecar check`.
func refusal(o *object, faults []routing.Problem) metav1.Status {
	status := apierrors.NewInvalid(o.kind(), o.ref.Name, nil).ErrStatus
	more := len(faults) - maxFaults
	faults = faults[:min(len(faults), maxFaults)]
	var words []string
	for _, p := range faults {
		words = append(words, plain(p.String()))
		whole := p
		whole.Field = ""
		status.Details.Causes = append(status.Details.Causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: plain(p.Field), Message: plain(whole.String())})
	}
	if more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
		status.Details.Causes = append(status.Details.Causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Message: words[maxFaults]})
	}
	what := "is invalid"
	if faults[0].Code == routing.KeyNotPermitted {
		what, status.Code, status.Reason = "is not permitted", http.StatusForbidden, metav1.StatusReasonForbidden
	}
	status.Message = fmt.Sprintf("%s %q %s: %s", o.kind(), o.ref.Name, what, strings.Join(words, "; "))
	return status
}

// The API server shows 4096 characters of warnings, of all webhooks together. Beyond that it cuts each after 256.
const (
	roomForWarnings = 3800
	roomForWarning  = 256
)

// presentable brings warnings into the form and the room that the API server has for them. By itself, that drops what has
// control characters and what there is no room for, without a word.
func presentable(warnings []string) []string {
	total := 0
	for i, w := range warnings {
		warnings[i] = plain(w)
		total += utf8.RuneCountInString(warnings[i])
	}
	if total <= roomForWarnings {
		return warnings
	}
	var shown []string
	left := roomForWarnings
	for i, w := range warnings {
		if runes := []rune(w); len(runes) > roomForWarning {
			w = string(runes[:roomForWarning-1]) + "…"
		}
		if left -= utf8.RuneCountInString(w); left < 0 {
			return append(shown, fmt.Sprintf("and %d more warnings", len(warnings)-i))
		}
		shown = append(shown, w)
	}
	return shown
}
