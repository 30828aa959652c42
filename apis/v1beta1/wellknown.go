package v1beta1

import "encoding/json"

// GatewayMesh is the word in gateways that means "the sidecars". It is the default.
const GatewayMesh = "mesh"

// Defaults of fields that the API server fills in and file mode has to.
const (
	DefaultPath       = "/v1/chat/completions"
	DefaultAPIKeyName = "apiKey"
	DefaultTLSPort    = 443
	DefaultPlainPort  = 80
)

// Limits of lists and maps. They bound the cost of the schema's CEL rules; the compiler enforces the
// same ones where there is no API server.
const (
	MaxRules         = 256
	MaxMatches       = 32
	MaxBackends      = 32
	MaxHeaderMatches = 32
	MaxRouteConfigs  = 256
	MaxRetryOn       = 8
	MaxQuery         = 16
	MaxKeys          = 16
	MaxExportTo      = 256
	MaxAllowedUIDs   = 64
	MaxUID           = 1<<32 - 2 // the last one means "none"
)

// SecretTypeTLS is the type of Secret that clientCertificateRef names, with the keys tls.crt and tls.key.
const SecretTypeTLS = "kubernetes.io/tls"

// Where the installation is, and what its parts are called.
const (
	InstallationNamespace = "remora-system"
	WebhookName           = "remora-webhook"    // Deployment, Service, ServiceAccount and ValidatingWebhookConfiguration
	ControllerName        = "remora-controller" // Deployment, ServiceAccount, Lease and field manager of the status
	WebhookCASecret       = "remora-webhook-ca" // the authority that signs the webhook's certificates
	PartOfLabel           = "app.kubernetes.io/part-of"
	PartOf                = "remora" // on everything that the installation brings, the CRDs included
)

// KeysSecret is the Secret of a namespace that holds what its sidecars may use of other Secrets, and nothing
// else: the value that apiKeyRef or clientCertificateRef means stands under KeysSecretEntry.
const KeysSecret = "remora-sidecar-keys"

// KeysSecretEntry gives the key in KeysSecret for a key of another Secret of the namespace. The names of Secrets
// have no "_", so the first one separates the two.
func KeysSecretEntry(secret, key string) string { return secret + "_" + key }

// TrustedCAEntry gives, in KeysSecret, the installation's additional trusted authorities as PEM. No name of a Secret begins with "_".
const TrustedCAEntry = "_trusted-ca.crt"

// MaxKeysSecretEntry is how long a key in KeysSecret may be, as in every Secret.
const MaxKeysSecretEntry = 253

// ExportedEntry gives the key in KeysSecret of a provider that is exported to the namespace: its value is an ExportedProvider in JSON.
// No name of a Secret begins with "_".
func ExportedEntry(provider string) string { return ExportedPrefix + provider }

// ExportedPrefix begins the keys of exported providers in KeysSecret.
const ExportedPrefix = "_provider_"

// ExportedProvider is a provider of the installation's namespace as other namespaces have it: with the values that it names.
//
// +kubebuilder:object:generate=false
type ExportedProvider struct {
	// Provider is an LLMProvider with name, namespace, uid, creationTimestamp and spec, as it is written: a sidecar that is older than the
	// object's schema refuses it as it does those of its own namespace.
	Provider json.RawMessage `json:"provider"`
	// Secrets has, by the Secrets' names and their keys, what the provider names and is there.
	Secrets map[string]map[string][]byte `json:"secrets,omitempty"`
	// Withheld says that all of it is more than KeysSecret can hold. Of the spec there is only the host, so that calls to it are refused.
	Withheld bool `json:"withheld,omitempty"`
}

// TrustedCAs is the ConfigMap in the installation's namespace with the authorities that providers may be signed by beside the
// public ones: PEM, under the key TrustedCAsKey. It may be missing.
const (
	TrustedCAs    = "remora-trusted-ca"
	TrustedCAsKey = "ca.crt"
)

// Telemetry is the ConfigMap in the installation's namespace that says what is told of calls, and what models cost: telemetry.Settings as YAML,
// under the key TelemetryKey. The Secret of that name has the headers that collectors of traces want, a key each. Both may be missing.
const (
	Telemetry    = "remora-telemetry"
	TelemetryKey = "telemetry.yaml"
)

// TelemetryEntry gives, in KeysSecret, the telemetry.Settings of the namespace as JSON. No name of a Secret begins with "_".
const TelemetryEntry = "_telemetry.json"

