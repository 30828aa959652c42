package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
)

// ourObjects gives what we keep in a namespace, in the order in which it is to be deleted.
func (k *keeper) ourObjects(ctx context.Context, namespace string) ([]client.Object, error) {
	var ours []client.Object
	for _, name := range []string{v1beta1.AccessSecret, v1beta1.KeysSecret} {
		head, err := k.head(ctx, types.NamespacedName{Namespace: namespace, Name: name})
		if err != nil {
			return nil, err
		}
		if head != nil && isOurs(head) {
			ours = append(ours, head)
		}
	}
	all := identity(namespace)
	for i := len(all) - 1; i >= 0; i-- {
		err := k.cached.Get(ctx, client.ObjectKeyFromObject(all[i]), all[i])
		if client.IgnoreNotFound(err) != nil {
			return nil, wrapped(all[i], "read", err)
		}
		if err == nil && isOurs(all[i]) {
			ours = append(ours, all[i])
		}
	}
	return ours, nil
}

// usedByPods asks the API server whether a pod is left that may still run with our Secret. Labels of pods can be changed by their
// users; what they mount cannot.
func (k *keeper) usedByPods(ctx context.Context, namespace string) (bool, error) {
	for from := ""; ; {
		var pods corev1.PodList
		if err := k.live.List(ctx, &pods, client.InNamespace(namespace), client.Limit(500), client.Continue(from)); err != nil {
			return false, fmt.Errorf("its pods cannot be listed: %w", err)
		}
		for i := range pods.Items {
			if usesAccess(&pods.Items[i]) {
				return true, nil
			}
		}
		if from = pods.Continue; from == "" {
			return false, nil
		}
	}
}

func usesAccess(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false // it runs no more
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Secret != nil && v.Secret.SecretName == v1beta1.AccessSecret {
			return true
		}
		if v.Projected == nil {
			continue
		}
		for _, source := range v.Projected.Sources {
			if source.Secret != nil && source.Secret.Name == v1beta1.AccessSecret {
				return true
			}
		}
	}
	return false
}

// remove deletes what is ours in a namespace, the token first. It is forgotten when the cache shows nothing any more: until then it
// would be taken for one that has just lost its label, and have all of it made anew.
func (k *keeper) remove(ctx context.Context, ours []client.Object) error {
	for _, o := range ours {
		if err := k.deleteExactly(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// deleteExactly deletes an object if it is still the one that was seen.
func (k *keeper) deleteExactly(ctx context.Context, o client.Object) error {
	uid, version := o.GetUID(), o.GetResourceVersion()
	err := k.client.Delete(ctx, o, client.Preconditions{UID: &uid, ResourceVersion: &version})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("%s %s cannot be deleted: %w", o.GetObjectKind().GroupVersionKind().Kind, o.GetName(), err)
	}
	return nil
}
