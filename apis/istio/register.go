package istio

// Group is the API group of all kinds here.
const Group = "networking.istio.io"

// Versions are those that are understood, the newest first.
var Versions = []string{"v1", "v1beta1", "v1alpha3"}

// The kinds.
const (
	KindVirtualService  = "VirtualService"
	KindDestinationRule = "DestinationRule"
	KindGateway         = "Gateway"
)

// ExportToAnnotation, on a Service, names the namespaces whose routes may use it: names separated by commas, "." for its own, "*" for
// all. The word and its meaning are Istio's.
const ExportToAnnotation = "networking.istio.io/exportTo"

// BalanceAnnotation, on a DestinationRule, says what its own words cannot: LEAST_TOKENS.
const BalanceAnnotation = "remora.dev/load-balancer"
