package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"remora.dev/remora/apis/v1beta1"
)

func TestAccessIsKeptWhateverFails(t *testing.T) {
	r := newAccessRig(t)
	f := func(name string, test func(*testing.T, *accessRig, string)) {
		t.Run(name, func(t *testing.T) { test(t, r, strings.ToLower(name)) })
	}
	f("ASkippedPodIsToldOfOnce", skippedPod)
	f("AControllerThatStartsAgainChangesNothing", accessStartsAgain)
	f("ATokenIsRenewedAtHalfItsLife", rotated)
	f("AnAuthorityThatChangesIsFollowed", authorityChanges)
	f("AnAPIServerThatDiesOnTheWayLeavesNothingUndone", serverDies)
	f("AReplicaFinishesWhatAnotherBegan", leaderChanges)
	f("NamespacesThatAreDeletedAtOnceAreNoErrors", deletedAtOnce)
	f("WhoChangesWhatIsWrittenIsNotFoughtAllTheTime", contested)
	f("AThousandSecretsAreReadOnce", secretFlood)
}

func accessStartsAgain(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.start(t)
	r.label(t, ns, v1beta1.InjectEnabled)
	r.secret(t, ns, "k", map[string]string{"apiKey": "sk-1"})
	r.apply(t, ns, providerYAML("p", keyed("k", "apiKey")))
	r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(map[string]string{"k_apiKey": "sk-1"}))
	before := r.awaitFive(t, ns)
	r.stop()
	r.start(t)
	r.awaitMetric(t, `remora_namespaces{state="kept"} 2`) // and that of the test before
	r.passes(t, 10)
	for id, now := range r.there(t.Context(), t, ns) {
		if now.GetResourceVersion() != before[id].GetResourceVersion() {
			t.Errorf("%s was written again", id)
		}
	}
	// What it missed while it was away is made up for: here a namespace that has lost its label.
	r.stop()
	r.label(t, ns, v1beta1.InjectDisabled)
	r.start(t)
	r.awaitNone(t, ns)
	r.stop()
}

func rotated(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	defer r.ahead.Store(0)
	r.start(t, "--token-life=2h")
	r.label(t, ns, v1beta1.InjectEnabled)
	r.awaitFive(t, ns)
	token := func() string {
		return string(r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool { return s != nil }).Data["token"])
	}
	renewed := func(old string) *corev1.Secret {
		t.Helper()
		return r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool { return string(s.Data["token"]) != old })
	}
	first := r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool { return s != nil })
	r.ahead.Store(int64(59 * time.Minute))
	r.passes(t, 20)
	if token() != string(first.Data["token"]) {
		t.Error("it was renewed before half of its life")
	}
	r.ahead.Store(int64(61 * time.Minute))
	second := renewed(string(first.Data["token"]))
	for _, s := range []*corev1.Secret{first, second} { // a pod that has not got the new one yet goes on
		r.eventually(t, "access", func(ctx context.Context) error {
			_, err := r.sidecar(t, s).CoreV1().Secrets(ns).List(ctx, onlyKeys)
			return err
		})
	}
	// By this clock the new token, issued by the API server's, is too old as well. That is no reason to renew it all the time.
	r.passes(t, 20)
	if token() != string(second.Data["token"]) {
		t.Error("it is renewed all the time where clocks disagree")
	}
	r.ahead.Store(0)
	r.eventually(t, "the metric", func(ctx context.Context) error {
		line, err := r.metric(ctx, "remora_token_expiry_seconds")
		if err != nil {
			return err
		}
		if left, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimPrefix(line, "remora_token_expiry_seconds")), 64); err != nil || left < 7000 || left > 7200 {
			return fmt.Errorf("%v, %w", left, err)
		}
		return nil
	})

	// How old it is, is read from the token.
	r.stop()
	r.start(t)
	r.passes(t, 10)
	if token() != string(second.Data["token"]) {
		t.Error("a controller that starts again renews it too early")
	}
	r.stop()
	r.ahead.Store(int64(90 * time.Minute))
	r.start(t)
	third := renewed(string(second.Data["token"]))
	if c, _ := readClaims(third.Data["token"]); c.Expires-c.Issued != int64(usualTokenLife/time.Second) {
		t.Errorf("it lives %d s", c.Expires-c.Issued)
	}
	r.stop()
}

func authorityChanges(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(r.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	for _, c := range config.Clusters {
		c.CertificateAuthority, c.CertificateAuthorityData = file, nil
	}
	usual := r.kubeconfig
	defer func() { r.kubeconfig = usual }()
	r.kubeconfig = file + ".kubeconfig"
	if err := errors.Join(os.WriteFile(file, r.CA(), 0o600), clientcmd.WriteToFile(*config, r.kubeconfig)); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	r.label(t, ns, v1beta1.InjectEnabled)
	r.awaitFive(t, ns)
	before := r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool { return string(s.Data["ca.crt"]) == string(r.CA()) })
	both := "# the old one and the new one\n" + string(r.CA())
	if err := os.WriteFile(file, []byte(both), 0o600); err != nil {
		t.Fatal(err)
	}
	after := r.awaitSecret(t, ns, v1beta1.AccessSecret, func(s *corev1.Secret) bool { return string(s.Data["ca.crt"]) == both })
	if string(before.Data["token"]) != string(after.Data["token"]) {
		t.Error("the token was renewed for nothing")
	}
	r.stop()
}

