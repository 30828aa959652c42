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
