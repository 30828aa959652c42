package launch

import "remora.dev/remora/sidecar/redirect/plan"

// Redirect is the command line of the program redirect, which sends a pod's outbound connections to the sidecar. (It is an
// alias, because that program links neither this package nor the Kubernetes libraries that come with it.)
type Redirect = plan.Args

// DefaultRedirectPort is what is redirected if nothing is said: plain HTTP.
const DefaultRedirectPort = plan.DefaultPort

// ParsePorts reads TCP ports that are separated by commas, such as 80,8080. Its errors name the port and say what to write.
func ParsePorts(value string) ([]uint16, error) { return plan.ParsePorts(value) }
