package launch

// The environment by which the injector tells the sidecar whose it is. A variable may be missing.
const (
	PodVariable            = "REMORA_POD"
	NamespaceVariable      = "REMORA_NAMESPACE"
	WorkloadVariable       = "REMORA_WORKLOAD" // KIND/NAME of what made the pod, such as Deployment/sleep
	ServiceAccountVariable = "REMORA_SERVICE_ACCOUNT"
	NodeVariable           = "REMORA_NODE"
)

// Identity is whose calls a process serves. Fields that are not known are empty.
type Identity struct {
	Pod, Namespace, Workload, ServiceAccount, Node string
}

// IdentityOf reads the environment.
func IdentityOf(getenv func(string) string) Identity {
	return Identity{
		Pod: getenv(PodVariable), Namespace: getenv(NamespaceVariable), Workload: getenv(WorkloadVariable),
		ServiceAccount: getenv(ServiceAccountVariable), Node: getenv(NodeVariable),
	}
}
