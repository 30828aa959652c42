package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/controlplane"
)

// webhookPort is that of the Service. It needs no privilege to listen on.
const webhookPort = 8443

// briefly are times under which a test sees authorities come and go. Certificates are valid in whole seconds, and cert-manager
// looks at its authority every ten: two thirds of the validity, and ten seconds, must leave something.
var briefly = certificateTimes{authority: 45 * time.Second, leaf: 40 * time.Second, settle: time.Second, barren: 3 * time.Second, tick: 50 * time.Millisecond}

// atRest are times in which nothing expires during a test.
var atRest = certificateTimes{authority: 24 * time.Hour, leaf: time.Hour, settle: time.Minute, barren: time.Minute, tick: time.Second}

func TestCertificates(t *testing.T) {
	t.Parallel()
	cp, err := controlplane.Start(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cp.Stop()
	for _, test := range []struct {
		name string
		run  func(*installation)
	}{
		{"ReadinessTellsWhatIsMissingUntilTheConfigurationTrustsTheCertificate", readinessTellsWhatIsMissing},
		{"ABundleThatSomebodyBreaksIsRepairedWithinASecondAndNothingElseIsTouched", aBrokenBundleIsRepaired},
		{"AReplicaThatMayNotPatchSaysSoAndIsNotReady", aReplicaWithoutRightsSaysSo},
		{"NoCallFailsWhileAuthoritiesComeAndGo", noCallFailsWhileAuthoritiesComeAndGo},
		{"CertificatesOutliveTheAPIServer", certificatesOutliveTheAPIServer},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(install(t, cp)) })
	}
}

