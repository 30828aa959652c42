package controlplane

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"remora.dev/remora/test/cluster/pki"
)

// newAuthority makes an authority, and writes into dir what the API server needs of it.
func newAuthority(dir string) (*pki.Authority, error) {
	a, err := pki.NewAuthority("controlplane")
	if err != nil {
		return nil, err
	}
	serving, err := a.Server("kube-apiserver", []net.IP{net.IPv4(127, 0, 0, 1)}, "localhost")
	if err != nil {
		return nil, err
	}
	private, public, err := pki.NewKey()
	all := []error{err}
	for name, content := range map[string][]byte{
		"ca.crt": a.Certificate, "apiserver.crt": serving.Certificate, "apiserver.key": serving.Key, "sa.key": private, "sa.pub": public,
	} {
		all = append(all, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return a, errors.Join(all...)
}

// kubeconfigFor gives a kubeconfig for a user who shows a certificate.
func (c *ControlPlane) kubeconfigFor(user string, groups ...string) ([]byte, error) {
	pair, err := c.keys.Client(user, groups...)
	return c.keys.Kubeconfig(c.url, pair), err
}

// UserKubeconfig writes what UserConfig gives to a file, and gives its path.
func (c *ControlPlane) UserKubeconfig(user string, groups ...string) (string, error) {
	text, err := c.kubeconfigFor(user, groups...)
	if err != nil {
		return "", err
	}
	return c.keep("user-"+strings.ReplaceAll(user, ":", "_"), text)
}

// TokenKubeconfig writes a kubeconfig with a token, such as that of a service account, to a file named so, and gives
// its path.
func (c *ControlPlane) TokenKubeconfig(name, token string) (string, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: c.url, CertificateAuthorityData: c.CA()}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "c"
	text, err := clientcmd.Write(*config)
	if err != nil {
		return "", err
	}
	return c.keep(name, text)
}

// keep writes a kubeconfig to a file, and gives its path.
func (c *ControlPlane) keep(name string, text []byte) (string, error) {
	path := filepath.Join(c.dir, name+".kubeconfig")
	return path, os.WriteFile(path, text, 0o600)
}
