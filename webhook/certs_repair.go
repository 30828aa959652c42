package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

const (
	// repairTimeout is how long one patch or update may take.
	repairTimeout = 5 * time.Second
	// repairAgain is the time until the same version of the configuration is patched again. A patch that succeeded, or met a
	// conflict, is followed by a new version, which is looked at when it comes.
	repairAgain = 5 * time.Second
)

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

// Ready is the readiness check: nil only while both live configurations trust the certificate that is served. The error says
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
	for _, s := range c.sources {
		live, ok := s.live()
		if !ok {
			return fmt.Errorf("%s %s is not seen: apply it (config/webhook); this service account "+
				"needs list, watch and patch on it%s", s.kind, v1beta1.WebhookName, c.unseen())
		}
		if err := first.trustedByOne(live, c.hostName, now); err != nil {
			problem := fmt.Errorf("%s %s does not trust the serving certificate: %w", s.kind, v1beta1.WebhookName, err)
			if s.repaired.err != nil {
				return fmt.Errorf("%w; this process repairs caBundle, and could not: %w", problem, s.repaired.err)
			}
			return fmt.Errorf("%w; this process repairs caBundle within seconds", problem)
		}
	}
	if first.trusted.IsZero() || now.Sub(first.trusted) < readyAfter {
		return fmt.Errorf("the webhook configurations %s have trusted the serving certificate for less than %s: "+
			"the API server may not have loaded them yet", v1beta1.WebhookName, readyAfter)
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
