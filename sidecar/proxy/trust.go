package proxy

import (
	"crypto/x509"
	"sync"
	"unique"
)

// authorities verify providers that bring no caBundle of their own.
type authorities struct {
	base *x509.CertPool // nil: the system's

	mu    sync.Mutex
	added unique.Handle[string] // PEM, that all is made of
	all   *x509.CertPool
}

// with gives those at the start and the ones in PEM that have come since; the zero handle adds none. What was given last
// is kept: all endpoints of a configuration have the same, and it may be long.
func (a *authorities) with(added unique.Handle[string]) *x509.CertPool {
	if added == (unique.Handle[string]{}) {
		return a.base
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all != nil && a.added == added {
		return a.all
	}
	all := x509.NewCertPool() // a machine without authorities of its own
	if a.base != nil {
		all = a.base.Clone()
	} else if system, err := x509.SystemCertPool(); err == nil {
		all = system
	}
	all.AppendCertsFromPEM([]byte(added.Value())) // Compile has seen that they can be read
	a.added, a.all = added, all
	return all
}
