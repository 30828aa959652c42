package istio

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DestinationRule is Istio's kind of that name.
type DestinationRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              DestinationRuleSpec `json:"spec,omitempty"`
	Remarks           Remarks             `json:"-"`
}

// DestinationRuleSpec is what is honoured of it.
type DestinationRuleSpec struct{}
