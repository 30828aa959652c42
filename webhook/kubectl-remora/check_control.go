package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"remora.dev/remora/apis/v1beta1"
)

// install is the remedy for what is not there.
const install = "apply config/default again"

// soon is the time before its end within which a certificate should have been replaced: the webhook does it long before.
const soon = 24 * time.Hour

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// definitions looks whether the API server knows the kinds.
func (i *inspection) definitions(ctx context.Context) error {
	for _, plural := range []string{"llmproviders", "llmroutes"} {
		name := plural + "." + v1beta1.GroupVersion.Group
		object := "CustomResourceDefinition " + name
		crd, err := i.dynamic.Resource(definitions).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			i.find(object, "it is not there", "kubectl apply -k config/crd")
			continue
		} else if err != nil {
			return err
		}
		i.looked(1)
		if conditionOf(crd, "Established") != "True" {
			i.find(object, "the API server does not serve it yet", "await it; if it stays so, kubectl describe says why")
		}
		if crd.GetLabels()[v1beta1.PartOfLabel] != v1beta1.PartOf {
			i.find(object, "it is another product's: it has no label "+v1beta1.PartOfLabel+"="+v1beta1.PartOf, "only one of two products can have these kinds in a cluster: remove the other one, and kubectl apply -k config/crd")
		}
	}
	return nil
}

func conditionOf(object *unstructured.Unstructured, kind string) string {
	all, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, c := range all {
		if c, ok := c.(map[string]any); ok && c["type"] == kind {
			status, _ := c["status"].(string)
			return status
		}
	}
	return ""
}

// webhook looks whether objects and pods are judged.
func (i *inspection) webhook(ctx context.Context) error {
	if err := i.deployment(ctx, v1beta1.WebhookName); err != nil {
		return err
	}
	hooks := map[string]admissionv1.WebhookClientConfig{}
	validating, err := i.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, v1beta1.WebhookName, metav1.GetOptions{})
	if err == nil {
		for _, h := range validating.Webhooks {
			hooks["ValidatingWebhookConfiguration "+v1beta1.WebhookName+", "+h.Name] = h.ClientConfig
		}
	} else if err := i.absent("ValidatingWebhookConfiguration "+v1beta1.WebhookName, "LLMProviders and LLMRoutes are not judged", err); err != nil {
		return err
	}
	mutating, err := i.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, v1beta1.WebhookName, metav1.GetOptions{})
	if err == nil {
		for _, h := range mutating.Webhooks {
			hooks["MutatingWebhookConfiguration "+v1beta1.WebhookName+", "+h.Name] = h.ClientConfig
		}
	} else if err := i.absent("MutatingWebhookConfiguration "+v1beta1.WebhookName, "pods get no sidecar", err); err != nil {
		return err
	}
	i.looked(len(hooks))
	for object, config := range hooks {
		i.certificates(object, config.CABundle)
	}
	return nil
}

// absent makes a finding of an error that something is not there. Any other it gives back.
func (i *inspection) absent(object, so string, err error) error {
	if !apierrors.IsNotFound(err) {
		return err
	}
	i.find(object, "it is not there: "+so, install)
	return nil
}

// certificates looks whether the API server can know the webhook by what it has.
func (i *inspection) certificates(object string, bundle []byte) {
	remedy := fmt.Sprintf("see the log of deploy/%s in %s: it writes the certificates, and may be kept from it", v1beta1.WebhookName, i.home)
	var last time.Time
	count := 0
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			count++
			if c.NotAfter.After(last) {
				last = c.NotAfter
			}
		}
	}
	switch {
	case count == 0:
		i.find(object, "its caBundle has no certificate: the API server calls nobody", remedy)
	case last.Before(i.now):
		i.find(object, "the last certificate in its caBundle ended at "+last.UTC().Format(time.RFC3339), remedy)
	case last.Before(i.now.Add(soon)):
		i.find(object, "the last certificate in its caBundle ends at "+last.UTC().Format(time.RFC3339)+", and has not been replaced", remedy)
	}
}

func (i *inspection) deployment(ctx context.Context, name string) error {
	object := "Deployment " + i.home + "/" + name
	d, err := i.client.AppsV1().Deployments(i.home).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return i.absent(object, "nothing runs of it", err)
	}
	i.looked(1)
	wanted := int32(1)
	if d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	remedy := fmt.Sprintf("kubectl describe pod -n %s -l app.kubernetes.io/name=%s says why", i.home, name)
	switch {
	case wanted == 0:
		i.find(object, "it has been scaled to nothing", fmt.Sprintf("kubectl scale -n %s deploy/%s --replicas 2", i.home, name))
	case d.Status.ReadyReplicas < wanted:
		i.find(object, fmt.Sprintf("%d of %d pods are ready", d.Status.ReadyReplicas, wanted), remedy)
	case d.Status.UpdatedReplicas < wanted:
		i.find(object, fmt.Sprintf("%d of %d pods are of the version that is written", d.Status.UpdatedReplicas, wanted), remedy)
	}
	return nil
}

// controller looks whether somebody writes status and Secrets.
func (i *inspection) controller(ctx context.Context) error {
	if err := i.deployment(ctx, v1beta1.ControllerName); err != nil {
		return err
	}
	object := "Lease " + i.home + "/" + v1beta1.ControllerName
	remedy := fmt.Sprintf("see the log of deploy/%s in %s: until one of its pods has the Lease, nothing is projected to namespaces, and no status is written", v1beta1.ControllerName, i.home)
	lease, err := i.client.CoordinationV1().Leases(i.home).Get(ctx, v1beta1.ControllerName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		i.find(object, "it is not there: no controller has ever led", remedy)
		return nil
	} else if err != nil {
		return err
	}
	i.looked(1)
	spec := &lease.Spec
	switch {
	case spec.HolderIdentity == nil || *spec.HolderIdentity == "":
		i.find(object, "nobody holds it", remedy)
	case spec.RenewTime == nil || spec.LeaseDurationSeconds == nil:
		i.find(object, "nobody has renewed it", remedy)
	// Twice: the clock here and that of the node may differ.
	case i.now.Sub(spec.RenewTime.Time) > 2*time.Duration(*spec.LeaseDurationSeconds)*time.Second:
		i.find(object, fmt.Sprintf("%s has not renewed it since %s", *spec.HolderIdentity, spec.RenewTime.UTC().Format(time.RFC3339)), remedy)
	}
	return nil
}
