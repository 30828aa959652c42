package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

// maxAuthorities bounds caBundle. More than two are in it only where somebody replaces the authority by hand, again and again
// within the time that a certificate takes to settle: each of those may still be the one that some replica is trusted by.
const maxAuthorities = 16

// leaf is a serving certificate and the authority that signed it.
type leaf struct {
	certificate *tls.Certificate
	authority   *x509.Certificate
	trusted     time.Time // since when the live configuration is seen to trust it; zero where it does not
}

// newLeaf joins the two, or says why nobody who trusts the authority would accept the certificate for the host name.
func newLeaf(certificate *tls.Certificate, authority *x509.Certificate, hostName string, now time.Time) (leaf, error) {
	parsed, err := x509.ParseCertificate(certificate.Certificate[0])
	if err != nil {
		return leaf{}, err
	}
	complete := *certificate
	complete.Leaf = parsed
	made := leaf{certificate: &complete, authority: authority}
	return made, made.verify([]*x509.Certificate{authority}, hostName, now)
}

// verify is an API server's judgement of the certificate, with the authorities of a caBundle.
func (l leaf) verify(authorities []*x509.Certificate, hostName string, now time.Time) error {
	roots := x509.NewCertPool()
	for _, authority := range authorities {
		roots.AddCert(authority)
	}
	_, err := l.certificate.Leaf.Verify(x509.VerifyOptions{
		DNSName:     hostName,
		Roots:       roots,
		CurrentTime: now,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

func (l leaf) expired(now time.Time) bool { return now.After(l.certificate.Leaf.NotAfter) }

// choose gives the index of the leaf to serve. The first leaf is the one served now, the last one the newest.
func choose(leaves []leaf, now time.Time, settle time.Duration) int {
	newest := len(leaves) - 1
	for i := newest; i >= 0; i-- {
		if l := leaves[i]; !l.expired(now) && !l.trusted.IsZero() && now.Sub(l.trusted) >= settle {
			return i
		}
	}
	if !leaves[0].expired(now) && !leaves[0].trusted.IsZero() {
		return 0
	}
	// What is served now is of no use: there is nothing to wait for.
	for i := newest; i > 0; i-- {
		if !leaves[i].expired(now) && !leaves[i].trusted.IsZero() {
			return i
		}
	}
	// None is trusted. Somebody has emptied the bundle, perhaps, and an API server that has not seen it yet trusts the first.
	if !leaves[0].expired(now) {
		return 0
	}
	return newest
}

// bundle gives the caBundle that every entry of the configurations should have: the authorities given, the last of which signs
// now, and those of any entry that have not expired, because another replica may still serve a certificate of one of them. Its
// order depends on nothing but what is in it, so that replicas do not undo each other's work.
func bundle(live []hooks, authorities []*x509.Certificate, now time.Time) []byte {
	all := slices.Clone(authorities)
	for _, h := range live {
		for _, e := range h.entries {
			all = append(all, parseBundle(e.caBundle)...)
		}
	}
	all = slices.DeleteFunc(all, func(a *x509.Certificate) bool { return now.After(a.NotAfter) })
	slices.SortFunc(all, func(a, b *x509.Certificate) int {
		if order := b.NotBefore.Compare(a.NotBefore); order != 0 {
			return order
		}
		return bytes.Compare(a.Raw, b.Raw)
	})
	all = slices.CompactFunc(all, (*x509.Certificate).Equal)
	if len(all) > maxAuthorities {
		// However new the others say they are, the one that signs now stays.
		current := slices.IndexFunc(all, authorities[len(authorities)-1].Equal)
		if current >= maxAuthorities {
			all[maxAuthorities-1] = all[current]
		}
		all = all[:maxAuthorities]
	}
	var out bytes.Buffer
	for _, a := range all {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Raw}))
	}
	return out.Bytes()
}

// parseBundle gives the authorities in a caBundle. What is no authority is left out.
func parseBundle(caBundle []byte) []*x509.Certificate {
	var authorities []*x509.Certificate
	for len(caBundle) > 0 {
		block, rest := pem.Decode(caBundle)
		if block == nil {
			break
		}
		caBundle = rest
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" && certificate.IsCA {
			authorities = append(authorities, certificate)
		}
	}
	return authorities
}
