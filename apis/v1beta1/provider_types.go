package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// LLMProvider is one LLM API: where it is, how it is spoken to, which model
// is asked for and which key pays. Once it exists, a plain HTTP call of a pod
// to its host goes out as HTTPS, with the path, the model and the key filled
// in. No LLMRoute is needed for that.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=llm,shortName=llmp
// +kubebuilder:metadata:labels="app.kubernetes.io/part-of=remora"
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.spec.host`,description="The DNS name of the API."
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.spec.configs.defaultConfig.openAIConfig.model`,description="The model that is asked for, unless a rule has one of its own."
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`,description="Whether it is valid and in use."
// +kubebuilder:printcolumn:name="Resolved",type=string,JSONPath=`.status.conditions[?(@.type=="ResolvedRefs")].status`,description="Whether everything that it names exists."
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="False")].reason`,description="Why it is not accepted, or else which reference is not resolved."
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.status=="False")].message`,description="What is wrong, and what to do."
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type LLMProvider struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Where the API is, and what is filled in into requests to it.
	Spec LLMProviderSpec `json:"spec"`
	// Whether it is in use, and if not, why. Written by Remora's controller.
	// +optional
	Status Status `json:"status,omitempty"`
}

// LLMProviderList is a list of LLMProvider.
//
// +kubebuilder:object:root=true
type LLMProviderList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []LLMProvider `json:"items"`
}

// LLMProviderSpec describes one LLM API.
//
// +kubebuilder:validation:XValidation:rule="!has(self.tls) || !has(self.tls.mode) || self.tls.mode != 'DISABLE' || (has(self.tls.allowInsecureKey) && self.tls.allowInsecureKey) || !has(self.configs) || !has(self.configs.defaultConfig) || !has(self.configs.defaultConfig.openAIConfig) || !((has(self.configs.defaultConfig.openAIConfig.apiKey) && size(self.configs.defaultConfig.openAIConfig.apiKey) > 0) || has(self.configs.defaultConfig.openAIConfig.apiKeyRef) || has(self.configs.defaultConfig.openAIConfig.apiKeyRefs))",message="a key would travel in plain text: set tls.mode to SIMPLE, or accept the risk with tls.allowInsecureKey: true"
type LLMProviderSpec struct {
	// The pods that may use this provider, by their labels. Absent means every
	// pod of the namespace. Two providers may share a host if no pod can have the
	// labels of both: some label key is in both selectors, with different values.
	// +optional
	WorkloadSelector *WorkloadSelector `json:"workloadSelector,omitempty"`

	// The DNS name (or IPv4 address) of the API, such as dashscope.aliyuncs.com:
	// no scheme, port, path or wildcard. It is the name that the app calls, the
	// name that is resolved and the name that the certificate must bear. Upper
	// and lower case are the same. A short name also stands for its forms with
	// the namespace, as in an LLMRoute. Where two objects claim one host, the
	// older one keeps it, then the one with the lesser name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host"`

	// The path of the chat completions operation at the provider. The paths of
	// the other operations (embeddings, models and so on) are put in the place of
	// its ending /chat/completions.
	// +kubebuilder:default="/v1/chat/completions"
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Path string `json:"path,omitempty"`

	// The TCP port of the API. Default: 443, or 80 when tls.mode is DISABLE. An
	// addition of Remora.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port *int32 `json:"port,omitempty"`

	// How the connection to the provider is secured. Absent means TLS, verified
	// against the system's and the installation's trusted certificates. An
	// addition of Remora.
	// +optional
	TLS *ProviderTLS `json:"tls,omitempty"`

	// The header that carries the key. Bearer (default): "Authorization: Bearer
	// KEY". api-key: "api-key: KEY", as Azure OpenAI wants it. x-api-key:
	// "x-api-key: KEY", as Anthropic wants it. Where a key is sent, none of the
	// app's own credentials is, whichever header they are in. An addition of
	// Remora.
	// +optional
	AuthScheme AuthScheme `json:"authScheme,omitempty"`

	// Parameters that every request to this provider has in its query, in place
	// of what the app sent under the same names, in upper or lower case. Names have
	// letters, digits, ".", "_", "~" and "-"; values are written as they are
	// meant, without %XX, and have no "#" or "&". They are no place for a secret:
	// whoever may read the object sees them. An addition of Remora.
	//
	//	query:
	//	  api-version: "2024-10-21"
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.matches('^[A-Za-z0-9._~-]{1,128}$'))",message="the names of parameters have 1 to 128 letters, digits, '.', '_', '~' and '-'"
	// +optional
	Query map[string]QueryValue `json:"query,omitempty"`

	// How much the provider is asked to bear by each sidecar, and when a sidecar
	// leaves it alone. The words are those of Istio's DestinationRule. An addition
	// of Remora.
	//
	//	trafficPolicy:
	//	  connectionPool:
	//	    tcp: {maxConnections: 100, connectTimeout: 3s}
	//	    http: {http1MaxPendingRequests: 50}
	//	  outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 10s}
	// +optional
	TrafficPolicy *TrafficPolicy `json:"trafficPolicy,omitempty"`

	// The namespaces that may use this provider beside its own: names of
	// namespaces, "*" for all of them, "." for its own. Only providers of the
	// installation's namespace (remora-system) can be exported. There, sidecars use
	// it as if it were of their own namespace, with the keys of the Secrets that
	// are beside it here; the namespace's people can read neither. A provider that
	// a namespace has itself for the same host goes first. The word is Istio's. An
	// addition of Remora.
	//
	//	exportTo: [shop, billing]
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:XValidation:rule="self.all(n, n == '*' || n == '.' || (size(n) <= 63 && n.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')))",message="give names of namespaces, \"*\" or \".\""
	// +listType=atomic
	// +optional
	ExportTo []ExportTarget `json:"exportTo,omitempty"`

	// The users (numeric UIDs, as securityContext.runAsUser has them) whose
	// processes may use this provider, by what the kernel says of the connection
	// to the sidecar. Absent: every container of the pod. It keeps out the
	// containers that others bring into the pod, and kubectl port-forward, as long
	// as they run as other users; a container that runs as root can become any
	// user. An addition of Remora.
	//
	//	allowedUIDs: [1000]
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Minimum=0
	// +kubebuilder:validation:items:Maximum=4294967294
	// +listType=atomic
	// +optional
	AllowedUIDs []int64 `json:"allowedUIDs,omitempty"`

	// How long answers that are under way may go on after the key that they were
	// asked with was taken away: its Secret, the value in it, or what named it. They
	// are cut then, with the code KeyRevoked. 0s: at once. Absent: they go on to
	// their end. No new request is sent with such a key in any case; and a key
	// whose value is only replaced is not taken away. An addition of Remora.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	// +optional
	RevocationGracePeriod *metav1.Duration `json:"revocationGracePeriod,omitempty"`

	// What is filled in into requests: for all of them, and for single rules of
	// LLMRoutes.
	//
	//	configs:
	//	  defaultConfig:
	//	    openAIConfig:
	//	      model: qwen-1.8b-chat
	//	      apiKeyRef: {name: dashscope, key: apiKey}
	//	  routeSpecificConfigs:
	//	    vip-route:
	//	      openAIConfig:
	//	        model: qwen-turbo
	// +optional
	Configs ProviderConfigs `json:"configs,omitempty"`
}

