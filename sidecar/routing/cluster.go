package routing

// decodeCluster adds an object of a kind that the cluster or Istio has, and tells whether it is one: Service, InferencePool,
// VirtualService, DestinationRule or Gateway. What is wrong with it is a Problem of Compile.
func (o *Objects) decodeCluster(top map[string]any, ref Ref, version string) bool {
	return false
}
