package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
)

const (
	// repairTimeout is how long one patch or update may take.
	repairTimeout = 5 * time.Second
	// repairAgain is the time until the same version of the configuration is patched again. A patch that succeeded, or met a
	// conflict, is followed by a new version, which is looked at when it comes.
	repairAgain = 5 * time.Second
)

// attempt is the last try to repair one version of the configuration.
type attempt struct {
	version string
	at      time.Time
	err     error
}

// repair makes caBundle of every entry right. It touches nothing else: other fields belong to whoever applied the
// configuration, and some clusters edit its selectors.
func (c *certificates) repair(ctx context.Context, live *admissionv1.ValidatingWebhookConfiguration, now time.Time) error {
	if live == nil {
		return nil
	}
	c.mu.Lock()
	last := c.repaired
	var authorities []*x509.Certificate
	for _, l := range c.leaves {
		authorities = append(authorities, l.authority)
	}
	c.mu.Unlock()
	if len(authorities) == 0 || last.version == live.ResourceVersion && now.Sub(last.at) < repairAgain {
		return nil
	}
	want := bundle(live, authorities, now)
	type clientConfig struct {
		CABundle []byte `json:"caBundle"`
	}
	type entry struct {
		Name         string       `json:"name"`
		ClientConfig clientConfig `json:"clientConfig"`
	}
	var entries []entry
	for i := range live.Webhooks {
		if w := &live.Webhooks[i]; !bytes.Equal(w.ClientConfig.CABundle, want) {
			entries = append(entries, entry{Name: w.Name, ClientConfig: clientConfig{CABundle: want}})
		}
	}
	if len(entries) == 0 || !c.patches.TryAccept() {
		return nil // a patch that was not accepted now is tried at the next tick
	}
	// Entries are merged by name. With the version in the patch, none is added that has gone meanwhile.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": live.ResourceVersion},
		"webhooks": entries,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	_, err = c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(ctx, live.Name,
		types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldManager: v1beta1.WebhookName})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		err = nil // there is another version, or none: an event tells of it
	} else if err == nil {
		c.log.Info("caBundle repaired", "configuration", live.Name, "entries", len(entries))
	}
	c.mu.Lock()
	c.repaired = attempt{version: live.ResourceVersion, at: now, err: err}
	c.mu.Unlock()
	return err
}

// replace has the authority in the Secret replaced where it has signed nothing valid for long: cert-manager accepts any
// authority that parses, also one that is not valid yet, or not for servers, or whose signatures nobody accepts.
func (c *certificates) replace(ctx context.Context) error {
	c.mu.Lock()
	found := c.barren
	c.mu.Unlock()
	secret := c.secret()
	if secret == nil || found.authority == nil || time.Since(found.since) < c.times.barren {
		return nil
	}
	c.mu.Lock()
	c.barren.since = time.Now() // if this fails, again after as long
	c.mu.Unlock()
	c.log.Info("replacing an authority that signs nothing valid", "secret", v1beta1.WebhookCASecret,
		"authority", found.authority.SerialNumber.Text(16))
	secret = secret.DeepCopy()
	delete(secret.Data, "ca.crt") // an incomplete Secret is one that cert-manager makes anew
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	_, err := c.client.CoreV1().Secrets(c.namespace).Update(ctx, secret, metav1.UpdateOptions{FieldManager: v1beta1.WebhookName})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Ready is the readiness check: nil only while the live configuration trusts the certificate that is served. The error says
// what is missing and what to do.
func (c *certificates) Ready(*http.Request) error {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.leaves) == 0 {
		return fmt.Errorf("no serving certificate: the authority in Secret %s/%s has signed none yet; this service account needs "+
			"list, watch and update on that Secret, and create on Secrets of its namespace%s",
			c.namespace, v1beta1.WebhookCASecret, c.unseen())
	}
	first := c.leaves[0]
	if first.expired(now) {
		return fmt.Errorf("the serving certificate expired at %s, and the authority in Secret %s/%s has signed no other yet; "+
			"it does within a minute; if not, delete that Secret: it is made anew%s",
			first.certificate.Leaf.NotAfter.Format(time.RFC3339), c.namespace, v1beta1.WebhookCASecret, c.unseen())
	}
	live := c.live()
	if live == nil {
		return fmt.Errorf("ValidatingWebhookConfiguration %s is not seen: apply it (config/webhook); this service account "+
			"needs list, watch and patch on it%s", v1beta1.WebhookName, c.unseen())
	}
	if err := first.trustedBy(live, c.hostName, now); err != nil {
		problem := fmt.Errorf("ValidatingWebhookConfiguration %s does not trust the serving certificate: %w", v1beta1.WebhookName, err)
		if c.repaired.err != nil {
			return fmt.Errorf("%w; this process repairs caBundle, and could not: %w", problem, c.repaired.err)
		}
		return fmt.Errorf("%w; this process repairs caBundle within seconds", problem)
	}
	if first.trusted.IsZero() || now.Sub(first.trusted) < readyAfter {
		return fmt.Errorf("ValidatingWebhookConfiguration %s has trusted the serving certificate for less than %s: "+
			"the API server may not have loaded it yet", v1beta1.WebhookName, readyAfter)
	}
	return nil
}

// unseen tells what could not be watched, for the end of a message.
func (c *certificates) unseen() string {
	var text strings.Builder
	for what, err := range c.watchError {
		fmt.Fprintf(&text, "; cannot watch %s: %v", what, err)
	}
	return text.String()
}