// ExportTarget is the name of a namespace, "*" or ".".
//
// +kubebuilder:validation:MaxLength=63
type ExportTarget string

// What ExportTo can say beside names.
const (
	ExportToAll = "*" // every namespace
	ExportToOwn = "." // the provider's own, which may use it in any case
)

// WorkloadSelector selects pods by their labels.
type WorkloadSelector struct {
	// Labels that a pod must have, all of them, with exactly these values.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
}

// TLSMode says how a connection to a provider is secured. The words are those
// of Istio's DestinationRule.
//
// +kubebuilder:validation:Enum=SIMPLE;MUTUAL;DISABLE;""
type TLSMode string

// The modes of TLS to a provider.
const (
	// TLSSimple verifies the provider's certificate. It is the default.
	TLSSimple TLSMode = "SIMPLE"
	// TLSMutual also presents a client certificate.
	TLSMutual TLSMode = "MUTUAL"
	// TLSDisable speaks plain HTTP.
	TLSDisable TLSMode = "DISABLE"
)

// ProviderTLS says how the connection to the provider is secured.
//
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || self.mode != 'MUTUAL' || has(self.clientCertificateRef)",message="mode MUTUAL needs clientCertificateRef"
// +kubebuilder:validation:XValidation:rule="!has(self.clientCertificateRef) || (has(self.mode) && self.mode == 'MUTUAL')",message="clientCertificateRef needs mode MUTUAL"
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || self.mode != 'DISABLE' || !((has(self.sni) && size(self.sni) > 0) || has(self.caBundle))",message="sni and caBundle have no meaning with mode DISABLE: remove them"
type ProviderTLS struct {
	// SIMPLE (default): TLS, the provider's certificate is verified. MUTUAL: the
	// proxy also presents the certificate of clientCertificateRef. DISABLE: plain
	// HTTP, for servers inside the cluster.
	// +kubebuilder:default=SIMPLE
	// +optional
	Mode TLSMode `json:"mode,omitempty"`

	// The server name asked for in the TLS handshake and expected in the
	// certificate. Default: host.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	SNI string `json:"sni,omitempty"`

	// Certificates (PEM, base64) that are trusted for this provider, instead of
	// the system's and the installation's.
	// +optional
	CABundle []byte `json:"caBundle,omitempty"`

	// A Secret of type kubernetes.io/tls in the provider's namespace, for mode
	// MUTUAL.
	// +optional
	ClientCertificateRef *LocalObjectReference `json:"clientCertificateRef,omitempty"`

	// Allows a key to be sent in plain text when mode is DISABLE: whoever sees
	// the traffic has the key.
	// +optional
	AllowInsecureKey bool `json:"allowInsecureKey,omitempty"`
}

