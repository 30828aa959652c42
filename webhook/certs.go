package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	servertls "github.com/cert-manager/cert-manager/pkg/server/tls"
	"github.com/cert-manager/cert-manager/pkg/server/tls/authority"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/flowcontrol"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"remora.dev/remora/apis/v1beta1"
)

// certificateTimes are the durations that rule the certificates.
type certificateTimes struct {
	authority time.Duration // validity of an authority; it is replaced after two thirds of it
	leaf      time.Duration // validity of a serving certificate; it is replaced after two thirds of it

	// settle is how long the live configuration must have trusted a new certificate before it takes the place of one that
	// works. An API server judges by its own copy of the configuration, which it learns by a watch: normally within
	// milliseconds, but after a broken watch it lists again only after a back-off of up to 30 s and as much again of jitter.
	// Two minutes cover that, the list and clocks that differ a little (a certificate is valid from the second of its
	// signature on), and cost nothing: the old certificate is valid for days when its successor is made.
	settle time.Duration

	// barren is how long an authority may sign nothing that is valid until it is replaced. It is longer than clocks of nodes
	// differ, so that one whose clock is late does not replace what will be valid in a moment.
	barren time.Duration

	tick time.Duration // how often everything is looked at again, besides at each event
}

// readyAfter is how long the configuration must have trusted the first certificate of a process before it calls itself ready:
// enough for a watch in good order. It cannot be as long as settle, or a new installation would stand still for minutes.
const readyAfter = time.Second

// certificates gives `webhook serve` its serving certificate, and sees to it that the API server trusts it. The certificate
// authority lives in a Secret; each replica signs its own certificate with it and keeps caBundle of the
// ValidatingWebhookConfiguration and the MutatingWebhookConfiguration right. Replicas need no leader: all of them compute the same bundle from the same objects.
type certificates struct {
	config    *rest.Config
	namespace string
	hostName  string
	log       logr.Logger
	times     certificateTimes
	expiry    prometheus.Gauge
	patches   flowcontrol.RateLimiter
	changed   chan struct{} // one pending event says all: the state is read anew

	client  kubernetes.Interface
	source  *servertls.DynamicSource
	signing *signing
	secrets cache.SharedIndexInformer
	sources []*hookSource // of the configurations

	mu         sync.Mutex
	leaves     []leaf // oldest first; the first one is served
	watchError map[string]error
	barren     barren
}

// barren is an authority that has signed nothing valid yet, and since when that is so.
type barren struct {
	authority *x509.Certificate
	since     time.Time
}

// newCertificates prepares the certificates of the webhook whose Service is in the namespace. Nothing happens before Start.
func newCertificates(cfg *rest.Config, namespace string, log logr.Logger) *certificates {
	return &certificates{
		config:    cfg,
		namespace: namespace,
		hostName:  v1beta1.WebhookName + "." + namespace + ".svc",
		log:       log,
		times: certificateTimes{
			authority: 365 * 24 * time.Hour,
			leaf:      7 * 24 * time.Hour,
			settle:    2 * time.Minute,
			barren:    5 * time.Minute,
			tick:      time.Second,
		},
		expiry:     expiryGauge(),
		patches:    flowcontrol.NewTokenBucketRateLimiter(1, 10),
		changed:    make(chan struct{}, 1),
		watchError: map[string]error{},
	}
}

// expiryGauge is the metric of the certificate served. It is 0 until there is one, so that an alert on "expires soon" also
// means "there is none".
func expiryGauge() prometheus.Gauge {
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "remora_webhook_certificate_expiry_timestamp_seconds",
		Help: "When the certificate that the webhook serves expires, in seconds since 1970; 0 while it has none.",
	})
	var already prometheus.AlreadyRegisteredError
	if errors.As(metrics.Registry.Register(gauge), &already) {
		return already.ExistingCollector.(prometheus.Gauge)
	}
	return gauge
}

// NeedLeaderElection says that every replica keeps its own certificate.
func (c *certificates) NeedLeaderElection() bool { return false }

// GetCertificate gives the certificate for a TLS handshake. It is an error only until the first one has been signed.
func (c *certificates) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.leaves) == 0 {
		return nil, errors.New("no serving certificate yet")
	}
	return c.leaves[0].certificate, nil
}

