// Package installation runs what config/default installs, against a control plane: the manifests applied by kubectl, and
// the real programs as processes on the addresses of their Services, with the tokens of their service accounts. What is
// missing here is only the kubelet.
package installation

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/controlplane"
)

// Installation is an installed Remora.
type Installation struct {
	*controlplane.ControlPlane
	// Webhook and Controller run until they are stopped; each can be started again.
	Webhook, Controller *controlplane.Process

	binaries string
	sidecars atomic.Int32
}

// readyTime is how long the webhook may take until the API server trusts it.
const readyTime = time.Minute

// Start builds the programs, applies config/default and runs what it describes. What runs ends with the control plane's
// process at the latest.
func Start(ctx context.Context, cp *controlplane.ControlPlane) (*Installation, error) {
	in := &Installation{ControlPlane: cp, binaries: filepath.Join(cp.Folder(), "bin")}
	if err := in.build(ctx); err != nil {
		return nil, err
	}
	if out, err := cp.Kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(root(), "config/default")); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	if out, err := cp.Kubectl(ctx, "wait", "--for=condition=Established", "crd", "-l", v1beta1.PartOfLabel+"="+v1beta1.PartOf); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	address, err := cp.Kubectl(ctx, "-n", v1beta1.InstallationNamespace, "get", "service", v1beta1.WebhookName, "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, address)
	}
	if in.Webhook, err = in.program(ctx, "serve", v1beta1.WebhookName, "--listen="+address+":443"); err != nil {
		return nil, err
	}
	if in.Controller, err = in.program(ctx, "control", v1beta1.ControllerName); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for _, p := range []*controlplane.Process{in.Webhook, in.Controller} {
		if err := p.Start(ctx); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// root is the folder of the module.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../..")
}

// build makes the two programs of the product.
func (in *Installation) build(ctx context.Context) error {
	if err := os.MkdirAll(in.binaries, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", in.binaries, "./webhook", "./sidecar")
	cmd.Dir = root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// program is a command of the webhook binary, run as its service account.
func (in *Installation) program(ctx context.Context, command, account string, args ...string) (*controlplane.Process, error) {
	kubeconfig, err := in.Account(ctx, v1beta1.InstallationNamespace, account)
	if err != nil {
		return nil, err
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		return nil, err
	}
	health := fmt.Sprintf("127.0.0.1:%d", ports[0])
	args = append([]string{
		command, "--kubeconfig=" + kubeconfig, "--namespace=" + v1beta1.InstallationNamespace,
		"--health=" + health, fmt.Sprintf("--metrics=127.0.0.1:%d", ports[1]),
	}, args...)
	return controlplane.NewProcess(filepath.Join(in.binaries, "webhook"), filepath.Join(in.Folder(), account+".log"),
		controlplane.Probe("http://"+health+"/readyz"), args...), nil
}

// AsController are flags for an administrator's kubectl, to write what the guards let nobody but the controller write.
func AsController() []string {
	return []string{"--as=system:serviceaccount:" + v1beta1.InstallationNamespace + ":" + v1beta1.ControllerName, "--as-group=system:masters"}
}

// Account gives a kubeconfig with a token of a service account, also of one whose tokens are the controller's to ask for.
func (in *Installation) Account(ctx context.Context, namespace, account string) (string, error) {
	token, err := in.Kubectl(ctx, append([]string{"-n", namespace, "create", "token", account, "--duration=24h"}, AsController()...)...)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, token)
	}
	return in.TokenKubeconfig(namespace+"-"+account, strings.TrimSpace(token))
}
