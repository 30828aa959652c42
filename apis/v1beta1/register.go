package v1beta1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of both kinds.
var GroupVersion = schema.GroupVersion{Group: "istio.alibabacloud.com", Version: "v1beta1"}

// The kinds of the group.
const (
	KindLLMProvider = "LLMProvider"
	KindLLMRoute    = "LLMRoute"
)

// AddToScheme registers both kinds, and their lists, with a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &LLMProvider{}, &LLMProviderList{}, &LLMRoute{}, &LLMRouteList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