// Start keeps the certificates until ctx ends, which is no error.
func (c *certificates) Start(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	c.client = client
	c.signing = &signing{Authority: &authority.DynamicAuthority{
		SecretNamespace: c.namespace,
		SecretName:      v1beta1.WebhookCASecret,
		SecretLabels:    map[string]string{v1beta1.PartOfLabel: v1beta1.PartOf},
		RESTConfig:      c.config,
		CommonName:      v1beta1.WebhookCASecret,
		CADuration:      c.times.authority,
		LeafDuration:    c.times.leaf,
	}}
	c.source = &servertls.DynamicSource{
		DNSNames:      []string{c.hostName},
		RetryInterval: min(c.times.tick, 200*time.Millisecond),
		Authority:     c.signing,
	}
	c.secrets = coreinformers.NewFilteredSecretInformer(client, c.namespace, 0, nil, named(v1beta1.WebhookCASecret))
	c.sources = newHookSources(client)
	group, ctx := errgroup.WithContext(ctx)
	informers := map[string]cache.SharedIndexInformer{"Secret " + c.namespace + "/" + v1beta1.WebhookCASecret: c.secrets}
	for _, s := range c.sources {
		informers[s.kind+" "+v1beta1.WebhookName] = s.informer
	}
	for what, informer := range informers {
		if err := c.observe(informer, what); err != nil {
			return fmt.Errorf("certificates: %w", err)
		}
		group.Go(func() error {
			informer.RunWithContext(logr.NewContext(ctx, c.log))
			return nil
		})
	}
	group.Go(func() error { return c.source.Start(logr.NewContext(ctx, libraryLog(c.log))) })
	group.Go(func() error { c.run(ctx); return nil })
	return group.Wait()
}

// run looks at everything at each event and each tick. The tick is what sees a new certificate of the source, and time that
// has passed: a clock is read each time, so a machine that slept loses nothing but the tick.
func (c *certificates) run(ctx context.Context) {
	ticker := time.NewTicker(c.times.tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		case <-ticker.C:
		}
		c.turn(c.live(), c.signer(), time.Now())
		if err := c.repair(ctx, time.Now()); err != nil && ctx.Err() == nil {
			c.log.Error(err, "cannot keep caBundle right")
		}
		if err := c.replace(ctx); err != nil && ctx.Err() == nil {
			c.log.Error(err, "cannot replace an authority that signs nothing valid", "secret", v1beta1.WebhookCASecret)
		}
	}
}

// turn takes in a new certificate of the source, and serves it when its time has come.
func (c *certificates) turn(live []hooks, signer *x509.Certificate, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.adopt(signer, now)
	if len(c.leaves) == 0 {
		return
	}
	for i := range c.leaves {
		l := &c.leaves[i]
		switch err := l.trustedBy(live, c.hostName, now); {
		case err != nil:
			l.trusted = time.Time{}
		case l.trusted.IsZero():
			l.trusted = now
		}
	}
	served := c.leaves[0].certificate
	c.leaves = c.leaves[choose(c.leaves, now, c.times.settle):]
	if c.leaves[0].certificate != served {
		c.announce()
	}
}

// adopt adds the source's certificate to the leaves if it is new and its authority is known.
func (c *certificates) adopt(signer *x509.Certificate, now time.Time) {
	next, err := c.source.GetCertificate(nil)
	if err != nil || signer == nil {
		return
	}
	made, invalid := newLeaf(next, signer, c.hostName, now)
	last := len(c.leaves) - 1
	known := last >= 0 && bytes.Equal(c.leaves[last].certificate.Certificate[0], next.Certificate[0])
	if invalid == nil {
		c.barren = barren{}
		if known {
			return
		}
		c.leaves = append(c.leaves, made)
		if len(c.leaves) == 1 {
			c.announce()
		} else if len(c.leaves) > maxAuthorities {
			c.leaves = slices.Delete(c.leaves, 1, 2)
		}
		return
	}
	if c.barren.authority == nil || !c.barren.authority.Equal(signer) {
		c.barren = barren{authority: signer, since: now}
	}
	if known && c.leaves[last].authority.Equal(signer) {
		c.signing.again() // the clock has leapt: cert-manager would see it within a minute, or not at all if it leapt back
	}
}

// announce tells of the certificate that is served from now on.
func (c *certificates) announce() {
	first := c.leaves[0]
	c.expiry.Set(float64(first.certificate.Leaf.NotAfter.Unix()))
	c.log.Info("serving a new certificate", "host", c.hostName,
		"expires", first.certificate.Leaf.NotAfter, "authority", first.authority.SerialNumber.Text(16))
}