func readinessTellsWhatIsMissing(in *installation) {
	t := in.t
	c := in.replica(t, in.account(t, "patch"), atRest)
	if err := c.Ready(nil); err == nil || !strings.Contains(err.Error(), "no serving certificate") {
		t.Errorf("at the start: %v", err)
	}
	if _, err := c.GetCertificate(nil); err != nil && !strings.Contains(err.Error(), "no serving certificate yet") {
		t.Errorf("at the start: %v", err)
	}
	await(t, 20*time.Second, func() error {
		if err := c.Ready(nil); err == nil || !strings.Contains(err.Error(), "ValidatingWebhookConfiguration remora-webhook is not seen: apply it") {
			return fmt.Errorf("without a configuration: %w", err)
		}
		return nil
	})
	in.apply(t)
	in.awaitReady(t, c)
	served, err := c.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, bundle := range in.bundles(t) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundle)
		if _, err := served.Leaf.Verify(x509.VerifyOptions{DNSName: "remora-webhook." + in.namespace + ".svc", Roots: roots}); err != nil {
			t.Errorf("ready, though %s trusts another: %v", name, err)
		}
	}
	if err := in.call(t.Context()); err != nil {
		t.Errorf("ready, and the API server says: %v", err)
	}
	if got := gathered(t, "remora_webhook_certificate_expiry_timestamp_seconds"); got != float64(served.Leaf.NotAfter.Unix()) {
		t.Errorf("the metric says %.0f, the certificate %d", got, served.Leaf.NotAfter.Unix())
	}

	mutating := in.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	if err := mutating.Delete(t.Context(), v1beta1.WebhookName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, 5*time.Second, func() error {
		if err := c.Ready(nil); err == nil || !strings.Contains(err.Error(), "MutatingWebhookConfiguration remora-webhook is not seen: apply it") {
			return fmt.Errorf("without the configuration for pods: %w", err)
		}
		return nil
	})
	if _, err := mutating.Create(t.Context(), in.mutating(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	in.awaitReady(t, c)
	if err := in.configurations().Delete(t.Context(), v1beta1.WebhookName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, 5*time.Second, func() error {
		if c.Ready(nil) == nil {
			return errors.New("ready without a configuration")
		}
		return nil
	})
}

func aBrokenBundleIsRepaired(in *installation) {
	t := in.t
	c, d := in.replica(t, in.account(t, "patch"), atRest), in.replica(t, in.account(t, "patch"), atRest)
	in.apply(t)
	in.awaitReady(t, c, d)
	good := in.live(t)
	other := newAuthority(t, "some-other", time.Now(), time.Now().Add(time.Hour))
	expired := newAuthority(t, "expired", time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
	ours := good.Webhooks[0].ClientConfig.CABundle
	var many []byte
	for i := range 2 * maxAuthorities {
		many = append(many, newAuthority(t, "many", time.Now().Add(-time.Duration(i+1)*time.Minute), time.Now().Add(time.Minute)).certificate...)
	}
	for name, broken := range map[string][]byte{
		"empty":                    nil,
		"no PEM":                   []byte("\n"),
		"twice":                    append(bytes.Clone(ours), ours...),
		"garbage and ours":         append([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), ours...),
		"an expired one and ours":  append(bytes.Clone(expired.certificate), ours...),
		"an expired one":           expired.certificate,
		"a private key":            other.key,
		"more than a bundle holds": many,
	} {
		patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": broken}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.configurations().Patch(t.Context(), v1beta1.WebhookName,
			types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Logf("%s: the API server does not take it: %v", name, err)
			continue
		}
		await(t, 20*time.Second, func() error {
			for entry, bundle := range in.bundles(t) {
				if n := len(parseBundle(bundle)); !bytes.Contains(bundle, ours) || n > maxAuthorities ||
					bytes.Contains(bundle, expired.certificate) || bytes.Equal(bundle, broken) {
					return fmt.Errorf("%s: %s has\n%s", name, entry, bundle)
				}
			}
			return nil
		})
	}
	in.reapply(t)
	await(t, 20*time.Second, func() error {
		for name, bundle := range in.bundles(t) {
			if !bytes.Equal(bundle, ours) {
				return fmt.Errorf("applied again, %s has\n%s", name, bundle)
			}
		}
		return nil
	})
	in.awaitReady(t, c, d)
	if err := in.call(t.Context()); err != nil {
		t.Error(err)
	}

	// An authority that somebody else has put there, and what somebody has edited, stay.
	edited := in.live(t)
	edited.Webhooks[0].ClientConfig.CABundle = other.certificate
	edited.Webhooks[0].NamespaceSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "edited", Operator: metav1.LabelSelectorOpDoesNotExist}}
	edited.Labels = map[string]string{"edited": "yes"}
	if _, err := in.configurations().Update(t.Context(), edited, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, func() error {
		for name, bundle := range in.bundles(t) {
			if !bytes.Contains(bundle, ours) || !bytes.Contains(bundle, other.certificate) {
				return fmt.Errorf("%s has\n%s", name, bundle)
			}
		}
		return nil
	})
	after := in.live(t)
	for i := range after.Webhooks {
		edited.Webhooks[i].ClientConfig.CABundle = after.Webhooks[i].ClientConfig.CABundle
	}
	if !equality.Semantic.DeepEqual(after.Webhooks, edited.Webhooks) || !equality.Semantic.DeepEqual(after.Labels, edited.Labels) {
		t.Errorf("besides caBundle, something has changed:\n%v\nwas\n%v", after, edited)
	}
	in.staysAsItIs(t, 3*time.Second)
}

