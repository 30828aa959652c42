package istio

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Gateway is Istio's kind of that name.
type Gateway struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              GatewaySpec `json:"spec,omitempty"`
	Remarks           Remarks     `json:"-"`
}

// GatewaySpec is what is honoured of it.
type GatewaySpec struct{}