// What a namespace says about the telemetry of its pods, in annotations, instead of what the ConfigMap Telemetry says. Its sidecars follow them
// while they run.
const (
	AccessLogAnnotation       = "remora.dev/access-log"        // all, errors or off
	AccessLogSampleAnnotation = "remora.dev/access-log-sample" // 0 to 1
	TraceSampleAnnotation     = "remora.dev/trace-sample"      // 0 to 1
	CaptureUntilAnnotation    = "remora.dev/capture-until"     // RFC 3339; until then, the access log has prompts and answers
	CaptureSampleAnnotation   = "remora.dev/capture-sample"    // 0 to 1
	CaptureBytesAnnotation    = "remora.dev/capture-bytes"     // of each prompt and answer
)

// InjectLabel decides which pods get a sidecar. On a namespace: InjectEnabled for every pod, InjectPods for those that ask. On
// a pod: InjectEnabled asks, InjectDisabled refuses, and wins over the namespace.
const (
	InjectLabel    = "remora.dev/inject"
	InjectEnabled  = "enabled"
	InjectPods     = "pods"
	InjectDisabled = "disabled"
)

// What injection writes on a pod: the label InjectedLabel, "true" or "false"; where it is "false", SkipReason says why.
const (
	InjectedLabel = "remora.dev/injected"
	SkipReason    = "remora.dev/skip-reason" // annotation: CODE: sentence
)

// What a pod may say about its sidecar, in annotations. A value that cannot be understood refuses the pod.
const (
	PortsAnnotation  = "remora.dev/ports"     // TCP ports whose outbound connections are redirected, separated by commas; default 80
	CPUAnnotation    = "remora.dev/cpu"       // the sidecar's request of CPU, a quantity
	MemoryAnnotation = "remora.dev/memory"    // the sidecar's request and limit of memory, a quantity
	LogAnnotation    = "remora.dev/log-level" // how much the sidecar's log says: info or debug
)

// The parts of an injected pod. No container or volume of a user may have these names.
const (
	RedirectContainer = "remora-redirect" // init container that writes the iptables rules
	SidecarContainer  = "remora-sidecar"  // native sidecar
	AccessVolume      = "remora-access"   // AccessSecret, at the service account path of the sidecar
	StateVolume       = "remora-state"    // in memory, for the last good configuration
	PodVolume         = "remora-pod"      // downward API: the file PodLabelsFile
	PodLabelsFile     = "labels"
)

// SidecarUID is the user and group of the sidecar, which its redirection leaves alone. Nothing else in the pod may have it.
const SidecarUID = 14001

// What the controller keeps in each namespace with InjectLabel, beside KeysSecret.
const (
	SidecarName  = "remora-sidecar"        // ServiceAccount, Role, RoleBinding; in the installation's namespace, the PodTemplate that says what is injected
	AccessSecret = "remora-sidecar-access" // token, ca.crt and namespace by which sidecars reach the API server
)

// The types of the conditions in the status of both kinds.
const (
	ConditionAccepted     = "Accepted"     // the object is valid and in use
	ConditionResolvedRefs = "ResolvedRefs" // everything that it names exists
)

// What the controller writes for the servers that no EndpointSlice of Kubernetes tells apart: those of a subset of a Service (by the
// labels of their pods), and those of an InferencePool. Such an EndpointSlice has ServersLabel, and in its annotations what its servers
// are of. Its ports are named as the Service's are; a pool's by their numbers.
const (
	ServersLabel     = "remora.dev/servers"        // ServersOfSubset or ServersOfPool
	ServersOf        = "remora.dev/servers-of"     // annotation: the name of the Service or InferencePool
	ServersSubset    = "remora.dev/servers-subset" // annotation: the labels of the subset, NAME=VALUE,… sorted
	ServersOfSubset  = "subset"
	ServersOfPool    = "pool"
	ServersManagedBy = "remora-controller" // in endpointslice.kubernetes.io/managed-by
)

// GatewayName is the name of the gateway's Deployment, Service, ServiceAccount and namespace in config/gateway.
const GatewayName = "remora-gateway"

// GatewayLabels, an annotation on a Namespace, says that Remora's gateways run there, and gives the labels of their pods by which Istio
// Gateways select them: NAME=VALUE,…; those of several gateways are separated by ";".
const GatewayLabels = "remora.dev/gateway-labels"
