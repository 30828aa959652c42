package integration

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/test/cluster/pki"
)

// neighbour is another mutating webhook, which does the same to every pod of a namespace each time that it is asked.
type neighbour struct {
	name string // of its configuration: the API server asks in the order of these
	does func(*corev1.Pod)
	// again is whether it is asked again when somebody has changed the pod after it.
	again registrationv1.ReinvocationPolicyType
}

// Their names put them in front of ours and behind.
const (
	before = "a-neighbour"
	after  = "z-neighbour"
)

// putFirst makes a container the first init container, as other injectors do with theirs.
func putFirst(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		rest := slices.DeleteFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
		pod.Spec.InitContainers = append([]corev1.Container{{Name: name, Image: "example.com/" + name}}, rest...)
	}
}

// everyVariable adds a variable to each container, whosever it is.
func everyVariable(pod *corev1.Pod) {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if !slices.ContainsFunc(list[i].Env, func(e corev1.EnvVar) bool { return e.Name == "ADDED" }) {
				list[i].Env = append(list[i].Env, corev1.EnvVar{Name: "ADDED", Value: "by a neighbour"})
			}
		}
	}
}

// goodNeighbour adds a variable to containers that are not ours.
func goodNeighbour(pod *corev1.Pod) {
	everyVariable(pod)
	for i, c := range pod.Spec.InitContainers {
		if strings.HasPrefix(c.Name, "remora-") {
			pod.Spec.InitContainers[i].Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "ADDED" })
		}
	}
}

// movesIn makes a neighbour of a namespace, until the test ends.
func (n *team) movesIn(t *testing.T, of neighbour) {
	t.Helper()
	authority, err := pki.NewAuthority("neighbour")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Server("neighbour", []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := json.NewEncoder(w).Encode(of.review(t, req)); err != nil {
			t.Error(err)
		}
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	configurations := n.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err = configurations.Create(t.Context(), &registrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: of.name},
		Webhooks: []registrationv1.MutatingWebhook{{
			Name:         "pods.example.com",
			ClientConfig: registrationv1.WebhookClientConfig{URL: ptr.To(server.URL), CABundle: authority.Certificate},
			Rules: []registrationv1.RuleWithOperations{{
				Operations: []registrationv1.OperationType{registrationv1.Create},
				Rule:       registrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
			NamespaceSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": n.name}},
			SideEffects:             ptr.To(registrationv1.SideEffectClassNone),
			ReinvocationPolicy:      ptr.To(of.again),
			FailurePolicy:           ptr.To(registrationv1.Fail),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := configurations.Delete(context.WithoutCancel(t.Context()), of.name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	// The API server learns of it by a watch.
	deadline := time.Now().Add(time.Minute)
	for {
		pod, err := n.create(t.Context(), app(labelled(v1beta1.InjectDisabled)), metav1.DryRunAll)
		if err != nil {
			t.Fatal(err)
		}
		if pod.Annotations["neighbour"] == of.name {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the API server does not ask the neighbour")
		}
	}
}

func (of neighbour) review(t *testing.T, req *http.Request) *admissionv1.AdmissionReview {
	t.Helper()
	var review admissionv1.AdmissionReview
	pod := &corev1.Pod{}
	if err := json.NewDecoder(req.Body).Decode(&review); err != nil {
		t.Error(err)
		return &review
	}
	if err := json.Unmarshal(review.Request.Object.Raw, pod); err != nil {
		t.Error(err)
	}
	of.does(pod)
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations["neighbour"] = of.name
	patch, err := json.Marshal([]map[string]any{
		{"op": "add", "path": "/spec", "value": pod.Spec}, {"op": "add", "path": "/metadata/annotations", "value": pod.Annotations},
	})
	if err != nil {
		t.Error(err)
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Patch: patch, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
	return &review
}

func TestBesideAnotherWebhookAPodEndsInjectedOrItsRefusalNamesTheOther(t *testing.T) {
	const never, ifNeeded = registrationv1.NeverReinvocationPolicy, registrationv1.IfNeededReinvocationPolicy
	for name, f := range map[string]struct {
		neighbour
		want   string // the init containers
		denial []string
	}{
		"another's container in front, before us":                  {neighbour: neighbour{before, putFirst("theirs"), never}, want: "remora-redirect remora-sidecar theirs migrate"},
		"another's container in front, after us":                   {neighbour: neighbour{after, putFirst("theirs"), never}, want: "remora-redirect remora-sidecar theirs migrate"},
		"another's container, which insists on the first place":    {neighbour: neighbour{after, putFirst("theirs"), ifNeeded}, denial: []string{"spec.initContainers[0]", "theirs"}},
		"a mesh's container, which insists on the first place":     {neighbour: neighbour{after, putFirst("istio-init"), ifNeeded}, want: "istio-init remora-redirect remora-sidecar migrate"},
		"a mesh's container, before us":                            {neighbour: neighbour{before, putFirst("istio-init"), ifNeeded}, want: "remora-redirect remora-sidecar istio-init migrate"},
		"a variable in every container, before us":                 {neighbour: neighbour{before, everyVariable, never}, want: injected},
		"a variable in every container, after us":                  {neighbour: neighbour{after, everyVariable, never}, want: injected},
		"a variable in every container, ours too, again and again": {neighbour: neighbour{after, everyVariable, ifNeeded}, denial: []string{"spec.initContainers[0].env", "spec.initContainers[1].env", "remora-"}},
		"a variable in every container but ours, again and again":  {neighbour: neighbour{after, goodNeighbour, ifNeeded}, want: injected},
		"the host's network, after us":                             {neighbour: neighbour{after, onTheHost, never}, want: "migrate"},
	} {
		t.Run(name, func(t *testing.T) {
			n := wants(t)
			n.movesIn(t, f.neighbour)
			pod, err := n.create(t.Context(), app())
			if f.denial != nil {
				for _, want := range f.denial {
					if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
						t.Errorf("it says %v, want %s", err, want)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := initContainers(pod); got != f.want {
				t.Errorf("it has %s, want %s", got, f.want)
			}
			for _, c := range pod.Spec.InitContainers {
				if strings.HasPrefix(c.Name, "remora-") && slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "ADDED" }) {
					t.Errorf("%s has another's variable", c.Name)
				}
			}
		})
	}
}
