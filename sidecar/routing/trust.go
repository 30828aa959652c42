package routing

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"unique"

	"remora.dev/remora/apis/v1beta1"
)

// trust takes the certificates out of what the installation wants to be trusted, and reports what is none.
func (c *compiler) trust() {
	if c.in.TrustedCAs == "" {
		return
	}
	good, first := []byte(nil), ""
	faults := 0
	fault := func(format string, args ...any) {
		if faults++; faults == 1 {
			first = fmt.Sprintf(format, args...)
		}
	}
	rest := []byte(c.in.TrustedCAs)
	for n := 1; ; n++ {
		block, left := pem.Decode(rest)
		// What is not PEM is passed over, comments and damaged certificates alike.
		read := "\n" + string(rest[:len(rest)-len(left)])
		if block == nil {
			read = "\n" + string(rest)
		}
		for damaged := strings.Count(read, "\n-----BEGIN "); damaged > 0 && (block == nil || damaged > 1); damaged-- {
			fault("certificate %d is damaged", n)
			n++
		}
		if block == nil {
			break
		}
		rest = left
		if block.Type != "CERTIFICATE" {
			fault("number %d is a %s and no certificate", n, clip(block.Type, 40))
		} else if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			fault("certificate %d cannot be read: %s", n, printable(err.Error()))
		} else {
			block.Headers = nil
			good = append(good, pem.EncodeToMemory(block)...)
			c.trusted.count++
		}
	}
	if c.trusted.count > 0 {
		c.trusted.pem = unique.Make(string(good))
	}
	then := "the others are trusted"
	switch {
	case c.trusted.count == 0 && faults == 0:
		first, then = "there is no certificate in it", "nothing is trusted beside the system's"
	case c.trusted.count == 0:
		then = "nothing is trusted beside the system's"
	}
	if faults > 1 {
		first = fmt.Sprintf("%s, and so with %d more", first, faults-1)
	}
	if first == "" {
		return
	}
	f := findings{object: Ref{"Secret", "", c.in.KeysIn}}
	if c.workload != nil {
		f.object.Namespace = c.workload.Namespace
	}
	f.warn(SecretInvalid, "data["+v1beta1.TrustedCAEntry+"]", "%s; %s: correct %s of ConfigMap %s/%s, where it comes from",
		first, then, v1beta1.TrustedCAsKey, v1beta1.InstallationNamespace, v1beta1.TrustedCAs)
	c.strangers = append(c.strangers, f.list...)
}

// authorities are trusted beside the system's.
type authorities struct {
	pem   unique.Handle[string] // zero: there are none
	count int
}