func serverDies(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.start(t, "--leader-elect=false") // a leader that cannot renew its Lease ends, and is started again by the kubelet
	all := r.labelMany(t, ns, 40)
	r.awaitFive(t, all[0])
	r.APIServer.Kill()
	if err := r.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		r.awaitFive(t, name)
	}
	r.awaitMetric(t, `remora_namespace_problems{code="RequestFailed"} 0`)
	r.stop()
}

func leaderChanges(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.start(t)
	first := r.stop
	r.start(t)
	all := r.labelMany(t, ns, 40)
	r.awaitFive(t, all[0])
	first()
	for _, name := range all {
		r.awaitFive(t, name)
	}
	r.passes(t, 10)
	log := r.log.all()
	for _, name := range all {
		if n := strings.Count(log, `"msg":"token issued","namespace":"`+name+`"`); n > 1 {
			t.Errorf("%s was given %d tokens", name, n)
		}
	}
	r.stop()
}

func deletedAtOnce(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.start(t)
	all := r.labelMany(t, ns, 20)
	clients := kubernetes.NewForConfigOrDie(r.Config())
	for i, name := range all {
		if err := clients.CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // this is the end of it; the others stay as those that end
			if _, err := clients.CoreV1().Namespaces().Finalize(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	last := ns + "-last"
	r.label(t, last, v1beta1.InjectEnabled)
	r.awaitFive(t, last)
	r.passes(t, 20)
	if found := r.errorsOf(ns + "-"); len(found) > 0 {
		t.Errorf("it is no error:\n%s", found)
	}
	r.awaitMetric(t, `remora_namespace_problems{code="RequestFailed"} 0`)
	r.stop()
}

// A namespace in which everything is named, and one in which somebody makes Secrets that nobody names.
func secretFlood(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	const many, perProvider = 1000, 250
	r.start(t)
	want := map[string]string{}
	if err := r.admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}); err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return fmt.Sprintf("k-%d", i) }
	if err := inParallel(many, func(i int) error {
		return r.admin.Create(t.Context(), secretOf(ns, name(i), corev1.SecretTypeOpaque, map[string]string{"apiKey": "sk-old"}))
	}); err != nil {
		t.Fatal(err)
	}
	var yaml strings.Builder
	for p := range many / perProvider {
		var configs []string
		for i := p * perProvider; i < (p+1)*perProvider; i++ {
			want[name(i)+"_apiKey"] = "sk-old"
			configs = append(configs, fmt.Sprintf("r%d: {openAIConfig: {apiKeyRef: {name: %s}}}", i, name(i)))
		}
		yaml.WriteString(providerYAML(fmt.Sprintf("p%d", p), fmt.Sprintf("{host: h%d.example.com, configs: {routeSpecificConfigs: {%s}}}", p, strings.Join(configs, ", "))))
	}
	r.apply(t, ns, yaml.String())
	r.label(t, ns, v1beta1.InjectEnabled)
	r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(want))
	r.awaitFive(t, ns)
	reads := r.secretReads(t)
	for i := range 10 {
		want[name(i)+"_apiKey"] = "sk-new"
		start := time.Now()
		r.secret(t, ns, name(i), map[string]string{"apiKey": "sk-new"})
		r.awaitSecret(t, ns, v1beta1.KeysSecret, holds(want))
		t.Logf("one key of %d is there after %s", many, time.Since(start).Round(time.Millisecond))
	}
	r.stop()
	// The test's own, the controller's two, and the status writer's.
	if n := r.secretReads(t) - reads; n > 10*8 {
		t.Errorf("ten changed Secrets of %d took %d reads", many, n)
	}
}

func skippedPod(t *testing.T, r *accessRig, ns string) {
	t.Helper()
	r.start(t)
	r.label(t, ns, v1beta1.InjectEnabled)
	skipped := func(p *corev1.Pod) {
		p.Labels[v1beta1.InjectedLabel] = "false"
		p.Annotations[v1beta1.SkipReason] = "HostNetwork: the pod uses the network of its node.\x1b[2J\u202E"
	}
	const want = `Warning NotInjected: HostNetwork: the pod uses the network of its node.\x1b[2J\u202e`
	r.pod(t, ns, "skipped", skipped)
	r.pod(t, ns, "injected", injected)
	events := func(ctx context.Context) error {
		if got := r.eventsOf(ctx, t, "Pod", ns, "skipped"); !slices.Equal(got, []string{want}) {
			return fmt.Errorf("the events are %q", got)
		}
		return nil
	}
	r.eventually(t, "the event", events)
	r.stop()
	r.start(t)
	r.pod(t, ns, "another", skipped)
	r.eventually(t, "the second event", func(ctx context.Context) error {
		if got := r.eventsOf(ctx, t, "Pod", ns, "another"); len(got) != 1 {
			return fmt.Errorf("the events are %q", got)
		}
		return nil
	})
	if err := events(t.Context()); err != nil {
		t.Error(err)
	}
	if got := r.eventsOf(t.Context(), t, "Pod", ns, "injected"); len(got) != 0 {
		t.Errorf("the events of an injected pod are %q", got)
	}
	r.stop()
}
