package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"remora.dev/remora/injector"
)

func refusing(status metav1.Status) admission.Response {
	return admission.Response{AdmissionResponse: admissionv1.AdmissionResponse{Result: &status}}
}

// forbidden refuses a pod by a decision, which says the remedy.
func forbidden(q question, d injector.Decision) admission.Response {
	words := plain(d.Message)
	status := apierrors.NewForbidden(corev1.Resource("pods"), plain(q.title()), errors.New(words)).ErrStatus
	status.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseType(d.Code), Field: d.Path().String(), Message: words}}
	return refusing(status)
}

// unavailable refuses a pod for a reason that is not its own, for now.
func unavailable(q question, err error) admission.Response {
	return refusing(metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable,
		Message: plain(fmt.Sprintf("pod %q cannot get its sidecar: %v", q.title(), err)),
	})
}

// roomForFault bounds what is said of one fault: a value may be as long as the pod.
const roomForFault = 1000

// invalid refuses a pod for its faults: all of them, each with its field.
func invalid(q question, faults field.ErrorList) admission.Response {
	status := apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind(), plain(q.title()), nil).ErrStatus
	more := len(faults) - maxFaults
	var words []string
	for _, fault := range faults[:min(len(faults), maxFaults)] {
		words = append(words, shortened(plain(fault.Error())))
		status.Details.Causes = append(status.Details.Causes, metav1.StatusCause{
			Type: metav1.CauseType(fault.Type), Field: plain(fault.Field), Message: shortened(plain(fault.ErrorBody())),
		})
	}
	if more > 0 {
		words = append(words, fmt.Sprintf("and %d more", more))
	}
	status.Message = fmt.Sprintf("Pod %q is invalid: %s", plain(q.title()), strings.Join(words, "; "))
	return refusing(status)
}

func shortened(words string) string {
	if runes := []rune(words); len(runes) > roomForFault {
		return string(runes[:roomForFault/2]) + " … " + string(runes[len(runes)-roomForFault/2:]) // the remedy is at the end
	}
	return words
}

// podCounter gives the metric of what became of pods.
func podCounter() (*prometheus.CounterVec, error) {
	return counter("remora_admission_pods_total", "Pods that were to be created and were asked about, by verdict (Inject, Skip, Deny, Ignore) and code.", "verdict", "code")
}