// AuthScheme says which header carries the key.
//
// +kubebuilder:validation:Enum=Bearer;api-key;x-api-key;""
type AuthScheme string

// The headers that can carry the key.
const (
	// AuthBearer is "Authorization: Bearer KEY" (RFC 6750). It is the default.
	AuthBearer AuthScheme = "Bearer"
	// AuthAPIKey is "api-key: KEY", which is Azure OpenAI's.
	AuthAPIKey AuthScheme = "api-key"
	// AuthXAPIKey is "x-api-key: KEY", which is Anthropic's.
	AuthXAPIKey AuthScheme = "x-api-key"
)

// QueryValue is the value of a parameter of a query, as it is meant: what has to
// be escaped is escaped on the way.
//
// +kubebuilder:validation:MaxLength=1024
// +kubebuilder:validation:Pattern=`^[ "$'-~!]*$`
type QueryValue string

// TrafficPolicy says how much a provider is asked to bear by each sidecar, and
// when a sidecar leaves it alone.
type TrafficPolicy struct {
	// How calls are spread over the servers of the Service that host names. Without
	// it, they go to the Service's own address, and the cluster chooses. A host that
	// is no Service of the namespace has one address, whatever stands here.
	// +optional
	LoadBalancer *LoadBalancer `json:"loadBalancer,omitempty"`

	// Limits of the connections to the provider.
	// +optional
	ConnectionPool *ConnectionPool `json:"connectionPool,omitempty"`

	// When the provider is left alone for a while, because it keeps failing. The
	// calls go to another backend of the rule then; where there is none, they go
	// to the provider all the same.
	// +optional
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"`
}

// ConnectionPool limits the connections of one sidecar to a provider.
type ConnectionPool struct {
	// Limits of the connections themselves.
	// +optional
	TCP *TCPSettings `json:"tcp,omitempty"`

	// Limits of the requests that wait for them.
	// +optional
	HTTP *HTTPSettings `json:"http,omitempty"`
}

// TCPSettings limit connections.
type TCPSettings struct {
	// How many there may be at the same time; a stream has one for itself.
	// Default: 1024.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	MaxConnections *int32 `json:"maxConnections,omitempty"`

	// The time to connect, TLS included, in each attempt; more than 0s. Default:
	// 10s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	// +optional
	ConnectTimeout *metav1.Duration `json:"connectTimeout,omitempty"`

	// The age after which a connection takes no further request, so that new
	// addresses of the provider are found. 0s means no limit. Default: 10m.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	// +optional
	MaxConnectionDuration *metav1.Duration `json:"maxConnectionDuration,omitempty"`
}

// HTTPSettings limit requests.
type HTTPSettings struct {
	// How many requests may wait for a connection; those beyond get 503 at once.
	// 0: none waits. Default: 1024.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +optional
	HTTP1MaxPendingRequests *int32 `json:"http1MaxPendingRequests,omitempty"`
}

