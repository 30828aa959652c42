package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/telemetry"
)

// labelled gives the namespaces that want sidecars.
func (i *inspection) labelled(ctx context.Context) ([]corev1.Namespace, error) {
	if i.only != "" {
		one, err := i.client.CoreV1().Namespaces().Get(ctx, i.only, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if _, there := one.Labels[v1beta1.InjectLabel]; !there {
			i.find("Namespace "+i.only, "it has no label "+v1beta1.InjectLabel+": its pods get no sidecar", fmt.Sprintf("kubectl label namespace %s %s=%s", i.only, v1beta1.InjectLabel, v1beta1.InjectEnabled))
			return nil, nil
		}
		return []corev1.Namespace{*one}, nil
	}
	list, err := i.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: v1beta1.InjectLabel})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// namespaces looks whether each namespace that wants sidecars has what they need.
func (i *inspection) namespaces(ctx context.Context) error {
	all, err := i.labelled(ctx)
	if err != nil {
		return err
	}
	i.looked(len(all))
	if len(all) == 0 && i.only == "" {
		i.find("namespaces", "none has the label "+v1beta1.InjectLabel+": no pod gets a sidecar", "kubectl label namespace NAME "+v1beta1.InjectLabel+"="+v1beta1.InjectEnabled)
	}
	remedy := fmt.Sprintf("see the log of deploy/%s in %s, which makes it, and kubectl get events", v1beta1.ControllerName, i.home)
	secrets := true
	for n := range all {
		ns := &all[n]
		object := "Namespace " + ns.Name
		if value := ns.Labels[v1beta1.InjectLabel]; value != v1beta1.InjectEnabled && value != v1beta1.InjectPods && value != v1beta1.InjectDisabled {
			i.find(object, fmt.Sprintf("its label %s is %q, which means nothing", v1beta1.InjectLabel, value), fmt.Sprintf("write %s, %s or %s", v1beta1.InjectEnabled, v1beta1.InjectPods, v1beta1.InjectDisabled))
			continue
		}
		if ns.Status.Phase == corev1.NamespaceTerminating || ns.Labels[v1beta1.InjectLabel] == v1beta1.InjectDisabled {
			continue
		}
		if _, err := i.client.CoreV1().ServiceAccounts(ns.Name).Get(ctx, v1beta1.SidecarName, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			i.find("ServiceAccount "+ns.Name+"/"+v1beta1.SidecarName, "it is not there: the sidecars of the namespace reach no API server", remedy)
		} else if err != nil {
			return err
		}
		for _, secret := range []string{v1beta1.AccessSecret, v1beta1.KeysSecret} {
			if !secrets {
				break
			}
			switch there, err := i.secret(ctx, ns.Name, secret); {
			case apierrors.IsForbidden(err):
				secrets = false
				i.unseen("whether the Secrets of sidecars are there takes the right to get Secrets, with which one can read keys")
			case err != nil:
				return err
			case !there:
				i.find("Secret "+ns.Name+"/"+secret, "it is not there: new pods of the namespace do not start", remedy)
			}
		}
	}
	return nil
}

// secret tells whether there is a Secret. Its values are not asked for: they do not leave the API server.
func (i *inspection) secret(ctx context.Context, namespace, name string) (bool, error) {
	err := i.client.CoreV1().RESTClient().Get().Namespace(namespace).Resource("secrets").Name(name).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// telemetry looks at the settings of the installation, and at what namespaces say.
func (i *inspection) telemetry(ctx context.Context) error {
	settings := *telemetry.Default()
	object := "ConfigMap " + i.home + "/" + v1beta1.Telemetry
	m, err := i.client.CoreV1().ConfigMaps(i.home).Get(ctx, v1beta1.Telemetry, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err): // it may be missing
	case err != nil:
		return err
	default:
		i.looked(1)
		text, there := m.Data[v1beta1.TelemetryKey]
		if !there {
			i.find(object, "it has no key "+v1beta1.TelemetryKey+": its settings are not read", "write the settings under that key: see docs/access-log.md")
		}
		parsed, faults := telemetry.Parse([]byte(text))
		for _, fault := range faults {
			i.find(object, v1beta1.TelemetryKey+": "+fault.Error(), "correct the field: until then, the settings before it hold")
		}
		if len(faults) == 0 {
			settings = parsed
		}
	}
	all, err := i.labelled(ctx)
	if err != nil {
		return err
	}
	for n := range all {
		_, faults := settings.With(all[n].Annotations, i.now)
		for _, fault := range faults {
			i.find("Namespace "+all[n].Name, fault.Error(), "correct the annotation: until then, what the installation says holds")
		}
	}
	return nil
}

// objects looks at what the controller has written about LLMProviders and LLMRoutes.
func (i *inspection) objects(ctx context.Context) error {
	for _, kind := range []struct{ name, plural string }{{v1beta1.KindLLMProvider, "llmproviders"}, {v1beta1.KindLLMRoute, "llmroutes"}} {
		resource := schema.GroupVersionResource{Group: v1beta1.GroupVersion.Group, Version: v1beta1.GroupVersion.Version, Resource: kind.plural}
		options := metav1.ListOptions{Limit: pageSize}
		for {
			list, err := i.dynamic.Resource(resource).Namespace(i.only).List(ctx, options)
			if apierrors.IsNotFound(err) {
				break // which is a finding of the definitions
			} else if err != nil {
				return err
			}
			i.looked(len(list.Items))
			for n := range list.Items {
				i.object(kind.name, &list.Items[n])
			}
			if options.Continue = list.GetContinue(); options.Continue == "" {
				break
			}
		}
	}
	return nil
}

func (i *inspection) object(kind string, o *unstructured.Unstructured) {
	object := fmt.Sprintf("%s %s/%s", kind, o.GetNamespace(), o.GetName())
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	behind := len(conditions) == 0
	bad := map[string]string{}
	for _, c := range conditions {
		c, _ := c.(map[string]any)
		seen, _, _ := unstructured.NestedInt64(c, "observedGeneration")
		behind = behind || seen < o.GetGeneration()
		if kind, _ := c["type"].(string); c["status"] == "False" {
			bad[kind] = fmt.Sprintf("%v: %v", c["reason"], c["message"])
		}
	}
	if behind {
		i.find(object, "its status is not of what is written in it now", fmt.Sprintf("await the controller; if it stays so, see the log of deploy/%s in %s", v1beta1.ControllerName, i.home))
		return
	}
	for _, condition := range slices.Sorted(maps.Keys(bad)) {
		i.find(object, condition+" is False: "+bad[condition], "change what the message names: calls that need it are refused until then")
	}
}
