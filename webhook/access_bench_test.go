package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
)

// BenchmarkAThousandNamespaces is how long it takes until as many namespaces that are labelled at once have all that their sidecars
// need, how long a key that changes meanwhile takes, and how long a controller that starts again takes to see that all is well.
func BenchmarkAThousandNamespaces(b *testing.B) {
	for b.Loop() {
		labelThousand(b)
	}
}

func labelThousand(b *testing.B) {
	b.Helper()
	const many = 1000
	r := newAccessRig(b)
	r.times = usualAccessTimes(usualTokenLife)
	r.label(b, "urgent", v1beta1.InjectEnabled)
	r.apply(b, "urgent", providerYAML("p", keyed("k", "apiKey")))
	r.start(b)
	r.secret(b, "urgent", "k", map[string]string{"apiKey": "sk-old"})
	r.awaitSecret(b, "urgent", v1beta1.KeysSecret, holds(map[string]string{"k_apiKey": "sk-old"}))

	begin := time.Now()
	r.labelMany(b, "n", many)
	changed := time.Now()
	r.secret(b, "urgent", "k", map[string]string{"apiKey": "sk-new"})
	r.awaitSecret(b, "urgent", v1beta1.KeysSecret, holds(map[string]string{"k_apiKey": "sk-new"}))
	b.ReportMetric(time.Since(changed).Seconds()*1000, "ms-key-meanwhile")
	complete := func(ctx context.Context) error {
		got, err := r.metric(ctx, `remora_namespaces{state="kept"}`)
		if err == nil && got != fmt.Sprintf("remora_namespaces{state=\"kept\"} %d\n", many+1) {
			err = fmt.Errorf("there are %s", got)
		}
		return err
	}
	r.eventually(b, "all namespaces", complete)
	b.ReportMetric(time.Since(begin).Seconds(), "s-to-all")
	var secrets corev1.SecretList
	if err := r.admin.List(b.Context(), &secrets, listOurs); err != nil || len(secrets.Items) != 2*(many+1) {
		b.Fatalf("%d Secrets, %v", len(secrets.Items), err)
	}
	r.stop()
	begin = time.Now()
	r.start(b)
	r.eventually(b, "all namespaces again", complete)
	b.ReportMetric(time.Since(begin).Seconds(), "s-to-all-at-restart")
	r.stop()
	var after corev1.SecretList
	if err := r.admin.List(b.Context(), &after, listOurs); err != nil {
		b.Fatal(err)
	}
	versions := map[string]string{}
	for i := range secrets.Items {
		versions[secrets.Items[i].Namespace+secrets.Items[i].Name] = secrets.Items[i].ResourceVersion
	}
	for i := range after.Items {
		if s := &after.Items[i]; versions[s.Namespace+s.Name] != s.ResourceVersion {
			b.Errorf("%s/%s was written again", s.Namespace, s.Name)
		}
	}
}

// listOurs selects the objects with our label.
var listOurs = client.MatchingLabels{v1beta1.PartOfLabel: v1beta1.PartOf}
