package istio

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DestinationRule is Istio's kind of that name: how the servers of a host are called.
type DestinationRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              DestinationRuleSpec `json:"spec,omitempty"`
	Remarks           Remarks             `json:"-"`
}

// DestinationRuleSpec is what is honoured of it.
type DestinationRuleSpec struct {
	// A Service, by its short name in the rule's namespace or in full; or *.SUFFIX, for those that have no rule with their own name.
	Host             string            `json:"host"`
	TrafficPolicy    *TrafficPolicy    `json:"trafficPolicy,omitempty"`
	Subsets          []Subset          `json:"subsets,omitempty"`
	ExportTo         []string          `json:"exportTo,omitempty"`
	WorkloadSelector *WorkloadSelector `json:"workloadSelector,omitempty"`
}

// WorkloadSelector chooses the clients that a rule is for.
type WorkloadSelector struct {
	MatchLabels map[string]string `json:"matchLabels,omitempty"`
}

// TrafficPolicy says how servers are called.
type TrafficPolicy struct {
	LoadBalancer     *LoadBalancer     `json:"loadBalancer,omitempty"`
	ConnectionPool   *ConnectionPool   `json:"connectionPool,omitempty"`
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"`
	TLS              *ClientTLS        `json:"tls,omitempty"`
	// For calls to one port, all of the above; what is not said there is as by default.
	PortLevelSettings []PortTrafficPolicy `json:"portLevelSettings,omitempty"`
}

// PortTrafficPolicy is what holds for one port of the Service.
type PortTrafficPolicy struct {
	Port             *PortSelector     `json:"port,omitempty"`
	LoadBalancer     *LoadBalancer     `json:"loadBalancer,omitempty"`
	ConnectionPool   *ConnectionPool   `json:"connectionPool,omitempty"`
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"`
	TLS              *ClientTLS        `json:"tls,omitempty"`
}

// Subset is the servers of a Service whose pods have certain labels.
type Subset struct {
	Name          string            `json:"name"`
	Labels        map[string]string `json:"labels,omitempty"`
	TrafficPolicy *TrafficPolicy    `json:"trafficPolicy,omitempty"` // each part in place of the rule's own
}

// LoadBalancer says how a server is chosen: simple or consistentHash.
type LoadBalancer struct {
	Simple             string             `json:"simple,omitempty"`
	ConsistentHash     *ConsistentHash    `json:"consistentHash,omitempty"`
	LocalityLbSetting  *LocalityLbSetting `json:"localityLbSetting,omitempty"`
	WarmupDurationSecs *metav1.Duration   `json:"warmupDurationSecs,omitempty"`
	Warmup             *Warmup            `json:"warmup,omitempty"`
}

// ConsistentHash says what is hashed (one of the first four), and how.
type ConsistentHash struct {
	HTTPHeaderName         string      `json:"httpHeaderName,omitempty"`
	HTTPCookie             *HTTPCookie `json:"httpCookie,omitempty"`
	UseSourceIP            bool        `json:"useSourceIp,omitempty"`
	HTTPQueryParameterName string      `json:"httpQueryParameterName,omitempty"`
	RingHash               *RingHash   `json:"ringHash,omitempty"`
	Maglev                 *Maglev     `json:"maglev,omitempty"`
	MinimumRingSize        *int64      `json:"minimumRingSize,omitempty"`
}

// HTTPCookie names a cookie. With a ttl, clients that have none are given one.
type HTTPCookie struct {
	Name string           `json:"name"`
	Path string           `json:"path,omitempty"`
	TTL  *metav1.Duration `json:"ttl,omitempty"`
}

// RingHash is a ring of hashes.
type RingHash struct {
	MinimumRingSize *int64 `json:"minimumRingSize,omitempty"`
}

// Maglev is Maglev's table.
type Maglev struct {
	TableSize *int64 `json:"tableSize,omitempty"`
}

// LocalityLbSetting prefers servers that are near.
type LocalityLbSetting struct {
	Enabled          *bool              `json:"enabled,omitempty"`
	Distribute       []LocalityShare    `json:"distribute,omitempty"`
	Failover         []LocalityFailover `json:"failover,omitempty"`
	FailoverPriority []string           `json:"failoverPriority,omitempty"`
}

// LocalityShare gives the percents of localities in the calls from one.
type LocalityShare struct {
	From string            `json:"from"`
	To   map[string]uint32 `json:"to"`
}

// LocalityFailover names the region that takes the calls of another.
type LocalityFailover struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Warmup spares servers that are new.
type Warmup struct {
	Duration       *metav1.Duration `json:"duration"`
	MinimumPercent *float64         `json:"minimumPercent,omitempty"`
	Aggression     *float64         `json:"aggression,omitempty"`
}

// ConnectionPool limits connections and requests. In Istio's words, 0 is no limit of one's own.
type ConnectionPool struct {
	TCP  *TCPSettings  `json:"tcp,omitempty"`
	HTTP *HTTPSettings `json:"http,omitempty"`
}

// TCPSettings limit connections.
type TCPSettings struct {
	MaxConnections        int32            `json:"maxConnections,omitempty"`
	ConnectTimeout        *metav1.Duration `json:"connectTimeout,omitempty"`
	MaxConnectionDuration *metav1.Duration `json:"maxConnectionDuration,omitempty"`
}

// HTTPSettings limit requests.
type HTTPSettings struct {
	HTTP1MaxPendingRequests  int32            `json:"http1MaxPendingRequests,omitempty"`
	HTTP2MaxRequests         int32            `json:"http2MaxRequests,omitempty"` // also of HTTP/1.1, whatever its name
	MaxRequestsPerConnection int32            `json:"maxRequestsPerConnection,omitempty"`
	IdleTimeout              *metav1.Duration `json:"idleTimeout,omitempty"`
}

// OutlierDetection says when a server is left alone.
type OutlierDetection struct {
	ConsecutiveErrors        int32            `json:"consecutiveErrors,omitempty"` // the older word for gateway errors
	ConsecutiveGatewayErrors *uint32          `json:"consecutiveGatewayErrors,omitempty"`
	Consecutive5xxErrors     *uint32          `json:"consecutive5xxErrors,omitempty"`
	BaseEjectionTime         *metav1.Duration `json:"baseEjectionTime,omitempty"`
	MaxEjectionPercent       int32            `json:"maxEjectionPercent,omitempty"`
	MinHealthPercent         int32            `json:"minHealthPercent,omitempty"`
}

// ClientTLS says how servers are spoken to.
type ClientTLS struct {
	Mode            string   `json:"mode,omitempty"`
	CredentialName  string   `json:"credentialName,omitempty"`
	SubjectAltNames []string `json:"subjectAltNames,omitempty"`
	SNI             string   `json:"sni,omitempty"`
}

// The modes of ClientTLS and of Gateways.
const (
	TLSDisable     = "DISABLE"
	TLSSimple      = "SIMPLE"
	TLSMutual      = "MUTUAL"
	TLSIstioMutual = "ISTIO_MUTUAL"
)
