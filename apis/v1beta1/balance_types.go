package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// LoadBalancing is a way to choose the server of a call. The words are those of
// Istio's DestinationRule, but for LEAST_TOKENS.
//
// +kubebuilder:validation:Enum=ROUND_ROBIN;LEAST_REQUEST;LEAST_CONN;RANDOM;PASSTHROUGH;LEAST_TOKENS;UNSPECIFIED;""
type LoadBalancing string

// The ways to choose a server.
const (
	// RoundRobin takes the servers in turn, those with more weight more often.
	RoundRobin LoadBalancing = "ROUND_ROBIN"
	// LeastRequest draws two servers and takes the one with fewer calls under way. It is the default.
	LeastRequest LoadBalancing = "LEAST_REQUEST"
	// LeastConn is the older word for LEAST_REQUEST.
	LeastConn LoadBalancing = "LEAST_CONN"
	// Random draws a server.
	Random LoadBalancing = "RANDOM"
	// Passthrough leaves the choice to the cluster: calls go to the Service's own address.
	Passthrough LoadBalancing = "PASSTHROUGH"
	// LeastTokens draws two servers and takes the one with fewer tokens still to be read and written, as
	// estimated from the prompt and the expected answer, and corrected while usage arrives. An addition of Remora.
	LeastTokens LoadBalancing = "LEAST_TOKENS"
)

// LoadBalancer says how the calls to a Service or an InferencePool are spread
// over its servers.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.simple) && size(self.simple) > 0 && has(self.consistentHash))",message="give simple or consistentHash, not both"
type LoadBalancer struct {
	// ROUND_ROBIN, LEAST_REQUEST (the default; LEAST_CONN means the same), RANDOM,
	// PASSTHROUGH (the Service's own address), or LEAST_TOKENS: of two servers drawn,
	// the one with fewer tokens still to be read and written.
	// +optional
	Simple LoadBalancing `json:"simple,omitempty"`

	// Calls that are alike in something go to the same server, for as long as it is
	// there and has not far more calls than the others.
	// +optional
	ConsistentHash *ConsistentHash `json:"consistentHash,omitempty"`

	// Servers that are near are preferred, and what happens where none is.
	// +optional
	LocalityLbSetting *LocalityLbSetting `json:"localityLbSetting,omitempty"`

	// How long a server that is new gets fewer calls than the others, growing to its
	// full share. The older form of warmup.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	// +optional
	WarmupDurationSecs *metav1.Duration `json:"warmupDurationSecs,omitempty"`

	// How a server that is new is spared at first.
	// +optional
	Warmup *Warmup `json:"warmup,omitempty"`
}

// ConsistentHash says what calls must have in common to go to the same server.
// Exactly one of the first four is given.
type ConsistentHash struct {
	// The value of this request header.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	HTTPHeaderName string `json:"httpHeaderName,omitempty"`

	// The value of a cookie, which is set where the client has none and ttl is given.
	// +optional
	HTTPCookie *HTTPCookie `json:"httpCookie,omitempty"`

	// The address of the caller.
	// +optional
	UseSourceIP bool `json:"useSourceIp,omitempty"`

	// The value of this parameter of the query.
	// +kubebuilder:validation:MaxLength=256
	// +optional
	HTTPQueryParameterName string `json:"httpQueryParameterName,omitempty"`

	// The ring of hashes, which is the default algorithm.
	// +optional
	RingHash *RingHash `json:"ringHash,omitempty"`

	// Maglev's table in place of the ring.
	// +optional
	Maglev *Maglev `json:"maglev,omitempty"`

	// The older form of ringHash.minimumRingSize.
	// +optional
	MinimumRingSize *int64 `json:"minimumRingSize,omitempty"`
}

// HTTPCookie names a cookie.
type HTTPCookie struct {
	// Its name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name"`
	// The path that it is set for.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Path string `json:"path,omitempty"`
	// How long it lasts; 0s: for the client's session. Absent: no cookie is set.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	// +optional
	TTL *metav1.Duration `json:"ttl,omitempty"`
}

// RingHash is a ring of hashes.
type RingHash struct {
	// How many points there are at least; more spread calls more evenly. Default: 1024.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8388608
	// +optional
	MinimumRingSize *int64 `json:"minimumRingSize,omitempty"`
}

// Maglev is Maglev's table of hashes.
type Maglev struct {
	// Its size, which should be a prime number. Default: 65537.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=5000011
	// +optional
	TableSize *int64 `json:"tableSize,omitempty"`
}

// LocalityLbSetting prefers servers that are near. Localities are written
// REGION, REGION/ZONE, or with * for any.
type LocalityLbSetting struct {
	// false: all servers are alike. Default: true.
	// +optional
	Enabled *bool `json:"enabled,omitempty"`
	// The shares of localities in the calls from one; excludes failover.
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Distribute []LocalityShare `json:"distribute,omitempty"`
	// The region that takes the calls of another which has too few servers left.
	// +kubebuilder:validation:MaxItems=64
	// +optional
	Failover []LocalityFailover `json:"failover,omitempty"`
	// Labels that the caller's and the server's node should have in common, the most important first, such as
	// topology.kubernetes.io/region and topology.kubernetes.io/zone, which are the ones that are known.
	// +kubebuilder:validation:MaxItems=8
	// +optional
	FailoverPriority []string `json:"failoverPriority,omitempty"`
}

// LocalityShare gives the shares of localities in the calls from one.
type LocalityShare struct {
	// Where the caller is.
	From string `json:"from"`
	// Percents by locality, 100 in all.
	To map[string]int32 `json:"to"`
}

// LocalityFailover names the region that helps out.
type LocalityFailover struct {
	// The region of the caller.
	From string `json:"from"`
	// The region that takes its calls.
	To string `json:"to"`
}

// Warmup spares a server that is new.
type Warmup struct {
	// For how long; more than 0s.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$`
	Duration *metav1.Duration `json:"duration"`
	// The least share, in percent of the full one. Default: 10.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	MinimumPercent *int32 `json:"minimumPercent,omitempty"`
}
