package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"sync"

	servertls "github.com/cert-manager/cert-manager/pkg/server/tls"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"

	"remora.dev/remora/apis/v1beta1"
)

// named restricts a list or watch to one object. It is also what makes RBAC's resourceNames apply to it.
func named(name string) func(*metav1.ListOptions) {
	return func(options *metav1.ListOptions) {
		options.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
	}
}

// observe makes each event of the informer one of ours, and remembers why it cannot see what it should.
func (c *certificates) observe(informer cache.SharedIndexInformer, what string) error {
	seen := func() {
		c.mu.Lock()
		delete(c.watchError, what)
		c.mu.Unlock()
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}
	if err := informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
		c.mu.Lock()
		c.watchError[what] = err
		c.mu.Unlock()
		cache.DefaultWatchErrorHandler(ctx, r, err)
	}); err != nil {
		return err
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { seen() },
		UpdateFunc: func(any, any) { seen() },
		DeleteFunc: func(any) { seen() },
	})
	return err
}

// secret gives the Secret of the authority as the API server has it, or nil.
func (c *certificates) secret() *corev1.Secret {
	object, found, err := c.secrets.GetStore().GetByKey(c.namespace + "/" + v1beta1.WebhookCASecret)
	if err != nil || !found {
		return nil
	}
	return object.(*corev1.Secret)
}

// signer gives the authority in the Secret, or nil where it holds none: cert-manager then makes a new one.
func (c *certificates) signer() *x509.Certificate {
	secret := c.secret()
	if secret == nil {
		return nil
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil
	}
	certificate, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil
	}
	return certificate
}

// signing is the authority as cert-manager's source knows it, with a way to have a certificate signed at any time.
type signing struct {
	servertls.Authority

	mu      sync.Mutex
	rotated []chan<- struct{}
}

// WatchRotation is called by the source; its channel is the one by which it can be told to sign anew.
func (s *signing) WatchRotation(rotated chan<- struct{}) {
	s.mu.Lock()
	s.rotated = append(s.rotated, rotated)
	s.mu.Unlock()
	s.Authority.WatchRotation(rotated)
}

func (s *signing) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rotated := range s.rotated {
		select {
		case rotated <- struct{}{}:
		default: // it has been told already
		}
	}
}
