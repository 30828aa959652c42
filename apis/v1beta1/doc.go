// Package v1beta1 is what users write: LLMProvider and LLMRoute of the group istio.alibabacloud.com.
//
// The group, the kinds and the fields of Alibaba Cloud Service Mesh are kept as they are, so that its
// manifests work unchanged. Fields that Remora adds say so in their comments. The package imports
// nothing but k8s.io/apimachinery: everything else in the project may depend on it.
//
// The schema has no pattern for text in which a user may by mistake write a key (hosts, paths, the key
// itself): the API server shows what does not match a pattern. The webhook judges these, and shows none.
//
// +kubebuilder:object:generate=true
// +groupName=istio.alibabacloud.com
package v1beta1