// OutlierDetection says when a provider is left alone.
type OutlierDetection struct {
	// How many failures in a row it takes: no connection, a connection that ended
	// without a whole answer, no first token in time, or a status from 500 on. 0: it is
	// never left alone. Default: 5.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Consecutive5xxErrors *int32 `json:"consecutive5xxErrors,omitempty"`

	// For how long, the first time: more than 0s, at most 24h. A single call tries
	// it then; if that fails, it is left alone for twice as long, up to ten times
	// this. Default: 30s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	// +optional
	BaseEjectionTime *metav1.Duration `json:"baseEjectionTime,omitempty"`
}

// LocalObjectReference names an object in the same namespace.
type LocalObjectReference struct {
	// The name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// SecretKeyReference names one value of a Secret in the same namespace.
type SecretKeyReference struct {
	// The name of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Which key of the Secret's data holds the value.
	// +kubebuilder:default=apiKey
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]*$`
	// +optional
	Key string `json:"key,omitempty"`
}

// WeightedKeyReference names one value of a Secret, and its share.
type WeightedKeyReference struct {
	SecretKeyReference `json:",inline"`

	// Its share of the requests, in proportion to the others; 0 takes none. Either
	// every entry has one, or none, which is equal shares.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Weight *int32 `json:"weight,omitempty"`
}

// ProviderConfigs is what is filled in into requests to a provider.
type ProviderConfigs struct {
	// Used for every request, unless routeSpecificConfigs has something else to
	// say.
	// +optional
	DefaultConfig ProviderConfig `json:"defaultConfig,omitempty"`

	// Used for requests that matched the LLMRoute rule of that name. What an
	// entry leaves out comes from defaultConfig; apiKey, apiKeyRef and apiKeyRefs
	// count as one.
	// +kubebuilder:validation:MaxProperties=256
	// +optional
	RouteSpecificConfigs map[string]ProviderConfig `json:"routeSpecificConfigs,omitempty"`
}

// ProviderConfig is what is filled in into requests, by the protocol that the
// provider speaks.
type ProviderConfig struct {
	// For providers that speak OpenAI's protocol.
	// +optional
	OpenAIConfig OpenAIConfig `json:"openAIConfig,omitempty"`
}

// OpenAIConfig is what is filled in into requests of OpenAI's protocol.
//
// +kubebuilder:validation:XValidation:rule="(has(self.apiKey) && size(self.apiKey) > 0 ? 1 : 0) + (has(self.apiKeyRef) ? 1 : 0) + (has(self.apiKeyRefs) ? 1 : 0) <= 1",message="give one of apiKey, apiKeyRef and apiKeyRefs"
type OpenAIConfig struct {
	// The model that is asked for, in place of the app's own choice, in chat
	// completions, completions and responses. Absent: the app's own.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	Model string `json:"model,omitempty"`

	// true: answers are streamed where the app does not say whether they should
	// be. false is never written into a request.
	// +optional
	Stream *bool `json:"stream,omitempty"`

	// The key, sent as a bearer token in place of the app's own credentials.
	// Whoever may read this object has it: prefer apiKeyRef.
	// +kubebuilder:validation:MaxLength=8192
	// +optional
	APIKey string `json:"apiKey,omitempty"`

	// The key, from a Secret in the provider's namespace; make it with kubectl
	// create secret generic NAME --from-literal=apiKey=... An addition of Remora.
	// +optional
	APIKeyRef *SecretKeyReference `json:"apiKeyRef,omitempty"`

	// Several keys, over which requests are spread by their weights. One that the
	// provider answers with 401, 403 or 429 rests, for as long as Retry-After says,
	// and the request is sent again with another; where all of them rest, the one
	// whose rest ends first is used. An addition of Remora.
	//
	//	apiKeyRefs:
	//	- {name: dashscope-a, weight: 3}
	//	- {name: dashscope-b, weight: 1}
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(r, has(r.weight)) || self.all(r, !has(r.weight))",message="give every entry a weight, or none"
	// +kubebuilder:validation:XValidation:rule="self.exists(r, !has(r.weight) || r.weight > 0)",message="every weight is 0: give one of them more"
	// +listType=atomic
	// +optional
	APIKeyRefs []WeightedKeyReference `json:"apiKeyRefs,omitempty"`
}

// Status is what the controller found out about an object.
type Status struct {
	// Two of them. Accepted: the object is valid and in use. ResolvedRefs:
	// everything that it names, providers and Secrets, exists. Where one is
	// False, its reason is a short word and its message says what is wrong.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// The rules of an LLMRoute in order, by name or else by number, for kubectl get.
	// +optional
	Rules string `json:"rules,omitempty"`
}
