package integration

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/llmserver"
)

// Each change sends all calls to the other provider, through the webhook and while apps call.
func TestAHundredChangesThatMoveTrafficFailNoCall(t *testing.T) {
	t.Parallel()
	n, p := newTenant(t, installed), newProvider(t, llmserver.Options{})
	n.apply(t, providerOf(t, p, "one", dashscope, "qwen-turbo")+providerOf(t, p, "two", moonshot, "moonshot-v1-8k")+routeOf("chat", "chat", 1, 0))
	s := n.sidecar(t, p)
	client, err := dynamic.NewForConfig(n.Config())
	if err != nil {
		t.Fatal(err)
	}
	routes := client.Resource(v1beta1.GroupVersion.WithResource("llmroutes")).Namespace(n.namespace)
	apps := s.call(t, 4, "chat")
	for i := range 100 {
		before := s.generation(t)
		to := []string{moonshot, dashscope}[i%2]
		patch := fmt.Sprintf(`{"spec":{"rules":[{"backendRefs":[{"providerHost":%q}]}]}}`, to)
		if _, err := routes.Patch(t.Context(), "chat", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		s.awaitChange(t, before)
		if a := s.mustAsk(t, "chat"); a.provider != to {
			t.Fatalf("after change %d a call is answered by %+v, want %s", i+1, a, to)
		}
	}
	apps.noneFailed(t)
	if apps.answered[dashscope] < 50 || apps.answered[moonshot] < 50 {
		t.Errorf("the apps were answered by %v: too few calls to have seen the changes", apps.answered)
	}
}
