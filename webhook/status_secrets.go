package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// secretKnowledge says of Secrets what Compile needs to judge references to them. It reads a Secret only when an object names
// it and it has changed, and keeps no value of it: what cannot be used is kept as an empty value, and what can as a stand-in.
type secretKnowledge struct {
	metadata client.Reader // which Secrets there are: the cache
	live     client.Reader // one Secret, from the API server
	tls      map[string]routing.Key

	mu    sync.Mutex
	named map[string]map[string]bool // namespace → names of Secrets that its objects name
	known map[types.NamespacedName]known
}

// known is what is kept of a Secret as long as it is the same.
type known struct {
	version string
	routing.Secret
}

func newSecretKnowledge(metadata, live client.Reader) (*secretKnowledge, error) {
	pair, err := standInPair()
	if err != nil {
		return nil, err
	}
	return &secretKnowledge{
		metadata: metadata, live: live, tls: pair,
		named: map[string]map[string]bool{}, known: map[types.NamespacedName]known{},
	}, nil
}

// names tells whether objects of the namespace name that Secret.
func (k *secretKnowledge) names(namespace, name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.named[namespace][name]
}

// lookUp gives the Secrets of a namespace that exist of those that providers name, and of others; never nil.
func (k *secretKnowledge) lookUp(ctx context.Context, namespace string, providers []v1beta1.LLMProvider, others ...string) ([]routing.Secret, error) {
	named := map[string]bool{}
	for _, name := range slices.AppendSeq(others, maps.Keys(namedKeys(providers))) {
		if !isReserved(namespace, name) { // of the controller's own Secrets a provider gets nothing, as if they did not exist
			named[name] = true
		}
	}
	// Before the look: what changes after it is noticed, because it is named.
	k.mu.Lock()
	for name := range k.named[namespace] {
		if !named[name] {
			delete(k.known, types.NamespacedName{Namespace: namespace, Name: name})
		}
	}
	if len(named) == 0 {
		delete(k.named, namespace)
	} else {
		k.named[namespace] = named
	}
	k.mu.Unlock()

	all := slices.Sorted(maps.Keys(named))
	found := make([]*routing.Secret, len(all))
	if err := inParallel(len(all), func(i int) (err error) {
		found[i], err = k.secret(ctx, types.NamespacedName{Namespace: namespace, Name: all[i]})
		return err
	}); err != nil {
		return nil, err
	}
	secrets := []routing.Secret{}
	for _, s := range found {
		if s != nil {
			secrets = append(secrets, *s)
		}
	}
	return secrets, nil
}

// secret gives nil where there is no such Secret.
func (k *secretKnowledge) secret(ctx context.Context, id types.NamespacedName) (*routing.Secret, error) {
	head, err := secretHead(ctx, k.metadata, id)
	if head == nil || err != nil {
		return nil, err
	}
	k.mu.Lock()
	kept, ok := k.known[id]
	k.mu.Unlock()
	if ok && kept.version == head.ResourceVersion {
		return &kept.Secret, nil
	}
	whole, err := liveSecret(ctx, k.live, id)
	if whole == nil || err != nil {
		return nil, err // one that is gone meanwhile: the cache will hear of it
	}
	if id.Namespace == v1beta1.InstallationNamespace && whole.Type == corev1.SecretTypeServiceAccountToken {
		return nil, nil // no key of a provider: it is not exported either
	}
	kept = known{whole.ResourceVersion, k.reduce(whole)}
	k.mu.Lock()
	k.known[id] = kept
	k.mu.Unlock()
	return &kept.Secret, nil
}

