package routing

// Code is a stable name for one thing that can be wrong. Errors sent to apps, logs, metrics and the
// status of objects all use these names, and no others.
type Code string

// What can be wrong with configuration.
const (
	InvalidValue        Code = "InvalidValue"        // a field has a value that it cannot have
	UnknownField        Code = "UnknownField"        // a field that the kind does not have
	UnreadableObject    Code = "UnreadableObject"    // text that is not the object it should be
	DuplicateObject     Code = "DuplicateObject"     // two objects with one kind, namespace and name
	HostConflict        Code = "HostConflict"        // another object has the host already
	NotSupported        Code = "NotSupported"        // valid, but not done yet
	KeyInPlainText      Code = "KeyInPlainText"      // a key would be sent without TLS
	ProviderNotFound    Code = "ProviderNotFound"    // no provider has that host
	SecretNotFound      Code = "SecretNotFound"      // a Secret, or the key in it, is not there
	SecretInvalid       Code = "SecretInvalid"       // a Secret is there, but what it holds cannot be used
	RuleNeverMatches    Code = "RuleNeverMatches"    // earlier rules take everything
	RouteConfigUnused   Code = "RouteConfigUnused"   // no rule has that name
	ServiceNotFound     Code = "ServiceNotFound"     // a Service or InferencePool, or the port of one, is not there
	SubsetNotFound      Code = "SubsetNotFound"      // no DestinationRule has a subset of that name
	ServiceNotExported  Code = "ServiceNotExported"  // a Service of another namespace that is not exported to this one
	GatewayNotFound     Code = "GatewayNotFound"     // no Istio Gateway has that name
	FieldNotHonoured    Code = "FieldNotHonoured"    // a field of Istio's that is understood by Istio only
	PortConflict        Code = "PortConflict"        // two servers that cannot share one port
	CertificateNotFound Code = "CertificateNotFound" // the Secret that credentialName names, or the certificate in it, is not there
	KeyNotAtGateway     Code = "KeyNotAtGateway"     // a gateway has the keys of its own namespace only
	KeysTooLarge        Code = "KeysTooLarge"        // more keys than the Secret of a namespace's sidecars can hold
	KeyNotPermitted     Code = "KeyNotPermitted"     // who writes the object may not read the key that it would send
	InlineKey           Code = "InlineKey"           // a key is written into the object
	UnexpandedVariable  Code = "UnexpandedVariable"  // ${VARIABLE} was not replaced
	ReadableByOthers    Code = "ReadableByOthers"    // a file with keys that other users may read
	WritableByOthers    Code = "WritableByOthers"    // a folder or file that other users may write
	ConfigurationUnread Code = "ConfigurationUnread" // some or all configuration has not been read yet
)

// What can be wrong with a request, beside what is wrong with the configuration it needs.
const (
	NotForThisWorkload   Code = "NotForThisWorkload"   // the provider does not select the calling pod
	InvalidConfiguration Code = "InvalidConfiguration" // the object that the request needs is refused
	HostRetired          Code = "HostRetired"          // no object names the host any more that was served before
	NoRuleMatches        Code = "NoRuleMatches"        // the route has no rule for the request
	OperationNotFound    Code = "OperationNotFound"    // the path is not one of the inference operations
	MethodNotAllowed     Code = "MethodNotAllowed"     // the operation has another method
	MisdirectedRequest   Code = "MisdirectedRequest"   // the host is nobody's here
	UpgradeRequired      Code = "UpgradeRequired"      // the operation is a WebSocket, and the request is none
	InvalidRequest       Code = "InvalidRequest"       // the request is not HTTP as it should be
	InvalidJSON          Code = "InvalidJSON"          // the body is not a JSON object
	DuplicateKey         Code = "DuplicateKey"         // the body has a key twice
	UnsupportedEncoding  Code = "UnsupportedEncoding"  // the body is compressed
	RequestTooLarge      Code = "RequestTooLarge"      // the body is over the limit
	RequestTimeout       Code = "RequestTimeout"       // the request did not arrive in time
	ServersMissing       Code = "ServersMissing"       // a Service or InferencePool has no server that is ready
	FaultInjected        Code = "FaultInjected"        // a VirtualService asks for this failure
	HostNotServed        Code = "HostNotServed"        // nothing at this gateway is bound to the host
	Overloaded           Code = "Overloaded"           // every connection to the provider is in use
	ConnectFailure       Code = "ConnectFailure"       // the provider cannot be reached
	UntrustedCertificate Code = "UntrustedCertificate" // the provider's certificate does not verify
	UpstreamReset        Code = "UpstreamReset"        // the provider ended the connection too early
	UpstreamRefusal      Code = "UpstreamRefusal"      // the provider answered 4xx or 5xx
	UpstreamInvalid      Code = "UpstreamInvalid"      // the provider's answer is not HTTP
	FirstTokenTimeout    Code = "FirstTokenTimeout"    // the answer did not begin in time
	IdleTimeout          Code = "IdleTimeout"          // the answer stalled
	DeadlineExceeded     Code = "DeadlineExceeded"     // the whole took longer than the rule allows
	ClientGone           Code = "ClientGone"           // the app left before the answer was complete
	BackendEjected       Code = "BackendEjected"       // a provider failed so often that it is left alone for a while
	RetryBudgetSpent     Code = "RetryBudgetSpent"     // too many attempts are retries already
	DirectConnection     Code = "DirectConnection"     // a call to the sidecar's own port, where only redirected ones are taken
	CallerNotAllowed     Code = "CallerNotAllowed"     // the provider is not for processes of the user that calls
	KeyRefused           Code = "KeyRefused"           // the provider answered 401, 403 or 429, and another key follows
	KeyRevoked           Code = "KeyRevoked"           // the key was taken away while the call was under way
	ShuttingDown         Code = "ShuttingDown"         // the sidecar is ending
	InternalError        Code = "InternalError"        // a fault of the sidecar itself
)
