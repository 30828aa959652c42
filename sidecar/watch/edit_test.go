package watch

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"remora.dev/remora/apis/v1beta1"
)

// client gives one of an administrator for a kind.
func (n *namespace) client(resource string) dynamic.ResourceInterface {
	n.t.Helper()
	client, err := dynamic.NewForConfig(n.cp.Config())
	if err != nil {
		n.t.Fatal(err)
	}
	return client.Resource(v1beta1.GroupVersion.WithResource(resource)).Namespace(n.name)
}

// editor gives a function that changes an object by a merge patch and tells when it asked for that.
func (n *namespace) editor(resource, name string) func(patch string) time.Time {
	client := n.client(resource)
	return func(patch string) time.Time {
		n.t.Helper()
		at := time.Now()
		if _, err := client.Patch(context.Background(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			n.t.Fatal(err)
		}
		return at
	}
}
