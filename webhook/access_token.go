package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"remora.dev/remora/apis/v1beta1"
)

// notSoon is the least time between two tokens of a namespace: clocks that disagree must not make a new one each time.
const notSoon = 5 * time.Minute

// keptAccess is what is known of the access Secret of a namespace at one version.
type keptAccess struct {
	version        string
	account        types.UID // whose token it is
	authority      string
	expires, renew time.Time
	asked          time.Time // when the last token was asked for
}

// claims are those of a token that matter here. It is not verified: nobody is let in by it, and who can put another one into the
// Secret can also delete it.
type claims struct {
	Issued     int64 `json:"iat"`
	Expires    int64 `json:"exp"`
	Kubernetes struct {
		Namespace string  `json:"namespace"`
		Secret    boundTo `json:"secret"`
		Account   boundTo `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

type boundTo struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
}

// readClaims gives false for what is no token.
func readClaims(token []byte) (c claims, ok bool) {
	parts := strings.Split(string(token), ".")
	if len(parts) != 3 {
		return c, false
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	return c, err == nil && json.Unmarshal(text, &c) == nil
}

// halfLife is when a token is renewed: as much time is left then for whatever keeps that from succeeding.
func (c *claims) halfLife() time.Time { return time.Unix(c.Issued+(c.Expires-c.Issued)/2, 0) }

// keepAccess sees to the Secret by which the sidecars of a namespace reach the API server.
func (k *keeper) keepAccess(ctx context.Context, namespace string, n *keptNamespace, account types.UID) (*trouble, error) {
	authority, err := k.authority()
	if err != nil {
		return nil, err
	}
	id := types.NamespacedName{Namespace: namespace, Name: v1beta1.AccessSecret}
	head, err := k.head(ctx, id)
	if err != nil {
		return nil, err
	}
	now := k.times.now()
	if a := &n.access; current(a.version, head) && isOurs(head) && a.account == account && a.authority == string(authority) && now.Before(a.renew) {
		return nil, nil
	}
	// It is made without a token, which needs it: when it is deleted, the token ends with it.
	secret, err := liveSecret(ctx, k.live, id)
	if err == nil {
		secret, err = k.secret(ctx, id, secret, nil)
	}
	if err != nil {
		return nil, err
	}
	if !isOurs(secret) {
		n.access = keptAccess{asked: n.access.asked}
		return foreign("Secret", id), nil
	}
	token, asked := secret.Data[corev1.ServiceAccountTokenKey], n.access.asked
	c, ok := readClaims(token)
	whose := c.Kubernetes
	ok = ok && whose.Secret.UID == secret.UID && whose.Account.UID == account && whose.Namespace == namespace && c.Expires > now.Unix()
	if !ok || !now.Before(c.halfLife()) && now.Sub(asked) >= notSoon {
		asked = now
		if token, err = k.newToken(ctx, secret); err != nil {
			return nil, err
		}
		if c, ok = readClaims(token); !ok {
			return nil, fmt.Errorf("the API server gave a token that is not a JWT: sidecars cannot be given access in this cluster")
		}
	}
	data := map[string][]byte{corev1.ServiceAccountTokenKey: token, corev1.ServiceAccountNamespaceKey: []byte(namespace)}
	if len(authority) > 0 {
		data[corev1.ServiceAccountRootCAKey] = authority
	}
	version, err := k.writeSecret(ctx, secret, data)
	if err != nil {
		return nil, err
	}
	if asked.Equal(now) {
		k.log.Info("token issued", "namespace", namespace, "expires", time.Unix(c.Expires, 0).UTC().Format(time.RFC3339))
	}
	n.access = keptAccess{version: version, account: account, authority: string(authority), expires: time.Unix(c.Expires, 0), renew: c.halfLife(), asked: asked}
	if soonest := asked.Add(notSoon); n.access.renew.Before(soonest) {
		n.access.renew = soonest
	}
	return nil, nil
}

// newToken asks for a token that is good as long as the Secret exists.
func (k *keeper) newToken(ctx context.Context, secret *corev1.Secret) ([]byte, error) {
	seconds := int64(k.times.tokenLife / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: secret.Name, UID: secret.UID},
	}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: secret.Namespace, Name: v1beta1.SidecarName}}
	if err := k.client.SubResource("token").Create(ctx, account, request); err != nil {
		return nil, fmt.Errorf("a token of ServiceAccount %s cannot be had: %w", v1beta1.SidecarName, err)
	}
	return []byte(request.Status.Token), nil
}

// authority gives who has signed the API server's certificate, as PEM. The file is read each time: it may change.
func (k *keeper) authority() ([]byte, error) {
	if k.config.CAFile == "" {
		return k.config.CAData, nil
	}
	text, err := os.ReadFile(k.config.CAFile)
	if err != nil {
		return nil, fmt.Errorf("the API server's authority: %w", err)
	}
	return text, nil
}
