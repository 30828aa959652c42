package main

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// exportedTo gives the providers that are exported to a namespace. Each is read anew only when it has changed.
func (w *statusWriter) exportedTo(ctx context.Context, namespace string) ([]routing.Exported, error) {
	if namespace == v1beta1.InstallationNamespace {
		return nil, nil
	}
	w.mu.Lock()
	old := w.exports
	w.mu.Unlock()
	now, err := readKind(ctx, w.cached, statusKinds[0], v1beta1.InstallationNamespace, old)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.exports = now
	w.mu.Unlock()
	var all []routing.Exported
	for _, j := range now {
		if exportedTo(namespace, j.object) != nil {
			all = append(all, routing.Exported{To: namespace, Provider: j.content.Providers[0]})
		}
	}
	return all, nil
}

// enqueueUsers puts the namespaces into the queue that name the host of an exported provider, of one of these versions of it. That
// namespaces wait their turn, as none of their own people has just changed something.
func (w *statusWriter) enqueueUsers(q statusQueue, versions ...client.Object) {
	for _, v := range versions {
		u, ok := v.(*unstructured.Unstructured)
		if !ok || u.GetNamespace() != v1beta1.InstallationNamespace || u.GetKind() != v1beta1.KindLLMProvider {
			continue
		}
		o := newObject(u)
		for _, namespace := range w.usersOf(o) {
			enqueue(q, namespace, priorityLow)
		}
	}
}

// usersOf gives the namespaces that have a provider from elsewhere, and an object that names its host.
func (w *statusWriter) usersOf(o *object) []string {
	if len(exportTargets(o)) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var users []string
	for namespace, objects := range w.namespaces {
		if there := exportedTo(namespace, o); there != nil && namesHost(objects, there) {
			users = append(users, namespace)
		}
	}
	return users
}

func namesHost(objects map[types.UID]*judged, p *object) bool {
	host := set{}
	host.add(p.host)
	for _, j := range objects {
		if p.anything || j.anything || j.host == p.host || host.hasAny(j.backends) {
			return true
		}
	}
	return false
}
