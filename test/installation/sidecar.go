package installation

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/controlplane"
)

// access is what the sidecars of the namespace %s may read: what the controller gives them where it is labelled.
const access = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: remora-sidecar}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: remora-sidecar}
rules:
- {apiGroups: [istio.alibabacloud.com], resources: [llmproviders, llmroutes], verbs: [list, watch]}
- {apiGroups: [""], resources: [secrets], resourceNames: [` + v1beta1.KeysSecret + `], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: remora-sidecar}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: remora-sidecar}
subjects: [{kind: ServiceAccount, name: remora-sidecar, namespace: %s}]
`

// Sidecar is a sidecar that follows the API server.
type Sidecar struct {
	*controlplane.Process
	// Listen is where apps reach it, Admin and Health are its other addresses.
	Listen, Admin, Health string
	// Kubeconfig is by what it reaches the API server.
	Kubeconfig string
}

// Sidecar describes a sidecar of a namespace, with the rights that sidecars have; its Start runs it. Further arguments are
// added to its command line.
func (in *Installation) Sidecar(ctx context.Context, namespace string, args ...string) (*Sidecar, error) {
	if out, err := in.KubectlWith(ctx, fmt.Sprintf(access, namespace), append([]string{"-n", namespace, "apply", "-f", "-"}, AsController()...)...); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	kubeconfig, err := in.Account(ctx, namespace, "remora-sidecar")
	if err != nil {
		return nil, err
	}
	return in.SidecarWith(kubeconfig, namespace, args...)
}

// SidecarWith is Sidecar with a credential that is there already.
func (in *Installation) SidecarWith(kubeconfig, namespace string, args ...string) (*Sidecar, error) {
	ports, err := controlplane.FreePorts(3)
	if err != nil {
		return nil, err
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	s := &Sidecar{Listen: at(0), Admin: at(1), Health: at(2), Kubeconfig: kubeconfig}
	args = append([]string{
		"proxy", "--kubeconfig=" + kubeconfig, "--namespace=" + namespace,
		"--listen=" + s.Listen, "--admin=" + s.Admin, "--health=" + s.Health,
	}, args...)
	s.Process = controlplane.NewProcess(filepath.Join(in.binaries, "sidecar"), filepath.Join(in.Folder(), fmt.Sprintf("sidecar-%d.log", in.sidecars.Add(1))),
		controlplane.Probe("http://"+s.Health+"/readyz"), args...)
	return s, nil
}

// Client is that of an app: its plain HTTP calls go through the sidecar.
func (s *Sidecar) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: s.Listen})}}
}

// Ask sends a chat completion without a model to a host.
func (s *Sidecar) Ask(ctx context.Context, client *http.Client, host string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/", strings.NewReader(`{"messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}
