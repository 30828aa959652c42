package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	admissionapi "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	admissionclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/controlplane"
)

// installation is a namespace with the Service of a webhook, whose replicas this process is.
type installation struct {
	t         *testing.T
	cp        *controlplane.ControlPlane
	client    kubernetes.Interface
	namespace string
	conns     []chan net.Conn // of each replica; connections to the Service go to them in turn
	served    [2]atomic.Int64 // calls answered by each replica
	accounts  int
	replicas  int
}

func install(t *testing.T, cp *controlplane.ControlPlane) *installation {
	t.Helper()
	client, err := kubernetes.NewForConfig(cp.Config())
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "remora-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	in := &installation{t: t, cp: cp, client: client, namespace: namespace.Name}
	service, err := client.CoreV1().Services(in.namespace).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: v1beta1.WebhookName},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: webhookPort}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range in.served {
		in.conns = append(in.conns, make(chan net.Conn))
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(webhookPort)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for i := 0; ; i++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			select {
			case in.conns[i%2] <- conn:
			case in.conns[(i+1)%2] <- conn: // there may be one replica only
			case <-t.Context().Done():
				conn.Close()
			}
		}
	}()
	t.Cleanup(func() {
		_ = client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(context.Background(), v1beta1.WebhookName, metav1.DeleteOptions{})
		_ = client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(context.Background(), v1beta1.WebhookName, metav1.DeleteOptions{})
	})
	return in
}

// account makes a service account with what certificates need and nothing else, and gives its credentials. The verbs are
// those that it has on the configuration besides list and watch.
func (in *installation) account(t *testing.T, verbs ...string) *rest.Config {
	t.Helper()
	in.accounts++
	ctx, name := t.Context(), fmt.Sprintf("%s-%d", in.namespace, in.accounts)
	meta := metav1.ObjectMeta{Name: name}
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: in.namespace}}
	ref := func(kind string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
	}
	_, err1 := in.client.CoreV1().ServiceAccounts(in.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	_, err2 := in.client.RbacV1().Roles(in.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{v1beta1.WebhookCASecret}, Verbs: []string{"list", "watch", "update"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}},
	}}, metav1.CreateOptions{})
	_, err3 := in.client.RbacV1().RoleBindings(in.namespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref("Role"), Subjects: subjects}, metav1.CreateOptions{})
	_, err4 := in.client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{"validatingwebhookconfigurations", "mutatingwebhookconfigurations"},
			ResourceNames: []string{v1beta1.WebhookName}, Verbs: append([]string{"list", "watch"}, verbs...)},
	}}, metav1.CreateOptions{})
	_, err5 := in.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref("ClusterRole"), Subjects: subjects}, metav1.CreateOptions{})
	token, err6 := in.client.CoreV1().ServiceAccounts(in.namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(in.cp.Config())
	config.BearerToken = token.Status.Token
	return config
}

// replica runs certificates, and a server with them that admits everything. Each call is a handshake of its own.
func (in *installation) replica(t *testing.T, config *rest.Config, times certificateTimes) *certificates {
	t.Helper()
	c := newCertificates(config, in.namespace, testr.New(t))
	c.times = times
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- c.Start(ctx) }()
	number := in.replicas
	in.replicas++
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionapi.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Errorf("the API server's request: %v", err)
		}
		in.served[number].Add(1)
		review.Response = &admissionapi.AdmissionResponse{UID: review.Request.UID, Allowed: true}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	})}
	server.SetKeepAlivesEnabled(false)
	go func() {
		_ = server.Serve(tls.NewListener(handedOver{in.conns[number], ctx.Done()}, &tls.Config{GetCertificate: c.GetCertificate}))
	}()
	t.Cleanup(func() {
		cancel()
		server.Close()
		if err := <-ended; err != nil {
			t.Errorf("at its end: %v", err)
		}
	})
	return c
}

// handedOver is a listener of connections that another one has accepted.
type handedOver struct {
	conns <-chan net.Conn
	done  <-chan struct{}
}

func (l handedOver) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (handedOver) Close() error   { return nil }
func (handedOver) Addr() net.Addr { return &net.TCPAddr{} }

