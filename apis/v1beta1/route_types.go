package v1beta1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LLMRoute says which provider answers the calls to a host, by the headers
// and the model of the call, the labels of the calling pod, and weights. The
// host may be a provider's own, or a name made up for the purpose (a Service
// without endpoints makes it resolvable).
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=llm,shortName=llmr
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=remora"
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.spec.host`,description="The name that apps call."
// +kubebuilder:printcolumn:name="Rules",type=string,JSONPath=`.status.rules`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`,description="Whether it is valid and in use."
// +kubebuilder:printcolumn:name="Resolved",type=string,JSONPath=`.status.conditions[?(@.type=="ResolvedRefs")].status`,description="Whether everything that it names exists."
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="False")].reason`,description="Why it is not accepted, or else which reference is not resolved."
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="False")].message`,description="What is wrong, and what to do."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type LLMRoute struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What calls it is for, and who answers them.
	Spec LLMRouteSpec `json:"spec"`
	// Whether it is in use, and if not, why. Written by Remora's controller.
	// +optional
	Status Status `json:"status,omitempty"`
}

// LLMRouteList is a list of LLMRoute.
//
// +kubebuilder:object:root=true
type LLMRouteList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LLMRoute `json:"items"`
}

// LLMRouteSpec says which provider answers the calls to a host.
type LLMRouteSpec struct {
	// The name that the app calls: no scheme, port, path or wildcard. A short
	// name also stands for its forms NAME.NAMESPACE, NAME.NAMESPACE.svc and
	// NAME.NAMESPACE.svc.cluster.local. Where two routes claim one host, the
	// older one keeps it, then the one with the lesser name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host"`

	// Where the route applies: "mesh" stands for the sidecars and is the default.
	// Every other word names an Istio Gateway, NAME of the same namespace or
	// NAMESPACE/NAME, whose servers take the calls to host.
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Gateways []string `json:"gateways,omitempty"`

	// The rules, in order: the first one that matches decides, whatever comes
	// after it. A rule without matches always matches, so it comes last. If none
	// matches, the call is answered 404.
	//
	// Subscribers get a rule of their own here, and the other calls are shared
	// out in halves:
	//
	//	rules:
	//	- name: vip-route
	//	  matches:
	//	  - headers:
	//	      user-type: {exact: subscriber}
	//	  backendRefs:
	//	  - providerHost: dashscope.aliyuncs.com
	//	- name: everybody-else
	//	  backendRefs:
	//	  - {providerHost: dashscope.aliyuncs.com, weight: 50}
	//	  - {providerHost: api.moonshot.cn, weight: 50}
	// +kubebuilder:validation:MaxItems=256
	// +optional
	Rules []LLMRule `json:"rules,omitempty"`
}

// LLMRule sends the calls that match to one of its backends.
//
// +kubebuilder:validation:XValidation:rule="self.backendRefs.all(b, has(b.weight)) || self.backendRefs.all(b, !has(b.weight))",message="give every backendRef a weight, or none"
type LLMRule struct {
	// The name of the rule. An LLMProvider may have a config of its own for it in
	// routeSpecificConfigs: another model or another key, for the calls that this
	// rule matched.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Name string `json:"name,omitempty"`

	// When the rule applies: if one of the entries matches, or if there are none.
	// All that one entry names must hold: entries mean "or", what stands in one
	// means "and".
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Matches []LLMRequestMatch `json:"matches,omitempty"`

	// The providers that answer. For each call, one is drawn by weight among
	// those of the lowest number of priority; those of the next number are there
	// for when these are missing or have failed.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	BackendRefs []LLMBackendRef `json:"backendRefs"`

	// Time limits. Without them an answer may take as long as it likes, as long
	// as something arrives from time to time. A duration is written like 30s, 5m
	// or 1m30s; 0s means no limit. An addition of Remora.
	// +optional
	Timeouts *Timeouts `json:"timeouts,omitempty"`

	// What is tried again, and how often. An attempt is only ever made while
	// nothing has reached the app. It goes to a backend that has not been tried
	// yet: of the same priority first, then of the next ones, then again from the
	// start. Without this, there are two more attempts, where no connection could
	// be made or the provider asked to come again soon. An addition of Remora.
	// +optional
	Retries *Retries `json:"retries,omitempty"`

	// What a call may measure. An addition of Remora.
	// +optional
	Limits *Limits `json:"limits,omitempty"`
}

// Limits are what a call may measure.
type Limits struct {
	// The size of a request's body in bytes, such as 512Ki or 64Mi, decompressed
	// where it is compressed; a larger one is answered 413. From 1Ki to 1Gi.
	// Default: 64Mi.
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:Pattern=`^[0-9]+(\.[0-9]+)?([kMG]|[KMG]i)?$`
	// +optional
	RequestBody *resource.Quantity `json:"requestBody,omitempty"`
}

// LLMRequestMatch is one way for a rule to match: all that it names must
// hold.
type LLMRequestMatch struct {
	// Request headers, by name in any case, and what their value must be:
	// user-type: {exact: subscriber}, or user-type: {} for any value. A header
	// that comes several times is matched with its values joined by ",".
	// +kubebuilder:validation:MaxProperties=32
	// +optional
	Headers map[string]StringMatch `json:"headers,omitempty"`

	// Labels that the calling pod must have, all of them, with exactly these
	// values.
	// +optional
	SourceLabels map[string]string `json:"sourceLabels,omitempty"`

	// Gateways through which the call came, as in spec.gateways; "mesh" stands for
	// the sidecars.
	// +kubebuilder:validation:MaxItems=32
	// +optional
	Gateways []string `json:"gateways,omitempty"`

	// The model that the app asked for, such as {prefix: gpt-4}. A call that
	// names no model has the empty one. An addition of Remora.
	// +optional
	Model *StringMatch `json:"model,omitempty"`
}

