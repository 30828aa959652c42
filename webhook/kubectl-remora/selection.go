package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes"

	"github.com/spf13/cobra"

	"remora.dev/remora/apis/v1beta1"
)

// pageSize is how many pods are asked for at once.
const pageSize = 500

// selection is which pods a command looks at.
type selection struct {
	app      *app
	selector string
	all      bool // namespaces
}

func (s *selection) addFlags(c *cobra.Command) {
	c.Flags().StringVarP(&s.selector, "selector", "l", "", "Only pods with these labels, such as app=sleep,tier!=test")
	c.Flags().BoolVarP(&s.all, "all-namespaces", "A", false, "Pods of all namespaces")
}

// scope is a set of pods that is asked for in one go.
type scope struct {
	namespace string // empty: all of them
	selector  string
	name      string // of the only pod; empty: any
}

// scopes gives what the arguments, such as pod/x or deploy/x, and the flags mean.
func (s *selection) scopes(ctx context.Context, client kubernetes.Interface, args []string) ([]scope, error) {
	if len(args) > 0 && (s.all || s.selector != "") {
		return nil, usage("%s and -A or -l exclude each other: name pods, or select them", args[0])
	}
	if _, err := labels.Parse(s.selector); err != nil {
		return nil, usage("-l %s: %w: write NAME=VALUE, NAME!=VALUE or NAME, separated by commas", s.selector, err)
	}
	namespace, err := s.app.namespace()
	if err != nil {
		return nil, err
	}
	switch {
	case len(args) > 0:
		return s.named(namespace, args)
	case !s.all || s.selector != "":
		if s.all {
			namespace = ""
		}
		return []scope{{namespace: namespace, selector: s.selector}}, nil
	}
	// Of all pods of a cluster, most may not be Remora's: the sidecars' have a label, and gateways are where a namespace says so.
	all := []scope{{selector: v1beta1.InjectedLabel + "=true"}}
	namespaces, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, explained(err, "the namespaces with gateways are not known", "to list namespaces")
	}
	for i := range namespaces.Items {
		if _, there := namespaces.Items[i].Annotations[v1beta1.GatewayLabels]; there {
			all = append(all, scope{namespace: namespaces.Items[i].Name, selector: v1beta1.InjectedLabel + "!=true"})
		}
	}
	return all, nil
}

// named finds what is named as kubectl does, and which pods it means.
func (s *selection) named(namespace string, args []string) ([]scope, error) {
	var words []string
	for _, arg := range args {
		if !strings.Contains(arg, "/") {
			arg = "pod/" + arg
		}
		words = append(words, arg)
	}
	infos, err := resource.NewBuilder(s.app.flags).Unstructured().NamespaceParam(namespace).DefaultNamespace().
		ResourceTypeOrNameArgs(false, words...).Flatten().Do().Infos()
	if err != nil {
		return nil, explained(err, strings.Join(args, " "), "to get what is named")
	}
	var all []scope
	for _, info := range infos {
		object, ok := info.Object.(*unstructured.Unstructured)
		if !ok {
			return nil, fmt.Errorf("%s: it is of a kind that has no pods", info.ObjectName())
		}
		if object.GetKind() == "Pod" {
			all = append(all, scope{namespace: info.Namespace, name: info.Name})
			continue
		}
		selector, err := selectorOf(object)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w: name a pod, or something that has pods, such as a Deployment or a Service", strings.ToLower(object.GetKind()), info.Name, err)
		}
		all = append(all, scope{namespace: info.Namespace, selector: selector})
	}
	return all, nil
}

// selectorOf gives the labels of the pods of a Service or of a workload.
func selectorOf(object *unstructured.Unstructured) (string, error) {
	plainMap, found, err := unstructured.NestedStringMap(object.Object, "spec", "selector")
	if found && err == nil {
		if len(plainMap) == 0 {
			return "", fmt.Errorf("it selects no pods")
		}
		return labels.SelectorFromSet(plainMap).String(), nil
	}
	written, found, err := unstructured.NestedMap(object.Object, "spec", "selector")
	if !found || err != nil || len(written) == 0 {
		return "", fmt.Errorf("it selects no pods")
	}
	var parsed metav1.LabelSelector
	if err := fromUnstructured(written, &parsed); err != nil {
		return "", err
	}
	selector, err := metav1.LabelSelectorAsSelector(&parsed)
	if err != nil {
		return "", err
	}
	return selector.String(), nil
}

// servers gives the sidecars and gateways of the selection, in order.
func (s *selection) servers(ctx context.Context, client kubernetes.Interface, args []string) ([]*server, error) {
	scopes, err := s.scopes(ctx, client, args)
	if err != nil {
		return nil, err
	}
	seen := map[podID]bool{}
	var found []*server
	without := 0
	for _, sc := range scopes {
		err := sc.pods(ctx, client, func(pod *corev1.Pod) {
			id := podID{pod.Namespace, pod.Name}
			if seen[id] || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
				return
			}
			seen[id] = true
			if server := serverOf(pod); server != nil {
				found = append(found, server)
			} else {
				without++
			}
		})
		if err != nil {
			return nil, explained(err, "the pods cannot be listed", "to list pods")
		}
	}
	if len(found) == 0 {
		return nil, s.nothing(scopes, args, without)
	}
	slices.SortFunc(found, func(a, b *server) int { return a.compare(b.podID) })
	return found, nil
}

// nothing says why there is nothing to look at.
func (s *selection) nothing(scopes []scope, args []string, without int) error {
	where := "in any namespace"
	if !s.all {
		where = "in namespace " + scopes[0].namespace
	}
	what := "pods"
	if len(args) > 0 {
		what = strings.Join(args, " ")
	}
	if without == 0 {
		return fmt.Errorf("%s: there is no pod that runs %s: name another, or another namespace by -n or -A", what, where)
	}
	return fmt.Errorf("%s: of %s %s, none has a sidecar or is a gateway: label the namespace %s=%s, and make its pods anew", what, number(without, "pod"), where, v1beta1.InjectLabel, v1beta1.InjectEnabled)
}

// pods tells each pod of the scope.
func (sc scope) pods(ctx context.Context, client kubernetes.Interface, each func(*corev1.Pod)) error {
	if sc.name != "" {
		pod, err := client.CoreV1().Pods(sc.namespace).Get(ctx, sc.name, metav1.GetOptions{})
		if err == nil {
			each(pod)
		}
		return err
	}
	options := metav1.ListOptions{LabelSelector: sc.selector, Limit: pageSize}
	for {
		list, err := client.CoreV1().Pods(sc.namespace).List(ctx, options)
		if err != nil {
			return err
		}
		for i := range list.Items {
			each(&list.Items[i])
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return nil
		}
	}
}

// one gives the server of a selection that is asked where any does: one that is ready, if there is one.
func (s *selection) one(ctx context.Context, client kubernetes.Interface, arg string) (*server, error) {
	all, err := s.servers(ctx, client, []string{arg})
	if err != nil {
		return nil, err
	}
	for _, good := range []func(*server) bool{func(s *server) bool { return s.ready }, (*server).answers} {
		if i := slices.IndexFunc(all, good); i >= 0 {
			return all[i], nil
		}
	}
	return nil, fmt.Errorf("%s: its container %s does not run (%s): see kubectl describe pod -n %s %s", all[0], all[0].Container, all[0].why, all[0].Namespace, all[0].Name)
}

func number(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// fromUnstructured reads what the API server gave as a type of its own.
func fromUnstructured(from map[string]any, to any) error {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(from, to)
}