func aReplicaWithoutRightsSaysSo(in *installation) {
	t := in.t
	blind := in.replica(t, in.account(t), atRest)
	in.apply(t)
	await(t, 20*time.Second, func() error {
		err := blind.Ready(nil)
		if err == nil || !strings.Contains(err.Error(), "caBundle of its entry first.remora.dev") || !strings.Contains(err.Error(), "cannot patch resource") {
			return fmt.Errorf("it does not say what it lacks: %w", err)
		}
		return nil
	})
	// Once another replica has done it, all is well for this one too.
	c := in.replica(t, in.account(t, "patch"), atRest)
	in.awaitReady(t, c, blind)
	if err := in.client.CoreV1().Secrets(in.namespace).Delete(t.Context(), v1beta1.WebhookCASecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := blind.Ready(nil); err != nil {
		t.Errorf("a deleted Secret makes a certificate that is trusted useless: %v", err)
	}
}

func noCallFailsWhileAuthoritiesComeAndGo(in *installation) {
	t := in.t
	replicas := []*certificates{in.replica(t, in.account(t, "patch"), briefly), in.replica(t, in.account(t, "patch"), briefly)}
	in.apply(t)
	in.awaitReady(t, replicas...)
	ctx, stop := context.WithCancel(t.Context())
	var calls, failed atomic.Int64
	done := make(chan struct{})
	for range 3 {
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				if err := in.call(ctx); err != nil && ctx.Err() == nil {
					failed.Add(1)
					t.Errorf("after %d calls: %v", calls.Load(), err)
				}
				calls.Add(1)
			}
		}()
	}
	secrets := in.client.CoreV1().Secrets(in.namespace)
	change := func(edit func(*corev1.Secret)) func() error {
		return func() error {
			secret, err := secrets.Get(ctx, v1beta1.WebhookCASecret, metav1.GetOptions{})
			if err != nil {
				return err
			}
			edit(secret)
			_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{})
			return err
		}
	}
	remove := func() error { return secrets.Delete(ctx, v1beta1.WebhookCASecret, metav1.DeleteOptions{}) }
	foreign := newAuthority(t, "foreign", time.Now(), time.Now().Add(time.Hour))
	noServers := newAuthority(t, "no-servers", time.Now(), time.Now().Add(time.Hour), x509.ExtKeyUsageClientAuth)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"deleted", remove},
		{"old by itself", func() error { return nil }},
		{"garbage", change(func(s *corev1.Secret) { s.Data["tls.key"] = []byte("garbage") })},
		{"emptied", change(func(s *corev1.Secret) { s.Data = nil })},
		{"one that is not for servers", change(func(s *corev1.Secret) {
			s.Data = map[string][]byte{"ca.crt": noServers.certificate, "tls.crt": noServers.certificate, "tls.key": noServers.key}
		})},
		{"somebody else's", change(func(s *corev1.Secret) {
			s.Data = map[string][]byte{"ca.crt": foreign.certificate, "tls.crt": foreign.certificate, "tls.key": foreign.key}
		})},
		{"deleted again and again", func() error {
			for range 3 {
				if err := remove(); err != nil {
					return err
				}
				await(t, 20*time.Second, func() error { _, err := secrets.Get(ctx, v1beta1.WebhookCASecret, metav1.GetOptions{}); return err })
			}
			return nil
		}},
	} {
		before, begin := signers(t, replicas), time.Now()
		await(t, 10*time.Second, func() error { // replicas may be writing too
			if err := step.do(); !apierrors.IsConflict(err) {
				return err
			}
			return errors.New("conflict")
		})
		await(t, time.Minute, func() error {
			now := signers(t, replicas)
			if now[0] == before[0] || now[1] == before[1] || now[0] != now[1] {
				return fmt.Errorf("%s: replicas serve certificates of %v, before that of %v", step.name, now, before)
			}
			return nil
		})
		in.awaitReady(t, replicas...)
		t.Logf("%s: both replicas serve a certificate of another authority after %s, %d calls so far", step.name, time.Since(begin).Round(time.Millisecond), calls.Load())
	}
	stop()
	for range 3 {
		<-done
	}
	t.Logf("%d calls, %d failed, %d and %d served", calls.Load(), failed.Load(), in.served[0].Load(), in.served[1].Load())
	if calls.Load() < 200 || in.served[0].Load() < 50 || in.served[1].Load() < 50 {
		t.Error("too few calls to tell")
	}
	in.staysAsItIs(t, 3*time.Second)
}

func certificatesOutliveTheAPIServer(in *installation) {
	t := in.t
	c := in.replica(t, in.account(t, "patch"), atRest)
	in.apply(t)
	in.awaitReady(t, c)
	in.cp.APIServer.Kill()
	if err := c.Ready(nil); err != nil {
		t.Errorf("an API server that is away makes the webhook unready: %v", err)
	}
	if err := in.cp.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	in.reapply(t)
	await(t, 90*time.Second, func() error { // a watch comes back with its own back-off
		if len(in.live(t).Webhooks[0].ClientConfig.CABundle) == 0 {
			return errors.New("no caBundle")
		}
		return nil
	})
	in.awaitReady(t, c)
	if err := in.call(t.Context()); err != nil {
		t.Error(err)
	}
}

// await tries until it succeeds, and fails the test with the last error.
func await(t *testing.T, limit time.Duration, try func() error) {
	t.Helper()
	deadline := time.After(limit)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within %s: %v", limit, err)
		case <-ticker.C:
		}
	}
}
