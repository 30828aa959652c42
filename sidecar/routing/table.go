package routing

import (
	"bytes"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
	"unique"
)

// Workload is the pod that the sidecar serves, or the gateway.
type Workload struct {
	Namespace string
	Labels    map[string]string
	// Gateway: it is one. It executes what is bound, in any namespace, to the Istio Gateways that select its labels, and has no host
	// beside them.
	Gateway bool
}

// Table is a compiled configuration. It does not change once it is made.
type Table struct {
	hosts      map[string]*Host
	wildcards  []wildcard // of objects that are refused for them
	trusted    authorities
	incomplete bool
	generation string

	credentials map[CredentialID]Key
	listeners   []*Listener
	executes    map[Ref]struct{}

	// Only after Retaining: the table it was called on, the hosts that were retired by their names, and the host
	// that stands for every other, where it is no longer known which were.
	compiled *Table
	retired  map[string]*Host
	rest     *Host
}

type wildcard struct {
	parts []string // what is between the asterisks
	host  *Host
}

func (w *wildcard) covers(name string) bool {
	first, last := w.parts[0], w.parts[len(w.parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range w.parts[1 : len(w.parts)-1] {
		_, rest, found := strings.Cut(name, part)
		if !found {
			return false
		}
		name = rest
	}
	return true
}

// Host is an owned host: what is called under one of its names is served or refused, never passed on.
type Host struct {
	Name    string
	Rules   []*Rule
	Refusal *Refusal // set where there is nothing to serve
	MaxBody int64    // the largest of its rules
	// Plain: it is any HTTP service, as VirtualServices have them. Bodies pass as they are, whatever is in them; where a path is that of
	// an operation, tokens are counted, if the body and the answer let them.
	Plain bool
	paths map[string]*Operation
	never []leftOut // for Explain
}

// leftOut is a rule that takes no call of this workload.
type leftOut struct {
	before int // how many rules come before it
	rule   PassedOver
}

// Refusal says why something cannot be served.
type Refusal struct {
	Code    Code
	Message string
}

// Rule is one rule of a route, or the implicit one of a provider without a route.
type Rule struct {
	Name    string // may be empty
	Owner   Ref    // the route, or the provider without one
	number  int    // its place in the route, from 1
	matches []match
	// Matched is how many bytes at the beginning of the path its match took: what Action's Rewrite.Path and Redirect.Prefix are put in
	// place of; negative: all of the path. Without a word on the path it is 1: the first slash.
	Matched int
	// Levels are the backends by priority, first to last. There is at least one level, unless Action answers.
	Levels   []Level
	Timeouts Timeouts
	Retries  Retries
	MaxBody  int64   // bytes of a request's body; more is refused
	Action   *Action // nil: nothing but sending it to a backend
}

// Number is its place in the route, from 1; 0: it is the implicit one.
func (r *Rule) Number() int { return r.number }

// DefaultMaxBody is MaxBody where a rule has no limit of its own.
const DefaultMaxBody = 64 << 20

// Level is the backends of one priority. At least one of them has weight.
type Level struct {
	Backends []Backend
	total    uint64
}

// Backend is a share of a level's traffic: of its Target, or of the reason why there is none.
type Backend struct {
	Weight  uint32
	Target  *Target
	Refusal *Refusal
	Headers *HeaderEdits // of this backend alone; nil: none
}

// Target is a provider as one rule uses it: where a request goes and what is filled in.
type Target struct {
	Provider Ref // the LLMProvider, Service or InferencePool
	// Endpoint is where a call goes. Where there are Servers, it is how each of them is spoken to, and Host and Port are those of the
	// Service, which is called where the servers are not known.
	Endpoint   unique.Handle[Endpoint]
	Servers    ServersID // zero: there is nothing to choose from
	Balance    Balance   // how one of them is chosen
	Authority  string    // the Host header; empty: the request's own
	Path       string    // of chat completions; empty: every path goes out as it is
	base       string
	hasBase    bool
	Model      string        // empty: the app's own
	Stream     bool          // streamed unless the app says otherwise
	Keys       []Credential  // one of which is sent; none: the app's own credentials pass
	RevokedFor time.Duration // how long answers go on after their key was taken away; negative: to their end
	UIDs       []uint32      // the users whose processes may use it, sorted; none: all
	Auth       AuthScheme
	Query      string // name=value&…, escaped: is in the query of every request, in place of the app's own of these names
	shownQuery string // Query without what may be credentials
	Policy     TrafficPolicy
	JSONModel  []byte // Model as a JSON string; nil without one
}

// Credential is a key of a provider.
type Credential struct {
	Name   string // where the key comes from: "inline", "inline RULE" or "secret NAME/KEY"; the same in every table
	Key    Key
	Weight uint32 // its share, of all that its target has; 0: none
}

// Keyed tells whether a key is sent, and with it nothing but inference.
func (t *Target) Keyed() bool { return len(t.Keys) > 0 }

// Admits tells whether a process of that user may use the target.
func (t *Target) Admits(uid uint32) bool {
	_, found := slices.BinarySearch(t.UIDs, uid)
	return found || len(t.UIDs) == 0
}

// CredentialID names a key across tables: its value may change, and it may be taken away.
type CredentialID struct {
	Provider Ref
	Name     string // as in Credential
}

// Credentials gives every key that there is, whether a target uses it now or not.
func (t *Table) Credentials() iter.Seq2[CredentialID, Key] { return maps.All(t.credentials) }

// AuthScheme is how a provider wants its key.
type AuthScheme uint8

// The schemes. Each is a file of the proxy.
const (
	AuthBearer  AuthScheme = iota // Authorization: Bearer KEY (RFC 6750), which is OpenAI's
	AuthAPIKey                    // api-key: KEY, which is Azure's
	AuthXAPIKey                   // x-api-key: KEY, which is Anthropic's
)

// TrafficPolicy is how much a provider is asked to bear, and when it is left alone.
type TrafficPolicy struct {
	MaxConnections   int           // to its endpoint, at the same time
	MaxPending       int           // requests that wait for one of them
	ConnectTimeout   time.Duration // of one attempt, TLS included
	MaxConnectionAge time.Duration // after which a connection takes no further request; 0: no limit
	EjectAfter       int           // failures in a row after which it is left alone; 0: never
	EjectionTime     time.Duration // how long, the first time
	// What only Istio has words for. 0: no limit, and for the last one: never.
	MaxRequests              int           // under way at the same time, over all servers
	MaxRequestsPerConnection int           // after which a connection is closed
	IdleTimeout              time.Duration // after which an unused connection is closed, where it is less than the sidecar's own limit
	EjectAfterGatewayErrors  int           // 502, 503 and 504 in a row, and calls without an answer
}

// The traffic policy where a provider has none of its own.
const (
	DefaultMaxConnections   = 1024
	DefaultMaxPending       = 1024
	DefaultConnectTimeout   = 10 * time.Second
	DefaultMaxConnectionAge = 10 * time.Minute
	DefaultEjectAfter       = 5
	DefaultEjectionTime     = 30 * time.Second
)

var defaultPolicy = TrafficPolicy{
	MaxConnections: DefaultMaxConnections, MaxPending: DefaultMaxPending, ConnectTimeout: DefaultConnectTimeout,
	MaxConnectionAge: DefaultMaxConnectionAge, EjectAfter: DefaultEjectAfter, EjectionTime: DefaultEjectionTime,
}

// ServersIDs gives the servers that a request may go to, each once.
func (t *Table) ServersIDs() map[ServersID]struct{} {
	all := map[ServersID]struct{}{}
	for target := range t.Targets() {
		if target.Servers != (ServersID{}) {
			all[target.Servers] = struct{}{}
		}
	}
	return all
}

// PathFor gives the upstream path of an operation; model is what Host.Operation gave. The second
// result is false where the provider's path does not tell where its other operations are.
func (t *Target) PathFor(o *Operation, model string) (string, bool) {
	switch {
	case t.Path == "":
		return "", false
	case o.IsChat():
		return t.Path, true
	case !t.hasBase:
		return "", false
	case model == "":
		return t.base + o.Suffix, true
	}
	return t.base + o.Suffix + model, true
}

// Endpoint is where and how to connect. Equal endpoints share their connections.
type Endpoint struct {
	Host       string
	Port       uint16
	TLS        bool
	ServerName string
	CABundle   string // PEM; empty: the default trust, and TrustedCAs beside it
	// TrustedCAs is Objects.TrustedCAs as far as it can be read: PEM. Zero: there are none. It is the same for many
	// endpoints, and may be long.
	TrustedCAs unique.Handle[string]
	ClientCert string // PEM; with ClientKey, for mutual TLS
	ClientKey  Key
}

// Timeouts are the time limits of a rule; 0 means none.
type Timeouts struct {
	Request, FirstToken, Idle time.Duration
}

// The time limits where a rule has none of its own.
const (
	DefaultFirstToken = 10 * time.Minute
	DefaultIdle       = 5 * time.Minute
)

// Retries is what a rule tries again.
type Retries struct {
	Attempts                                                                  int
	ConnectFailure, RateLimited, Reset, GatewayError, ServerError, FirstToken bool
}

// DefaultAttempts is how many attempts may follow the first where a rule does not say.
const DefaultAttempts = 2

var defaultTimeouts = Timeouts{FirstToken: DefaultFirstToken, Idle: DefaultIdle}

var defaultRetries = Retries{Attempts: DefaultAttempts, ConnectFailure: true, RateLimited: true}

// Host finds the owned host that an authority (the value of a Host header, or that of a URL) means. nil
// means that the host is foreign.
func (t *Table) Host(authority []byte) *Host {
	var buf [256]byte
	name := hostName(buf[:0], authority)
	if h := t.hosts[string(name)]; h != nil {
		return h
	}
	for i := range t.wildcards {
		if t.wildcards[i].covers(string(name)) {
			return t.wildcards[i].host
		}
	}
	if t.incomplete { // some object may name it that is not known
		return nil
	}
	if h := t.retired[string(name)]; h != nil {
		return h
	}
	return t.rest
}

// hostName appends the name in an authority to dst: without port and final dots, in lower case.
func hostName(dst, authority []byte) []byte {
	if i := bytes.LastIndexByte(authority, ':'); i >= 0 && bytes.IndexByte(authority[i:], ']') < 0 {
		authority = authority[:i]
	}
	authority = bytes.TrimRight(authority, ".")
	for _, c := range authority {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// Incomplete says that some configuration has never been read: which hosts are owned is not known, so
// nothing may be passed on.
func (t *Table) Incomplete() bool { return t.incomplete }

// Generation names what the table says: equal tables have equal generations.
func (t *Table) Generation() string { return t.generation }

// Endpoints gives every endpoint that a request may go to.
func (t *Table) Endpoints() map[unique.Handle[Endpoint]]struct{} {
	all := map[unique.Handle[Endpoint]]struct{}{}
	for target := range t.Targets() {
		all[target.Endpoint] = struct{}{}
	}
	return all
}
