package routing

import "time"

// ServersID names the servers that the calls of a target are spread over: those of one port of a Service, of a subset of it, or of an
// InferencePool.
type ServersID struct {
	Kind            string // KindService or KindInferencePool
	Namespace, Name string
	Subset          string // of a Service: the labels that its pods must have, as NAME=VALUE,…, sorted; empty: all
	Port            string // the name of the Service's port, as EndpointSlices have it; of a pool, its number, or empty for all
}

// The kinds of what has servers.
const (
	KindService       = "Service"
	KindInferencePool = "InferencePool"
)

// Server is one that takes calls.
type Server struct {
	Address string // IP, or a DNS name where EndpointSlices have names
	Port    uint16
	// Draining: it is about to end, and takes calls only where no other does.
	Draining bool
	Region   string // empty: not known
	Zone     string // empty: not known
	Node     string
	ForZones []string // whose calls the cluster wants it to take, sorted; none: those of all
}

// Servers is everything that can take calls for a ServersID, sorted by address and port. Those that are not ready are not in it.
type Servers []Server

// EndpointSlice is what is needed of the object of that name (discovery.k8s.io/v1).
type EndpointSlice struct {
	Namespace, Name string
	// Of is what the servers belong to: by the label kubernetes.io/service-name, or by the annotations of a slice that the controller
	// wrote (see v1beta1.ServersLabel). Its Port is empty.
	Of        ServersID
	Ports     []SlicePort
	Endpoints []SliceEndpoint
}

// SlicePort is a port of every endpoint of a slice.
type SlicePort struct {
	Name   string
	Number uint16 // 0: all ports, which is nothing to call
}

// SliceEndpoint is an endpoint of a slice.
type SliceEndpoint struct {
	Addresses                   []string
	Ready, Serving, Terminating bool // as conditions say, with their defaults: true, Ready, false
	Zone, Node                  string
	ForZones                    []string
}

// Service is what is needed of the object of that name.
type Service struct {
	Namespace, Name string
	ExternalName    string // set for that type only
	Headless        bool
	Ports           []ServicePort
	ExportTo        []string // of istio.ExportToAnnotation; nil: it is not given
}

// ServicePort is a port of a Service.
type ServicePort struct {
	Name        string
	Number      uint16
	AppProtocol string // such as https; may be empty
}

// InferencePool is what is needed of the object of that name (inference.networking.k8s.io/v1).
type InferencePool struct {
	Namespace, Name string
	TargetPorts     []uint16
	Selector        map[string]string
}

// Balance is how the calls of a target are spread over its servers.
type Balance struct {
	Policy    BalancePolicy
	Hash      HashKey // of ConsistentHash
	RingSize  int     // of its ring, at least; 0: it is Maglev's table
	TableSize int     // of Maglev's table
	// SlowStart is how long a new server gets less than its share, which grows from MinPercent by time to the power of 1/Aggression.
	SlowStart  SlowStart
	Locality   Locality
	MaxEjected int // percent of the servers that may be left alone at the same time; one may always
	MinHealthy int // percent of the servers below which none is left alone
}

// BalancePolicy is one of the policies below.
type BalancePolicy uint8

// The policies.
const (
	LeastRequest BalancePolicy = iota // the default
	RoundRobin
	Random
	LeastTokens
	ConsistentHash
)

// HashKey says what of a request is hashed. One of its fields is set.
type HashKey struct {
	Header     string // in canonical form
	Cookie     Cookie
	SourceAddr bool
	Query      string
}

// Cookie is one that a request may have, and an answer gives it where Set is true.
type Cookie struct {
	Name, Path string
	Set        bool
	MaxAge     int // seconds; 0: the client's session
}

// SlowStart spares servers that are new. The zero value does not.
type SlowStart struct {
	WindowSeconds float64
	MinPercent    float64
	Aggression    float64
}

// Locality says which servers are near. The zero value takes all for alike.
type Locality struct {
	Prefer bool // those of the own zone, then of the own region, then the rest
	// Distribute gives the shares of localities, in percent, by where the caller is; it excludes the rest of these.
	Distribute []LocalityShares
	Failover   map[string]string // region → the one that helps out first
}

// LocalityShares are the shares of the calls from one locality. Localities are REGION/ZONE, with * for any, or REGION.
type LocalityShares struct {
	From string
	To   map[string]int32
}

// DefaultRingSize and DefaultTableSize are those of consistent hashes where nothing is said.
const (
	DefaultRingSize   = 1024
	DefaultTableSize  = 65537
	DefaultMaxEjected = 50 // percent
)

// KeepServers is how long those that were there last are still called where there are none any more: a list that is empty is more
// often a mistake than the truth.
const KeepServers = 30 * time.Second
