package integration

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
	"remora.dev/remora/test/cases"
)

// One judge: what the cluster refuses (by schema, CEL rule or webhook) is what file mode refuses, where there is no
// cluster. An object that differs in its verdict would run in the one and not in the other.
func TestTheClusterRefusesWhatFileModeRefuses(t *testing.T) {
	client, err := dynamic.NewForConfig(installed.Config())
	if err != nil {
		t.Fatal(err)
	}
	namespace := newNamespace(t)
	var mu sync.Mutex
	verdicts := map[[2]bool]int{}
	var all sync.WaitGroup
	room := make(chan struct{}, 8)
	for object := range cases.Mutations(t, 1500) {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			unstructured.RemoveNestedField(object, "metadata", "namespace")
			text, err := json.Marshal(object)
			if err != nil {
				t.Error(err)
				return
			}
			in := routing.Objects{}
			if _, err := in.Decode(text, namespace); err != nil {
				t.Error(err)
				return
			}
			_, problems := routing.Compile(in, nil)
			problems = slices.DeleteFunc(problems, func(p routing.Problem) bool { return p.Severity != routing.Invalid })

			o := &unstructured.Unstructured{Object: object}
			resource := v1beta1.GroupVersion.WithResource(strings.ToLower(o.GetKind()) + "s")
			_, err = client.Resource(resource).Namespace(namespace).Create(t.Context(), o,
				metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict, DryRun: []string{metav1.DryRunAll}})
			if apierrors.IsInternalError(err) {
				t.Errorf("no verdict: %v\n%s", err, text)
			}
			mu.Lock()
			defer mu.Unlock()
			verdict := [2]bool{err != nil, len(problems) > 0}
			verdicts[verdict]++
			if verdict[0] != verdict[1] && !droppedByTheAPIServer(object) {
				t.Errorf("the cluster says %v, file mode %v, of\n%s", err, problems, text)
			}
		})
	}
	all.Wait()
	if verdicts[[2]bool{true, true}] < 200 || verdicts[[2]bool{false, false}] < 200 {
		t.Errorf("refused by both: %d, accepted by both: %d; the changes are not of both kinds", verdicts[[2]bool{true, true}], verdicts[[2]bool{false, false}])
	}
}

// droppedByTheAPIServer tells of null entries of maps, which are gone before anybody judges them.
func droppedByTheAPIServer(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, e := range v {
			if droppedByTheAPIServer(e) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, droppedByTheAPIServer)
	}
	return false
}
