package installation

import (
	"context"
	"fmt"
	"path/filepath"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/controlplane"
)

// Gateway is a gateway that follows the API server.
type Gateway struct {
	*controlplane.Process
	// Admin and Health are its addresses. Where it listens otherwise, Istio's Gateways say.
	Admin, Health string
}

// Gateway applies config/gateway, whose pods nobody runs here, and describes a gateway with the rights of its service account; its Start
// runs it, on the address given.
func (in *Installation) Gateway(ctx context.Context, bind string) (*Gateway, error) {
	if out, err := in.Kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(root(), "config/gateway")); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	// Its rights are there with the manifests, and what it waits for when the controller has seen the namespace.
	if out, err := in.Kubectl(ctx, "-n", v1beta1.GatewayName, "wait", "--for=create", "secret/"+v1beta1.KeysSecret, "--timeout=2m"); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	kubeconfig, err := in.Account(ctx, v1beta1.GatewayName, v1beta1.GatewayName)
	if err != nil {
		return nil, err
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		return nil, err
	}
	g := &Gateway{Admin: fmt.Sprintf("127.0.0.1:%d", ports[0]), Health: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	g.Process = controlplane.NewProcess(filepath.Join(in.binaries, "sidecar"), filepath.Join(in.Folder(), "gateway.log"),
		controlplane.Probe("http://"+g.Health+"/readyz"),
		"gateway", "--kubeconfig="+kubeconfig, "--namespace="+v1beta1.GatewayName, "--bind="+bind, "--admin="+g.Admin, "--health="+g.Health)
	return g, nil
}
