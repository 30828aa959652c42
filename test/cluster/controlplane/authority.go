package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// authority signs what the API server shows and what its users show.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// newAuthority makes an authority, and writes into dir what the API server needs of it.
func newAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificateTemplate(pkix.Name{CommonName: "controlplane"})
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	a := &authority{key: key, pem: encode("CERTIFICATE", der)}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	serving := certificateTemplate(pkix.Name{CommonName: "kube-apiserver"})
	serving.IPAddresses, serving.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	serving.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	certificate, private, err := a.issue(serving)
	if err != nil {
		return nil, err
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	accountsPrivate, errPrivate := x509.MarshalPKCS8PrivateKey(accounts)
	accountsPublic, errPublic := x509.MarshalPKIXPublicKey(accounts.Public())
	all := []error{errPrivate, errPublic}
	for name, content := range map[string][]byte{
		"ca.crt": a.pem, "apiserver.crt": certificate, "apiserver.key": private,
		"sa.key": encode("PRIVATE KEY", accountsPrivate), "sa.pub": encode("PUBLIC KEY", accountsPublic),
	} {
		all = append(all, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return a, errors.Join(all...)
}

func certificateTemplate(subject pkix.Name) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
	}
}

func (a *authority) issue(template *x509.Certificate) (certificate, private []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	marshalled, err := x509.MarshalPKCS8PrivateKey(key)
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", marshalled), err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// kubeconfigFor writes a kubeconfig for a user who shows a certificate.
func (c *ControlPlane) kubeconfigFor(user string, groups ...string) ([]byte, error) {
	template := certificateTemplate(pkix.Name{CommonName: user, Organization: groups})
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	certificate, private, err := c.keys.issue(template)
	if err != nil {
		return nil, err
	}
	return c.write(&clientcmdapi.AuthInfo{ClientCertificateData: certificate, ClientKeyData: private})
}

func (c *ControlPlane) write(user *clientcmdapi.AuthInfo) ([]byte, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: c.url, CertificateAuthorityData: c.keys.pem}
	config.AuthInfos["u"] = user
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "c"
	return clientcmd.Write(*config)
}

// TokenKubeconfig writes a kubeconfig with a token, such as that of a service account, to a file named so, and gives
// its path.
func (c *ControlPlane) TokenKubeconfig(name, token string) (string, error) {
	text, err := c.write(&clientcmdapi.AuthInfo{Token: token})
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.dir, name+".kubeconfig")
	return path, os.WriteFile(path, text, 0o600)
}
