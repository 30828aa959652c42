package istio

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// VirtualService is Istio's kind of that name.
type VirtualService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              VirtualServiceSpec `json:"spec,omitempty"`
	Remarks           Remarks            `json:"-"`
}

// VirtualServiceSpec is what is honoured of it.
type VirtualServiceSpec struct{}
