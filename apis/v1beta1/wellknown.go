package v1beta1

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

// The types of the conditions in the status of both kinds.
const (
	ConditionAccepted     = "Accepted"     // the object is valid and in use
	ConditionResolvedRefs = "ResolvedRefs" // everything that it names exists
)
