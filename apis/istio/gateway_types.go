package istio

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Gateway is Istio's kind of that name: what the gateways that it selects listen on.
type Gateway struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              GatewaySpec `json:"spec,omitempty"`
	Remarks           Remarks     `json:"-"`
}

// GatewaySpec is what is honoured of it.
type GatewaySpec struct {
	Selector map[string]string `json:"selector,omitempty"` // labels of the gateways' pods, in any namespace; none: every gateway
	Servers  []Server          `json:"servers,omitempty"`
}

// Server is a port with the hosts that are served on it.
type Server struct {
	Name  string             `json:"name,omitempty"`
	Port  Port               `json:"port,omitempty"`
	Bind  string             `json:"bind,omitempty"`
	Hosts []string           `json:"hosts,omitempty"` // HOST or NAMESPACE/HOST, with "." for its own namespace and * for any
	TLS   *ServerTLSSettings `json:"tls,omitempty"`
}

// Port is a port of a Server.
type Port struct {
	Number   int64  `json:"number,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Name     string `json:"name,omitempty"`
}

// ServerTLSSettings is how TLS is ended, or that it is passed through.
type ServerTLSSettings struct {
	HTTPSRedirect        bool     `json:"httpsRedirect,omitempty"`
	Mode                 string   `json:"mode,omitempty"`
	CredentialName       string   `json:"credentialName,omitempty"`  // a Secret of the gateway's namespace
	CredentialNames      []string `json:"credentialNames,omitempty"` // several, for keys of several kinds
	CACertCredentialName string   `json:"caCertCredentialName,omitempty"`
	SubjectAltNames      []string `json:"subjectAltNames,omitempty"`
	MinProtocolVersion   string   `json:"minProtocolVersion,omitempty"`
	MaxProtocolVersion   string   `json:"maxProtocolVersion,omitempty"`
	CipherSuites         []string `json:"cipherSuites,omitempty"`
	// What would let fewer clients in is not honoured, so that a server which has one of these serves nobody.
	VerifyCertificateSPKI []string `json:"verifyCertificateSpki,omitempty"`
	VerifyCertificateHash []string `json:"verifyCertificateHash,omitempty"`
	CACRL                 string   `json:"caCrl,omitempty"`
}