// reduce takes the values out of a Secret. Which of them can be used is Compile's to say: it judges a provider for each key,
// and one for the certificate.
func (k *secretKnowledge) reduce(s *corev1.Secret) routing.Secret {
	whole := routing.Secret{Namespace: s.Namespace, Name: s.Name, Type: string(s.Type), Data: map[string]routing.Key{}}
	var probes []v1beta1.LLMProvider
	probe := func(name string) *v1beta1.LLMProvider {
		probes = append(probes, v1beta1.LLMProvider{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name},
			Spec:       v1beta1.LLMProviderSpec{Host: name + ".invalid"},
		})
		return &probes[len(probes)-1]
	}
	keys := slices.Sorted(maps.Keys(s.Data))
	for i, key := range keys {
		whole.Data[key] = routing.NewKey(string(s.Data[key]))
		probe(strconv.Itoa(i)).Spec.Configs.DefaultConfig.OpenAIConfig.APIKeyRef = &v1beta1.SecretKeyReference{Name: s.Name, Key: key}
	}
	const certificate = "certificate"
	probe(certificate).Spec.TLS = &v1beta1.ProviderTLS{Mode: v1beta1.TLSMutual, ClientCertificateRef: &v1beta1.LocalObjectReference{Name: s.Name}}
	problems := routing.Judge(routing.Objects{Providers: probes, Secrets: []routing.Secret{whole}})
	unusable := map[string]bool{}
	for _, p := range problems {
		unusable[p.Object.Name] = true
	}

	little := routing.Secret{Namespace: whole.Namespace, Name: whole.Name, Type: whole.Type, Data: map[string]routing.Key{}}
	for i, key := range keys {
		little.Data[key] = routing.Key{}
		if !unusable[strconv.Itoa(i)] {
			little.Data[key] = routing.NewKey("usable")
		}
	}
	if !unusable[certificate] {
		maps.Copy(little.Data, k.tls)
	}
	k.standIn(s, little.Data)
	return little
}

// standIn marks what gateways can use, who take certificates from Secrets of any type, in either pair of keys.
func (k *secretKnowledge) standIn(s *corev1.Secret, data map[string]routing.Key) {
	for _, pair := range [][2]string{{corev1.TLSCertKey, corev1.TLSPrivateKeyKey}, {"cert", "key"}} {
		if _, err := tls.X509KeyPair(s.Data[pair[0]], s.Data[pair[1]]); err == nil {
			data[pair[0]], data[pair[1]] = k.tls[corev1.TLSCertKey], k.tls[corev1.TLSPrivateKeyKey]
		}
	}
	for _, entry := range []string{"ca.crt", "cacert"} {
		if x509.NewCertPool().AppendCertsFromPEM(s.Data[entry]) {
			data[entry] = k.tls[corev1.TLSCertKey]
		}
	}
}

// namedKeys gives the Secrets that providers name, and what of each.
func namedKeys(providers []v1beta1.LLMProvider) map[string]map[string]bool {
	named := map[string]map[string]bool{}
	for i := range providers {
		for _, k := range keysNamed(&providers[i]) {
			if named[k.secret] == nil {
				named[k.secret] = map[string]bool{}
			}
			if k.isCertificate() {
				named[k.secret][corev1.TLSCertKey], named[k.secret][corev1.TLSPrivateKeyKey] = true, true
			} else {
				named[k.secret][k.key] = true
			}
		}
	}
	delete(named, "") // an object that is invalid for that
	return named
}

// secretHead gives the metadata of a Secret as a cache has it; nil where there is none.
func secretHead(ctx context.Context, cached client.Reader, id types.NamespacedName) (*metav1.PartialObjectMetadata, error) {
	head := secretMetadata()
	if err := cached.Get(ctx, id, head); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("whether Secret %s exists is not known: %w", id, err)
	}
	return head, nil
}

// liveSecret gives a Secret as the API server has it; nil where there is none.
func liveSecret(ctx context.Context, live client.Reader, id types.NamespacedName) (*corev1.Secret, error) {
	var whole corev1.Secret
	if err := live.Get(ctx, id, &whole); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("Secret %s cannot be read: %w", id, err) //nolint:staticcheck // Secret is a kind's name
	}
	return &whole, nil
}

func secretMetadata() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}
}

// standInPair makes a certificate and key that stand for any pair that can be used. Nobody trusts it, and it leaves this process never.
func standInPair() (map[string]routing.Key, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("a key cannot be made: %w", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now()}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, fmt.Errorf("a certificate cannot be made: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("a key cannot be encoded: %w", err)
	}
	text := func(kind string, der []byte) routing.Key {
		return routing.NewKey(string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	return map[string]routing.Key{corev1.TLSCertKey: text("CERTIFICATE", certificate), corev1.TLSPrivateKeyKey: text("PRIVATE KEY", key)}, nil
}
