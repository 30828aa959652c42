package main

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/sidecar/routing"
)

// thing is one version of an object of the cluster's or of Istio's, as routing reads it. It is never changed.
type thing struct {
	metav1.ObjectMeta // namespace, name, uid, versions, and since when it exists
	ref               routing.Ref
	apiVersion        string
	content           routing.Objects     // it, and nothing else; nothing at all where it cannot be read
	conditions        []any               // of its status, as they are written
	service           *corev1.ServiceSpec // of a Service: what says who its servers are
}

// toThing keeps of an object of the API server what is used of it. It may be called again with what it gave.
func toThing(from any) (any, error) {
	if u, ok := from.(*unstructured.Unstructured); ok {
		return newThing(u), nil
	}
	return from, nil
}

func newThing(u *unstructured.Unstructured) *thing {
	t := &thing{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(),
			Generation: u.GetGeneration(), CreationTimestamp: u.GetCreationTimestamp(),
		},
		ref:        routing.Ref{Kind: u.GetKind(), Namespace: u.GetNamespace(), Name: u.GetName()},
		apiVersion: u.GetAPIVersion(),
	}
	t.conditions, _, _ = unstructured.NestedSlice(u.Object, "status", "conditions") // what is no list is nobody's
	annotations := map[string]string{}
	for _, name := range []string{istio.ExportToAnnotation, istio.BalanceAnnotation} {
		if value, ok := u.GetAnnotations()[name]; ok {
			annotations[name] = value
		}
	}
	doc, err := json.Marshal(map[string]any{
		"apiVersion": t.apiVersion, "kind": t.ref.Kind, "spec": u.Object["spec"], "metadata": map[string]any{
			"namespace": t.Namespace, "name": t.Name, "creationTimestamp": t.CreationTimestamp, "generation": t.Generation, "annotations": annotations,
		},
	})
	if err == nil {
		_, err = t.content.DecodeJSON(doc, t.Namespace)
	}
	if err != nil {
		t.content = routing.Objects{}
	}
	if t.ref.Kind == routing.KindService {
		t.service = serversOfService(u)
	}
	return t
}

// serversOfService gives what of a Service says who its servers are.
func serversOfService(u *unstructured.Unstructured) *corev1.ServiceSpec {
	var whole corev1.ServiceSpec
	spec, _ := u.Object["spec"].(map[string]any)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(spec, &whole); err != nil {
		return &corev1.ServiceSpec{} // cannot be: the API server has judged it
	}
	little := &corev1.ServiceSpec{Selector: whole.Selector, IPFamilies: whole.IPFamilies, PublishNotReadyAddresses: whole.PublishNotReadyAddresses}
	for _, p := range whole.Ports {
		little.Ports = append(little.Ports, corev1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port, TargetPort: p.TargetPort, AppProtocol: p.AppProtocol})
	}
	return little
}

// addTo gives Compile the objects.
func addTo(in *routing.Objects, things []*thing) {
	if in.Services == nil {
		in.Services = []routing.Service{} // they are known
	}
	for _, t := range things {
		in.Services = append(in.Services, t.content.Services...)
		in.InferencePools = append(in.InferencePools, t.content.InferencePools...)
		in.VirtualServices = append(in.VirtualServices, t.content.VirtualServices...)
		in.DestinationRules = append(in.DestinationRules, t.content.DestinationRules...)
		in.Gateways = append(in.Gateways, t.content.Gateways...)
	}
}
