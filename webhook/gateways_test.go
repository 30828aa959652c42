package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/crds"
)

// fourResources are those of a program that serves APIs, as they are written for Istio.
const fourResources = `
apiVersion: v1
kind: Service
metadata: {name: api-service}
spec: {type: LoadBalancer, selector: {app: large-language-model-api}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata: {name: api-virtual-service}
spec: {hosts: [api.example.com], gateways: [api-gateway], http: [{route: [{destination: {host: api-service, port: {number: 80}}}]}]}
---
apiVersion: networking.istio.io/v1beta1
kind: DestinationRule
metadata: {name: api-destination-rule}
spec: {host: api-service, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
---
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata: {name: api-gateway}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
`

// install makes the namespace of the gateways.
func (r *statusRig) installGateway(tb testing.TB) {
	tb.Helper()
	for _, args := range [][]string{
		{"create", "namespace", v1beta1.GatewayName},
		{"annotate", "namespace", v1beta1.GatewayName, v1beta1.GatewayLabels + "=app=remora-gateway,istio=ingressgateway"},
		{"label", "namespace", v1beta1.GatewayName, v1beta1.InjectLabel + "=" + v1beta1.InjectPods},
	} {
		if out, err := r.Kubectl(tb.Context(), args...); err != nil {
			tb.Fatalf("%v\n%s", err, out)
		}
	}
}

// conditionsOf gives the conditions of an object of Istio's, by type.
func (r *statusRig) conditionsOf(ctx context.Context, kind, namespace, name string) (map[string]metav1.Condition, error) {
	out, err := r.Kubectl(ctx, "-n", namespace, "get", kind, name, "-o", "jsonpath={.status.conditions}")
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var all []metav1.Condition
	if out != "" {
		if err := json.Unmarshal([]byte(out), &all); err != nil {
			return nil, err
		}
	}
	found := map[string]metav1.Condition{}
	for _, c := range all {
		found[c.Type] = c
	}
	return found, nil
}

// awaitIstio waits until a condition has a status and a part of a message. None is wanted where status is empty.
func (r *statusRig) awaitIstio(tb testing.TB, kind, namespace, name, condition string, status metav1.ConditionStatus, part string) {
	tb.Helper()
	r.eventually(tb, condition+" of "+kind+" "+name, func(ctx context.Context) error {
		all, err := r.conditionsOf(ctx, kind, namespace, name)
		if c := all["remora.dev/"+condition]; err == nil && (c.Status != status || !strings.Contains(c.Reason+" "+c.Message, part)) {
			err = fmt.Errorf("they are %+v", all)
		}
		return err
	})
}

