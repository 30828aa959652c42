package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strings"
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
	complete := r.kept(many + 1)
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

// BenchmarkExportedKeys is how long it takes until a hundred namespaces have the providers that are exported to all, until a changed key
// of one of them is in each, and until four hundred namespaces more that are labelled meanwhile have all.
func BenchmarkExportedKeys(b *testing.B) {
	for _, shared := range []int{10, 100} {
		b.Run(fmt.Sprintf("providers=%d", shared), func(b *testing.B) {
			for b.Loop() {
				exportToMany(b, shared)
			}
		})
	}
}

func exportToMany(b *testing.B, shared int) {
	b.Helper()
	const some, more = 100, 400
	r := newAccessRig(b)
	r.times = usualAccessTimes(usualTokenLife)
	var all strings.Builder
	for i := range shared {
		fmt.Fprintf(&all, "---\n{apiVersion: v1, kind: Secret, metadata: {name: s%d}, stringData: {apiKey: sk-old-%d}}\n", i, i)
		all.WriteString(providerYAML(fmt.Sprintf("p%d", i), exportedSpec("['*']", fmt.Sprintf("s%d", i), "")))
	}
	r.start(b)
	r.labelMany(b, "some", some)
	r.eventually(b, "all namespaces", r.kept(some))
	begin := time.Now()
	arrival := r.arrivals(b, some, func(s *corev1.Secret) bool { return len(s.Data) == shared })
	r.apply(b, system, all.String())
	arrival(begin, "all")

	arrival = r.arrivals(b, some, func(s *corev1.Secret) bool {
		return bytes.Contains(s.Data["_provider_p7"], []byte(base64.StdEncoding.EncodeToString([]byte("sk-new"))))
	})
	begin = time.Now()
	r.secret(b, system, "s7", map[string]string{"apiKey": "sk-new"})
	arrival(begin, "rotated")

	begin = time.Now()
	arrival = r.arrivals(b, some+more, func(s *corev1.Secret) bool {
		return len(s.Data) == shared && s.Data["_provider_p8"] == nil && s.Data["_provider_last"] != nil
	})
	r.labelMany(b, "more", more)
	r.apply(b, system, providerYAML("last", exportedSpec("['*']", "s9", "")))
	r.delete(b, system, "llmprovider", "p8")
	arrival(begin, "meanwhile")
	b.ReportMetric(0, "ns/op")
	r.stop()
}

// kept tells whether n namespaces have what they need.
func (r *accessRig) kept(n int) func(context.Context) error {
	return func(ctx context.Context) error {
		got, err := r.metric(ctx, `remora_namespaces{state="kept"}`)
		if err == nil && got != fmt.Sprintf("remora_namespaces{state=\"kept\"} %d\n", n) {
			err = fmt.Errorf("there are %s", got)
		}
		return err
	}
}

// arrivals watches the keys Secrets of all namespaces. What it gives waits until n are as wanted, and reports when they were since begin.
func (r *accessRig) arrivals(b *testing.B, n int, wanted func(*corev1.Secret) bool) func(begin time.Time, what string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	w, err := r.admin.Watch(ctx, &corev1.SecretList{}, client.MatchingFields{"metadata.name": v1beta1.KeysSecret})
	if err != nil {
		b.Fatal(err)
	}
	at := make(chan []time.Time, 1)
	go func() {
		first := map[string]bool{}
		var times []time.Time
		for e := range w.ResultChan() {
			if s, ok := e.Object.(*corev1.Secret); ok && !first[s.Namespace] && wanted(s) {
				first[s.Namespace] = true
				times = append(times, time.Now())
			}
			if len(times) == n {
				break
			}
		}
		at <- times
	}()
	return func(begin time.Time, what string) {
		b.Helper()
		defer cancel()
		times := <-at
		if len(times) < n {
			b.Fatalf("%s: only %d of %d namespaces", what, len(times), n)
		}
		b.ReportMetric(times[n/2].Sub(begin).Seconds()*1000, "ms-p50-"+what)
		b.ReportMetric(times[n-1].Sub(begin).Seconds()*1000, "ms-last-"+what)
	}
}

// listOurs selects the objects with our label.
var listOurs = client.MatchingLabels{v1beta1.PartOfLabel: v1beta1.PartOf}
