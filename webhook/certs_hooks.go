package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	admissioninformers "k8s.io/client-go/informers/admissionregistration/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"remora.dev/remora/apis/v1beta1"
)

// hooks is a configuration by which the API server asks this webhook, as far as certificates go.
type hooks struct {
	kind    string
	version string // its resourceVersion
	entries []hook
}

type hook struct {
	name     string
	caBundle []byte
}

// hookSource is where one of the two configurations is seen, and how it is changed.
type hookSource struct {
	kind     string
	informer cache.SharedIndexInformer
	patch    func(ctx context.Context, patch []byte) error
	repaired attempt // guarded by the mutex of certificates
}

// attempt is the last try to repair one version of a configuration.
type attempt struct {
	version string
	at      time.Time
	err     error
}

// newHookSources gives both: the one that lets pods and objects be judged, and the one that lets pods be changed.
func newHookSources(client kubernetes.Interface) []*hookSource {
	api := client.AdmissionregistrationV1()
	options := metav1.PatchOptions{FieldManager: v1beta1.WebhookName}
	return []*hookSource{{
		kind:     "ValidatingWebhookConfiguration",
		informer: admissioninformers.NewFilteredValidatingWebhookConfigurationInformer(client, 0, nil, named(v1beta1.WebhookName)),
		patch: func(ctx context.Context, patch []byte) error {
			_, err := api.ValidatingWebhookConfigurations().Patch(ctx, v1beta1.WebhookName, types.StrategicMergePatchType, patch, options)
			return err
		},
	}, {
		kind:     "MutatingWebhookConfiguration",
		informer: admissioninformers.NewFilteredMutatingWebhookConfigurationInformer(client, 0, nil, named(v1beta1.WebhookName)),
		patch: func(ctx context.Context, patch []byte) error {
			_, err := api.MutatingWebhookConfigurations().Patch(ctx, v1beta1.WebhookName, types.StrategicMergePatchType, patch, options)
			return err
		},
	}}
}

// live gives the configuration as the API server has it; ok is false where it has none.
func (s *hookSource) live() (h hooks, ok bool) {
	object, found, err := s.informer.GetStore().GetByKey(v1beta1.WebhookName)
	if err != nil || !found {
		return hooks{}, false
	}
	h.kind = s.kind
	switch c := object.(type) {
	case *admissionv1.ValidatingWebhookConfiguration:
		h.version = c.ResourceVersion
		for i := range c.Webhooks {
			h.entries = append(h.entries, hook{c.Webhooks[i].Name, c.Webhooks[i].ClientConfig.CABundle})
		}
	case *admissionv1.MutatingWebhookConfiguration:
		h.version = c.ResourceVersion
		for i := range c.Webhooks {
			h.entries = append(h.entries, hook{c.Webhooks[i].Name, c.Webhooks[i].ClientConfig.CABundle})
		}
	}
	return h, true
}

// live gives those of the two configurations that the API server has.
func (c *certificates) live() []hooks {
	var all []hooks
	for _, s := range c.sources {
		if h, ok := s.live(); ok {
			all = append(all, h)
		}
	}
	return all
}

// trustedBy says which entry of the configurations does not trust the certificate, and why; nil where all of them do. By a
// configuration that does not exist, nobody asks.
func (l leaf) trustedBy(live []hooks, hostName string, now time.Time) error {
	if len(live) == 0 {
		return errors.New("there is none")
	}
	for _, h := range live {
		if err := l.trustedByOne(h, hostName, now); err != nil {
			return err
		}
	}
	return nil
}

func (l leaf) trustedByOne(h hooks, hostName string, now time.Time) error {
	if len(h.entries) == 0 {
		return errors.New("it has no webhooks")
	}
	for _, e := range h.entries {
		if err := l.verify(parseBundle(e.caBundle), hostName, now); err != nil {
			return fmt.Errorf("caBundle of its entry %s: %w", e.name, err)
		}
	}
	return nil
}

// repair makes caBundle of every entry of both right. It touches nothing else: other fields belong to whoever applied the
// configuration, and some clusters edit its selectors.
func (c *certificates) repair(ctx context.Context, now time.Time) error {
	live := c.live()
	c.mu.Lock()
	var authorities []*x509.Certificate
	for _, l := range c.leaves {
		authorities = append(authorities, l.authority)
	}
	c.mu.Unlock()
	if len(authorities) == 0 {
		return nil
	}
	want := bundle(live, authorities, now)
	var all []error
	for _, s := range c.sources {
		i := slices.IndexFunc(live, func(h hooks) bool { return h.kind == s.kind })
		if i < 0 {
			continue
		}
		if err := c.repairOne(ctx, s, live[i], want, now); err != nil {
			all = append(all, fmt.Errorf("%s %s: %w", s.kind, v1beta1.WebhookName, err))
		}
	}
	return errors.Join(all...)
}

func (c *certificates) repairOne(ctx context.Context, s *hookSource, live hooks, want []byte, now time.Time) error {
	c.mu.Lock()
	last := s.repaired
	c.mu.Unlock()
	if last.version == live.version && now.Sub(last.at) < repairAgain {
		return nil
	}
	type clientConfig struct {
		CABundle []byte `json:"caBundle"`
	}
	type entry struct {
		Name         string       `json:"name"`
		ClientConfig clientConfig `json:"clientConfig"`
	}
	var entries []entry
	for _, e := range live.entries {
		if !bytes.Equal(e.caBundle, want) {
			entries = append(entries, entry{Name: e.name, ClientConfig: clientConfig{CABundle: want}})
		}
	}
	if len(entries) == 0 || !c.patches.TryAccept() {
		return nil // a patch that was not accepted now is tried at the next tick
	}
	// Entries are merged by name. With the version in the patch, none is added that has gone meanwhile.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": live.version},
		"webhooks": entries,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	err = s.patch(ctx, patch)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		err = nil // there is another version, or none: an event tells of it
	} else if err == nil {
		c.log.Info("caBundle repaired", "kind", live.kind, "configuration", v1beta1.WebhookName, "entries", len(entries))
	}
	c.mu.Lock()
	s.repaired = attempt{version: live.version, at: now, err: err}
	c.mu.Unlock()
	return err
}
