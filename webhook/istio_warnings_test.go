package main

import (
	"strconv"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/cluster/crds"
)

// Istio's kinds come while the webhook runs, and so does the gateway.
func istiosObjectsAreWarnedOf(in *admitted) {
	t := in.t
	manifest, err := crds.Manifest(t.Context(), crds.VirtualServices, crds.DestinationRules, crds.Gateways)
	if err != nil {
		t.Fatal(err)
	}
	in.kubectl(t, manifest, "apply", "--server-side", "-f", "-")
	in.kubectl(t, "", "wait", "--for=condition=Established", "crd", crds.VirtualServices, crds.DestinationRules, crds.Gateways)
	wrong := strings.Replace(fourResources, "{hosts: [api.example.com],", "{hosts: [api.example.com], exportTo: ['*'],", 1)
	wrong = strings.Replace(wrong, "http: [{", "http: [{corsPolicy: {maxAge: 1s}, ", 1)
	in.accepted(t, wrong, "") // no gateway executes them
	in.kubectl(t, "", "-n", in.namespace, "delete", "virtualservices,destinationrules,gateways", "--all")
	in.kubectl(t, "", "create", "namespace", v1beta1.GatewayName)
	in.kubectl(t, "", "annotate", "namespace", v1beta1.GatewayName, v1beta1.GatewayLabels+"=app=remora-gateway,istio=ingressgateway")
	in.kubectl(t, gatewayOf("api-gateway", "ingressgateway", 80), "-n", in.namespace, "apply", "-f", "-")
	const warning = "Warning: Remora: spec.http[0].corsPolicy: is not honoured"
	for began := time.Now(); ; { // the webhook hears of all that by watches
		out, ok := in.apply(t, wrong, "--dry-run=server")
		if strings.Contains(out, warning) {
			break
		} else if !ok || time.Since(began) > patience {
			t.Fatal(out)
		}
	}
	in.accepted(t, wrong, warning)
	in.accepted(t, gatewayOf("wrong", "ingressgateway", 14001), "Warning: Remora: spec.servers[0].port.number: 14001 is a port of the gateway itself")
	in.accepted(t, gatewayOf("of-others", "elsewhere", 14001), "")
	in.accepted(t, strings.Replace(gatewayOf("tls", "ingressgateway", 443), "HTTP}, hosts", "HTTPS}, tls: {mode: SIMPLE, credentialName: not-there}, hosts", 1), "")
	if out := in.kubectl(t, "", "-n", in.namespace, "label", "gateway", "wrong", "touched=yes"); strings.Contains(out, "Warning") {
		t.Errorf("a change that says nothing new prints\n%s", out)
	}
	in.kubectl(t, "", "-n", in.namespace, "delete", "virtualservices,destinationrules,gateways", "--all")
	in.kubectl(t, "", "annotate", "namespace", v1beta1.GatewayName, v1beta1.GatewayLabels+"-")
}

func gatewayOf(name, selector string, port int) string {
	return strings.NewReplacer("NAME", name, "SELECTOR", selector, "PORT", strconv.Itoa(port)).Replace(
		`{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: NAME}, spec: {selector: {istio: SELECTOR}, servers: [{port: {number: PORT, name: web, protocol: HTTP}, hosts: ["*"]}]}}` + "\n")
}

// Whatever is asked, the answer is yes: another program's objects are not ours to refuse.
func TestNoObjectOfIstiosIsRefused(t *testing.T) {
	s := &surroundings{}
	for name, gateways := range map[string]func() []routing.Workload{
		"a fault": func() []routing.Workload { panic("secret") },
		"nobody":  func() []routing.Workload { return nil },
	} {
		w := &istioWarner{around: s, gateways: gateways, turn: make(chan struct{}, 1), namespace: func(string) ([]*object, error) { return nil, nil }}
		for _, raw := range []string{
			``, `{`, `[]`, `{"kind":"Gateway"}`, `{"apiVersion":"networking.istio.io/v1","kind":"Gateway","metadata":{"name":"g"},"spec":[]}`,
			`{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{"name":"v"},"spec":{"http":7}}`,
			`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"v"}}`,
		} {
			answer := w.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: []byte(raw)}}})
			if !answer.Allowed {
				t.Errorf("%s: %s is refused: %+v", name, raw, answer)
			}
		}
		w.turn <- struct{}{} // somebody else has it, for as long as that takes
		answer := w.Handle(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{Operation: admissionv1.Create,
			Object: runtime.RawExtension{Raw: []byte(`{"apiVersion":"networking.istio.io/v1","kind":"Gateway","metadata":{"name":"g"}}`)}}})
		if !answer.Allowed {
			t.Errorf("%s: out of turn it is refused", name)
		}
	}
}
