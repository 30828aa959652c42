// The Kubernetes APIs of others, for tests and the demo: their CRDs are files of these modules. The product links none of them.
module remora.dev/remora/test/cluster/crds/modules

go 1.26.0

require (
	istio.io/api v1.31.4
	sigs.k8s.io/gateway-api-inference-extension v1.2.0
)