// mutating has one entry, which is asked in the same calls as the first one of configuration.
func (in *installation) mutating() *admissionv1.MutatingWebhookConfiguration {
	like := in.configuration().Webhooks[0]
	return &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: v1beta1.WebhookName},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "third.remora.dev", ClientConfig: like.ClientConfig, Rules: like.Rules, NamespaceSelector: like.NamespaceSelector, FailurePolicy: like.FailurePolicy,
			SideEffects: like.SideEffects, TimeoutSeconds: like.TimeoutSeconds, AdmissionReviewVersions: like.AdmissionReviewVersions,
		}},
	}
}

// configuration has two entries; a call of the first one is a ConfigMap in the namespace.
func (in *installation) configuration() *admissionv1.ValidatingWebhookConfiguration {
	entry := func(name, resource string) admissionv1.ValidatingWebhook {
		return admissionv1.ValidatingWebhook{
			Name: name,
			ClientConfig: admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{
				Name: v1beta1.WebhookName, Namespace: in.namespace, Path: ptr.To("/judge"), Port: ptr.To[int32](webhookPort)}},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{resource}},
			}},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": in.namespace}},
			FailurePolicy:           ptr.To(admissionv1.Fail),
			SideEffects:             ptr.To(admissionv1.SideEffectClassNone),
			TimeoutSeconds:          ptr.To[int32](5),
			AdmissionReviewVersions: []string{"v1"},
		}
	}
	return &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: v1beta1.WebhookName},
		Webhooks:   []admissionv1.ValidatingWebhook{entry("first.remora.dev", "configmaps"), entry("second.remora.dev", "limitranges")},
	}
}

func (in *installation) apply(t *testing.T) {
	t.Helper()
	_, err := in.configurations().Create(t.Context(), in.configuration(), metav1.CreateOptions{})
	_, err2 := in.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), in.mutating(), metav1.CreateOptions{})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
}

// reapply deletes the configurations and creates them again, with no caBundle.
func (in *installation) reapply(t *testing.T) {
	t.Helper()
	err := in.configurations().Delete(t.Context(), v1beta1.WebhookName, metav1.DeleteOptions{})
	err2 := in.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(t.Context(), v1beta1.WebhookName, metav1.DeleteOptions{})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	in.apply(t)
}

func (in *installation) configurations() admissionclient.ValidatingWebhookConfigurationInterface {
	return in.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
}

func (in *installation) live(t *testing.T) *admissionv1.ValidatingWebhookConfiguration {
	t.Helper()
	live, err := in.configurations().Get(t.Context(), v1beta1.WebhookName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return live
}

// bundles gives caBundle of every entry of both configurations, by the entry's name.
func (in *installation) bundles(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, w := range in.live(t).Webhooks {
		all[w.Name] = w.ClientConfig.CABundle
	}
	mutating, err := in.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), v1beta1.WebhookName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range mutating.Webhooks {
		all[w.Name] = w.ClientConfig.CABundle
	}
	return all
}

// call is a request that the API server admits only if the webhook does.
func (in *installation) call(ctx context.Context) error {
	_, err := in.client.CoreV1().ConfigMaps(in.namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "judged-"}},
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

func (in *installation) awaitReady(t *testing.T, replicas ...*certificates) {
	t.Helper()
	for i, c := range replicas {
		await(t, 30*time.Second, func() error {
			if err := c.Ready(nil); err != nil {
				return fmt.Errorf("replica %d is not ready: %w", i, err)
			}
			return nil
		})
	}
}

// signers gives which authority's certificate each replica serves.
func signers(t *testing.T, replicas []*certificates) []string {
	t.Helper()
	var names []string
	for _, c := range replicas {
		served, err := c.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%.6x", served.Leaf.AuthorityKeyId))
	}
	return names
}

// staysAsItIs fails the test where somebody writes the configuration although there is nothing to repair.
func (in *installation) staysAsItIs(t *testing.T, during time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), during)
	defer cancel()
	watch, err := in.configurations().Watch(ctx, metav1.SingleObject(in.live(t).ObjectMeta))
	if err != nil {
		t.Fatal(err)
	}
	for event := range watch.ResultChan() {
		t.Errorf("%s: %v", event.Type, event.Object)
	}
}

// keyPair is an authority in PEM.
type keyPair struct{ certificate, key []byte }

func newAuthority(t *testing.T, name string, from, until time.Time, usage ...x509.ExtKeyUsage) keyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until,
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: usage,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{
		certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
	}
}

// gathered is the value of a metric as Prometheus would read it.
func gathered(t *testing.T, name string) float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