// StringMatch compares a value. At most one of its fields is given; {} means
// that the value is there, whatever it is.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.exact) && has(self.prefix)) && !(has(self.regex) && (has(self.exact) || has(self.prefix)))",message="give at most one of exact, prefix and regex"
type StringMatch struct {
	// The value is exactly this.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Exact *string `json:"exact,omitempty"`

	// The value begins with this.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Prefix *string `json:"prefix,omitempty"`

	// The whole value matches this regular expression (RE2 syntax).
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Regex *string `json:"regex,omitempty"`
}

// LLMBackendRef is one of the backends of a rule.
//
// +kubebuilder:validation:XValidation:rule="(has(self.providerHost) && size(self.providerHost) > 0) != has(self.backendRef)",message="give providerHost or backendRef: exactly one of them"
type LLMBackendRef struct {
	// The host of an LLMProvider of the same namespace. Where there is no such
	// provider, calls that fall to it go to the next priority, or are answered
	// 503.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ProviderHost string `json:"providerHost,omitempty"`

	// The share of this backend among those of the same priority. All backends of
	// a rule have one, or none has: then the shares are equal. 0 means no
	// traffic.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Weight *int32 `json:"weight,omitempty"`

	// 0 is used first. A higher number is used when every backend before it is
	// missing or failed. An addition of Remora.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	Priority int32 `json:"priority,omitempty"`

	// The Host header that the backend sees, in place of its own name. Refused
	// where a key is sent.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	HostRewrite string `json:"hostRewrite,omitempty"`

	// A Service or InferencePool of the cluster: calls go to its pods one by one, as
	// the DestinationRule for it says. No key is sent. An addition of Remora.
	// +optional
	BackendRef *BackendObjectReference `json:"backendRef,omitempty"`
}

// BackendObjectReference names a backend inside the cluster.
type BackendObjectReference struct {
	// The API group: empty for a Service, inference.networking.k8s.io for an
	// InferencePool.
	// +optional
	Group string `json:"group,omitempty"`
	// Service, which is the default, or InferencePool.
	// +optional
	Kind string `json:"kind,omitempty"`
	// The name.
	Name string `json:"name"`
	// The namespace. Default: that of the route. Sidecars reach no other; at a gateway
	// the Service has to be exported to the route's namespace, by the annotation
	// networking.istio.io/exportTo.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// The port of the Service; it may be left out where there is only one. Of an
	// InferencePool: one of its target ports; left out, all of them.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port *int32 `json:"port,omitempty"`
}

// Timeouts are the time limits of a rule. A duration is written like 30s, 5m
// or 1m30s; 0s means no limit.
type Timeouts struct {
	// From the arrival of the request to the end of the answer, attempts and
	// waits included. Default: no limit.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	// +optional
	Request *metav1.Duration `json:"request,omitempty"`

	// From the sending of the request, in each attempt, to the first byte of the
	// answer's body. Default: 10m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	// +optional
	FirstToken *metav1.Duration `json:"firstToken,omitempty"`

	// Between two pieces of the answer; noticed up to an eighth later. Default:
	// 5m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	// +optional
	Idle *metav1.Duration `json:"idle,omitempty"`
}

// RetryCondition is a reason to try again.
//
// +kubebuilder:validation:Enum=connect-failure;rate-limited;reset;gateway-error;5xx;first-token
type RetryCondition string

// The reasons to try again.
const (
	// RetryConnectFailure: no connection could be made within 10 seconds, TLS
	// included, so nothing was sent. On by default.
	RetryConnectFailure RetryCondition = "connect-failure"
	// RetryRateLimited: the provider answered 429 or 503. It is tried again where
	// another backend can take over, or where Retry-After asks for a wait of 5
	// seconds or less. On by default.
	RetryRateLimited RetryCondition = "rate-limited"
	// RetryReset: the connection ended before the answer began. The provider may
	// have billed it.
	RetryReset RetryCondition = "reset"
	// RetryGatewayError: the provider answered 502, 503 or 504, or something that is not HTTP.
	RetryGatewayError RetryCondition = "gateway-error"
	// Retry5xx: the provider answered with any status from 500 on, or something that is not HTTP.
	Retry5xx RetryCondition = "5xx"
	// RetryFirstToken: the time limit firstToken passed. The answer is then held
	// back until its first byte is there.
	RetryFirstToken RetryCondition = "first-token"
)

// Retries says what is tried again. An attempt is only ever made while
// nothing has reached the app. It goes to a backend that has not been tried
// yet: of the same priority first, then of the next ones, then again from the
// start.
type Retries struct {
	// How many attempts may follow the first one. Default: 2.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	// +optional
	Attempts *int32 `json:"attempts,omitempty"`

	// What is tried again. connect-failure: no connection within 10 seconds.
	// rate-limited: 429 or 503, where another backend is left or Retry-After asks
	// for 5 seconds or less. reset: the connection ended before the answer began.
	// gateway-error: 502, 503, 504, or no HTTP. 5xx: any status from 500 on, or no
	// HTTP. first-token:
	// the limit firstToken passed. Default: connect-failure and rate-limited.
	// +kubebuilder:validation:MaxItems=8
	// +optional
	RetryOn []RetryCondition `json:"retryOn,omitempty"`
}
