package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
)

const rbacGroup = "rbac.authorization.k8s.io"

// errChangedOnItsWay keeps a fight with another writer from going on as fast as the API server can: it is tried again ever later.
var errChangedOnItsWay = errors.New("something in the cluster changes what the controller writes (a mutating webhook or policy?): exempt the object from it")

// identity is who the sidecars of a namespace are and what they may do, in the order in which it is made.
func identity(namespace string) []*unstructured.Unstructured {
	object := func(apiVersion, kind string, content map[string]any) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: content}
		u.SetAPIVersion(apiVersion)
		u.SetKind(kind)
		u.SetNamespace(namespace)
		u.SetName(v1beta1.SidecarName)
		u.SetLabels(map[string]string{v1beta1.PartOfLabel: v1beta1.PartOf})
		return u
	}
	return []*unstructured.Unstructured{
		// A pod that names this account, which no pod may, gets no token by that.
		object("v1", "ServiceAccount", map[string]any{"automountServiceAccountToken": false}),
		object(rbacGroup+"/v1", "Role", map[string]any{"rules": []any{
			map[string]any{
				"apiGroups": []any{v1beta1.GroupVersion.Group}, "resources": []any{providerResource.Resource, routeResource.Resource},
				"verbs": []any{"list", "watch"},
			},
			map[string]any{
				"apiGroups": []any{""}, "resources": []any{"secrets"}, "resourceNames": []any{v1beta1.KeysSecret},
				"verbs": []any{"list", "watch"},
			},
			// Who the servers of a backend are, and how calls are spread over them. Not pods: what these slices say is enough.
			map[string]any{"apiGroups": []any{""}, "resources": []any{"services"}, "verbs": []any{"list", "watch"}},
			map[string]any{"apiGroups": []any{"discovery.k8s.io"}, "resources": []any{"endpointslices"}, "verbs": []any{"list", "watch"}},
			map[string]any{
				"apiGroups": []any{istio.Group}, "resources": []any{"virtualservices", "destinationrules"}, "verbs": []any{"list", "watch"},
			},
			map[string]any{
				"apiGroups": []any{"inference.networking.k8s.io"}, "resources": []any{"inferencepools"}, "verbs": []any{"list", "watch"},
			},
		}}),
		object(rbacGroup+"/v1", "RoleBinding", map[string]any{
			"roleRef":  map[string]any{"apiGroup": rbacGroup, "kind": "Role", "name": v1beta1.SidecarName},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": v1beta1.SidecarName, "namespace": namespace}},
		}),
	}
}

// ensure makes an object, or repairs it where it is ours. It gives the object as it is then.
func (k *keeper) ensure(ctx context.Context, wanted *unstructured.Unstructured) (*unstructured.Unstructured, *trouble, error) {
	id := client.ObjectKeyFromObject(wanted)
	have := &unstructured.Unstructured{}
	have.SetGroupVersionKind(wanted.GroupVersionKind())
	err := k.cached.Get(ctx, id, have)
	if apierrors.IsNotFound(err) {
		// Not by Apply, which would take over what somebody else has made meanwhile.
		made := wanted.DeepCopy()
		err = k.client.Create(ctx, made, client.FieldOwner(v1beta1.ControllerName))
		if !apierrors.IsAlreadyExists(err) {
			return made, nil, wrapped(wanted, "made", err)
		}
		err = k.live.Get(ctx, id, have) // the cache is behind
	}
	if err != nil {
		return nil, nil, wrapped(wanted, "read", err)
	}
	if !isOurs(have) {
		return nil, foreign(wanted.GetKind(), id), nil
	}
	if includes(have.Object, wanted.Object) {
		return have, nil, nil
	}
	repaired := wanted.DeepCopy()
	err = k.apply(ctx, repaired, have)
	if err == nil && !includes(repaired.Object, wanted.Object) {
		err = errChangedOnItsWay
	}
	if err == nil {
		k.log.Info("repaired", "kind", wanted.GetKind(), "namespace", id.Namespace, "name", id.Name)
	}
	return repaired, nil, wrapped(wanted, "repaired", err)
}

// apply writes what is ours of an object, if it is still the one that was seen. One that cannot become as wanted (roleRef
// cannot be changed) is deleted, and made anew by the pass that its end brings.
func (k *keeper) apply(ctx context.Context, wanted *unstructured.Unstructured, seen client.Object) error {
	wanted.SetUID(seen.GetUID())
	wanted.SetResourceVersion(seen.GetResourceVersion())
	err := k.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(wanted), client.FieldOwner(v1beta1.ControllerName), client.ForceOwnership)
	if !apierrors.IsInvalid(err) {
		return err
	}
	k.log.Info("made anew, as it cannot be changed into what it should be", "kind", wanted.GetKind(), "namespace", wanted.GetNamespace(), "name", wanted.GetName())
	old := wanted.DeepCopy()
	if err := k.deleteExactly(ctx, old); err != nil {
		return err
	}
	wanted.SetUID("")
	wanted.SetResourceVersion("")
	return k.client.Create(ctx, wanted, client.FieldOwner(v1beta1.ControllerName))
}

// isOurs tells whether an object was made by this installation. What is not is never changed or deleted.
func isOurs(o metav1.Object) bool { return o.GetLabels()[v1beta1.PartOfLabel] == v1beta1.PartOf }

func foreign(kind string, id types.NamespacedName) *trouble {
	return &trouble{foreignObject, kind, id.Name, fmt.Sprintf("%s %s is not Remora's (it has no label %s=%s) and is left alone, but sidecars need one of that name: "+
		"delete or rename it, and the controller makes its own", kind, id, v1beta1.PartOfLabel, v1beta1.PartOf)}
}

// wrapped says what could not be done with an object; nil where err is nil.
func wrapped(o client.Object, done string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s cannot be %s: %w", o.GetObjectKind().GroupVersionKind().Kind, o.GetName(), done, err)
}

// includes tells whether an object has all that is wanted of it. Lists have to be the same.
func includes(have, wanted any) bool {
	fields, ok := wanted.(map[string]any)
	if !ok {
		return reflect.DeepEqual(have, wanted)
	}
	there, ok := have.(map[string]any)
	if !ok {
		return false
	}
	for name, value := range fields {
		if !includes(there[name], value) {
			return false
		}
	}
	return true
}

// metadataOf is of one of Kubernetes' core kinds.
func metadataOf(kind string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind}}
}