func TestIstiosObjectsSayWhatRemoraMakesOfThemWhereItExecutesThem(t *testing.T) {
	r := newAccessRig(t)
	r.installGateway(t)
	r.start(t)
	define(t, r.statusRig, crds.VirtualServices, crds.DestinationRules, crds.Gateways) // later than the controller
	others := strings.NewReplacer("api-gateway", "others-gateway", "ingressgateway", "elsewhere", "api-virtual-service", "others-virtual-service").Replace(fourResources)
	r.apply(t, "shop", fourResources+"\n---\n"+others)
	r.awaitIstio(t, "gateway", "shop", "api-gateway", "Accepted", metav1.ConditionTrue, "valid and in use")
	r.awaitIstio(t, "virtualservice", "shop", "api-virtual-service", "ResolvedRefs", metav1.ConditionTrue, "everything that the object names exists")

	r.awaitIstio(t, "destinationrule", "shop", "api-destination-rule", "Accepted", metav1.ConditionTrue, "valid and in use")
	t.Run("a subset", func(t *testing.T) {
		r.apply(t, "shop", "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}")
		s := &serversRig{statusRig: r.statusRig}
		s.serve(t, "shop", "first", "10.0.0.1", map[string]string{"app": "large-language-model-api", "version": "v1"})
		s.serve(t, "shop", "second", "10.0.0.2", map[string]string{"app": "large-language-model-api", "version": "v2"})
		r.apply(t, "shop", `{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: api-destination-rule},
			spec: {host: api-service, subsets: [{name: one, labels: {version: v1}}, {name: two, labels: {version: v2}}]}}`)
		r.apply(t, "shop", `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: api-virtual-service},
			spec: {hosts: [api.example.com], gateways: [api-gateway], http: [{route: [{destination: {host: api-service, subset: one}}]}]}}`)
		s.awaitWords(t, "shop", "Service api-service[version=v1]: 10.0.0.1:8080") // and nothing of the one that nobody names
		r.apply(t, "shop", fourResources)
		s.awaitWords(t, "shop", "")
	})
	t.Run("a certificate that is missing", func(t *testing.T) {
		r.apply(t, "shop", `{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: secure}, spec: {selector: {istio: ingressgateway},
			servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: shop-cert}}]}}`)
		r.awaitIstio(t, "gateway", "shop", "secure", "ResolvedRefs", metav1.ConditionFalse, "CertificateNotFound")
		pair, err := standInPair()
		if err != nil {
			t.Fatal(err)
		}
		data := map[string]string{"tls.crt": pair["tls.crt"].Reveal(), "tls.key": pair["tls.key"].Reveal()}
		if err := r.admin.Create(t.Context(), secretOf(v1beta1.GatewayName, "shop-cert", "kubernetes.io/tls", data)); err != nil {
			t.Fatal(err)
		}
		r.awaitIstio(t, "gateway", "shop", "secure", "ResolvedRefs", metav1.ConditionTrue, "")
		r.awaitSecret(t, v1beta1.GatewayName, v1beta1.KeysSecret, holds(map[string]string{
			"shop-cert_tls.crt": pair["tls.crt"].Reveal(), "shop-cert_tls.key": pair["tls.key"].Reveal(),
		}))
		r.delete(t, "shop", "gateway", "secure")
		r.awaitSecret(t, v1beta1.GatewayName, v1beta1.KeysSecret, holds(map[string]string{}))
		// What the gateway shows to servers, a rule of its own namespace says, and none of a team's.
		rule := `{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: mutual}, spec: {host: api-service.shop.svc.cluster.local, trafficPolicy: {tls: {mode: MUTUAL, credentialName: %s}}}}`
		r.apply(t, "shop", fmt.Sprintf(rule, "of-a-team"))
		if err := r.admin.Create(t.Context(), secretOf(v1beta1.GatewayName, "of-a-team", "kubernetes.io/tls", data)); err != nil {
			t.Fatal(err)
		}
		r.apply(t, v1beta1.GatewayName, fmt.Sprintf(rule, "shop-cert"))
		r.awaitSecret(t, v1beta1.GatewayName, v1beta1.KeysSecret, holds(map[string]string{
			"shop-cert_tls.crt": pair["tls.crt"].Reveal(), "shop-cert_tls.key": pair["tls.key"].Reveal(),
		}))
		r.delete(t, "shop", "destinationrule", "mutual")
		r.delete(t, v1beta1.GatewayName, "destinationrule", "mutual")
		r.awaitSecret(t, v1beta1.GatewayName, v1beta1.KeysSecret, holds(map[string]string{}))
	})
	t.Run("conditions of others", func(t *testing.T) {
		patch := `{"status":{"conditions":[{"type":"Reconciled","status":"True","message":"by istiod"}]}}`
		if out, err := r.Kubectl(t.Context(), "-n", "shop", "patch", "gateway", "others-gateway", "--subresource=status", "--type=merge", "-p", patch); err != nil {
			t.Fatal(out)
		}
		r.apply(t, "shop", strings.Replace(others, "elsewhere", "ingressgateway", 1))
		r.awaitIstio(t, "gateway", "shop", "others-gateway", "Accepted", metav1.ConditionTrue, "")
		if all, err := r.conditionsOf(t.Context(), "gateway", "shop", "others-gateway"); err != nil || all["Reconciled"].Message != "by istiod" {
			t.Errorf("they are %+v, %v", all, err)
		}
		r.apply(t, "shop", others)
		r.eventually(t, "no conditions of ours", func(ctx context.Context) error {
			all, err := r.conditionsOf(ctx, "gateway", "shop", "others-gateway")
			if err == nil && (len(all) != 1 || all["Reconciled"].Message != "by istiod") {
				err = fmt.Errorf("they are %+v", all)
			}
			return err
		})
	})
	t.Run("of nobody", func(t *testing.T) {
		if all, err := r.conditionsOf(t.Context(), "virtualservice", "shop", "others-virtual-service"); err != nil || len(all) > 0 {
			t.Errorf("they are %+v, %v", all, err)
		}
	})
	t.Run("no gateway any more", func(t *testing.T) {
		if out, err := r.Kubectl(t.Context(), "annotate", "namespace", v1beta1.GatewayName, v1beta1.GatewayLabels+"-"); err != nil {
			t.Fatal(out)
		}
		r.eventually(t, "no conditions", func(ctx context.Context) error {
			all, err := r.conditionsOf(ctx, "gateway", "shop", "api-gateway")
			if err == nil && len(all) > 0 {
				err = fmt.Errorf("they are %+v", all)
			}
			return err
		})
	})
	if lines := r.errorsOf(""); len(lines) > 0 {
		t.Error(errors.New(strings.Join(lines, "")))
	}
}
