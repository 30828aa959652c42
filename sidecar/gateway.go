package main

import (
	"fmt"
	"net/netip"
	"time"

	"remora.dev/remora/sidecar/launch"
)

// A gateway's pod has terminationGracePeriodSeconds for both together (config/gateway): answers of models take minutes.
const (
	gatewayLeaveTime = 10 * time.Second // in which connections still come, until the cluster and its load balancers know
	gatewayDrainTime = 5 * time.Minute
)

// grace is what a process has between the signal to stop and its end.
type grace struct {
	leave time.Duration // in which it still takes connections, and asks clients to make their next ones elsewhere
	drain time.Duration // in which requests may finish
}

func graceOf(a launch.Args) grace {
	if a.Command == launch.Gateway {
		return grace{leave: gatewayLeaveTime, drain: gatewayDrainTime}
	}
	return grace{drain: drainTime}
}

// publicAddress is where a gateway listens: all addresses where the command line does not say. Of a sidecar it is none.
func publicAddress(a launch.Args) (netip.Addr, error) {
	switch {
	case a.Command != launch.Gateway:
		return netip.Addr{}, nil
	case a.Bind == "":
		return netip.IPv6Unspecified(), nil
	}
	ip, err := netip.ParseAddr(a.Bind)
	if err != nil {
		return ip, fmt.Errorf("--bind: %w", err)
	}
	return ip, nil
}
