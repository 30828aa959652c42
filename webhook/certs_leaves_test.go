package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	servertls "github.com/cert-manager/cert-manager/pkg/server/tls"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestTheCertificateThatWorksIsServedUntilItsSuccessorHasSettled(t *testing.T) {
	now := time.Now()
	const never, expired = time.Duration(-1), true
	made := func(trustedFor time.Duration, old ...bool) leaf {
		l := leaf{certificate: &tls.Certificate{Leaf: &x509.Certificate{NotAfter: now.Add(time.Hour)}}}
		if len(old) > 0 {
			l.certificate.Leaf.NotAfter = now.Add(-time.Second)
		}
		if trustedFor != never {
			l.trusted = now.Add(-trustedFor)
		}
		return l
	}
	f := func(name string, want int, leaves ...leaf) {
		t.Helper()
		if got := choose(leaves, now, time.Minute); got != want {
			t.Errorf("%s: serves %d, want %d", name, got, want)
		}
	}
	f("the only one", 0, made(never))
	f("one that nobody trusts yet", 0, made(time.Hour), made(never))
	f("one that is trusted, but not for long", 0, made(time.Hour), made(59*time.Second))
	f("one that has settled", 1, made(time.Hour), made(time.Minute))
	f("the newest that has settled", 2, made(time.Hour), made(2*time.Minute), made(time.Minute), made(time.Second))
	f("the first has expired, so there is nothing to wait for", 1, made(time.Hour, expired), made(time.Second))
	f("the first has expired, and the second is trusted by nobody", 1, made(time.Hour, expired), made(never))
	f("the first is no longer trusted", 2, made(never), made(2*time.Second), made(time.Second), made(never))
	f("none is trusted, as when somebody has emptied the bundle", 0, made(never), made(never))
	f("both have expired", 1, made(time.Hour, expired), made(time.Hour, expired))
}

func TestReplicasThatDifferInTheirViewAgreeOnTheBundle(t *testing.T) {
	now := time.Now()
	var authorities []*x509.Certificate
	for i := range maxAuthorities + 4 {
		authorities = append(authorities, parseBundle(newAuthority(t, "the same name", now.Add(time.Duration(i-60)*time.Minute), now.Add(time.Hour)).certificate)...)
	}
	gone := parseBundle(newAuthority(t, "gone", now.Add(-time.Hour), now.Add(-time.Second)).certificate)
	live := []hooks{{entries: make([]hook, 1)}, {entries: make([]hook, 1)}}
	// Two replicas, one of which has seen the next authority already, write in turn until neither has anything to write.
	views := [][]*x509.Certificate{authorities[:2], {authorities[0], authorities[1], authorities[2]}}
	var last []byte
	for turn := range 6 {
		last = live[0].entries[0].caBundle
		live[0].entries[0].caBundle = bundle(live, views[turn%2], now)
	}
	if got := live[0].entries[0].caBundle; !bytes.Equal(got, last) || len(parseBundle(got)) != 3 {
		t.Errorf("they disagree:\n%s\nand\n%s", got, last)
	}

	live[1].entries[0].caBundle = bundleOf(append(gone, authorities[3:]...))
	got := parseBundle(bundle(live, authorities[:1], now))
	if len(got) != maxAuthorities || !slices.ContainsFunc(got, authorities[0].Equal) || slices.ContainsFunc(got, gone[0].Equal) {
		t.Errorf("%d authorities, want %d with the oldest, which signs now, and none that has expired", len(got), maxAuthorities)
	}
	if !slices.ContainsFunc(got, authorities[len(authorities)-1].Equal) {
		t.Error("the newest of the others is not among them")
	}
}

func TestAMachineThatSleptOrWhoseClockLeapsBackGetsANewCertificateAtOnce(t *testing.T) {
	pair := newAuthority(t, "steady", time.Now().Add(-24*time.Hour), time.Now().Add(240*time.Hour))
	signs, err := tls.X509KeyPair(pair.certificate, pair.key)
	if err != nil {
		t.Fatal(err)
	}
	signer := parseBundle(pair.certificate)[0]
	c := newCertificates(nil, "remora-system", logr.Discard())
	c.signing = &signing{Authority: steady{signer, signs.PrivateKey}}
	c.source = &servertls.DynamicSource{DNSNames: []string{c.hostName}, Authority: c.signing}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.source.Start(logr.NewContext(ctx, logr.Discard())) }()
	defer func() { cancel(); <-ended }()
	signed := func() []byte {
		t.Helper()
		var der []byte
		await(t, 10*time.Second, func() error {
			certificate, err := c.source.GetCertificate(nil)
			if err == nil {
				der = certificate.Certificate[0]
			}
			return err
		})
		return der
	}
	for _, leap := range []time.Duration{48 * time.Hour, -12 * time.Hour} {
		before := signed()
		c.turn(nil, signer, time.Now())
		if again := signed(); !bytes.Equal(before, again) {
			t.Error("a certificate that is valid is replaced")
		}
		c.turn(nil, signer, time.Now().Add(leap))
		await(t, 10*time.Second, func() error {
			if bytes.Equal(before, signed()) {
				return fmt.Errorf("after a leap of %s the certificate is still the old one", leap)
			}
			return nil
		})
	}
}

func TestLinesOfTheLibraryHaveOurLevels(t *testing.T) {
	var lines []string
	log := libraryLog(funcr.New(func(prefix, args string) { lines = append(lines, prefix+" "+args) }, funcr.Options{}))
	log.Info("chatter")
	log.V(2).Info("an event")
	log.V(4).Info("detail")
	log.Error(apierrors.NewConflict(schema.GroupResource{}, "it", nil), "another was faster")
	log.WithValues("key", "value").Error(errors.New("broken"), "a fault")
	want := []string{`cert-manager "level"=0 "msg"="an event"`, `cert-manager "msg"="a fault" "error"="broken" "key"="value"`}
	if !slices.Equal(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
}

// steady is an authority that is never replaced; its certificates are valid for a day.
type steady struct {
	certificate *x509.Certificate
	key         crypto.PrivateKey
}

func (steady) Run(ctx context.Context) error        { <-ctx.Done(); return nil }
func (steady) WatchRotation(chan<- struct{})        {}
func (steady) StopWatchingRotation(chan<- struct{}) {}
func (s steady) Sign(template *x509.Certificate) (*x509.Certificate, error) {
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now(), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, s.certificate, template.PublicKey, s.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func bundleOf(authorities []*x509.Certificate) []byte {
	var out []byte
	for _, a := range authorities {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Raw})...)
	}
	return out
}
