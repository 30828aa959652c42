package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

// completeTime bounds how long a shell waits for names; maxNames, how many it gets.
const (
	completeTime = 3 * time.Second
	maxNames     = 1000
)

// choices are the values of flags that have few.
var choices = map[string]map[string][]string{
	"top":     {"by": {"pod", "model", "provider", "namespace"}, "sort": {"requests", "tokens", "errors", "first", "cost", "name"}, "output": {"table", "json"}},
	"request": {"output": {"text", "json"}},
	"config":  {"output": {"text", "json"}},
	"tail":    {"output": {"auto", "text", "json"}},
	"check":   {"output": {"table", "json"}},
}

// completions adds what a shell offers after the Tab key. kubectl asks for it through a program named as completer says.
func (a *app) completions(root *cobra.Command) {
	must := func(c *cobra.Command, flag string, complete cobra.CompletionFunc) {
		if err := c.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // a flag that there is not
		}
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for flag, values := range choices[c.Name()] {
			must(c, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
		for _, child := range c.Commands() {
			walk(child)
		}
		switch c.Name() {
		case "top", "config", "tail":
			c.ValidArgsFunction = a.podNames
		}
	}
	walk(root)
	must(root, "color", cobra.FixedCompletions([]string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	must(root, "namespace", a.namespaceNames)
	must(root, "context", a.contextNames)
}

// completePods offers pods as the value of a flag.
func (a *app) completePods(c *cobra.Command, flag string) {
	if err := c.RegisterFlagCompletionFunc(flag, a.podNames); err != nil {
		panic(err) // a flag that there is not
	}
}

// podNames offers the pods of the namespace that have a sidecar, or are gateways. A shell would obey what is in a name: only those that are
// names of Kubernetes are offered, which is all that an honest API server has.
func (a *app) podNames(c *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completeTime)
	defer cancel()
	client, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	namespace, err := a.namespace()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, selector := range []string{v1beta1.InjectedLabel + "=true", ""} { // of a namespace with gateways, all pods are looked at
		var names []cobra.Completion
		list, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector, Limit: maxNames})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for i := range list.Items {
			names = appendName(names, &list.Items[i], typed)
		}
		if len(names) > 0 {
			return names, cobra.ShellCompDirectiveNoFileComp
		}
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func appendName(names []cobra.Completion, pod *corev1.Pod, typed string) []cobra.Completion {
	name := "pod/" + pod.Name
	if !strings.Contains(typed, "/") && typed != "" && !strings.HasPrefix("pod/", typed) {
		name = pod.Name
	}
	if serverOf(pod) == nil || !strings.HasPrefix(name, typed) || !isName(name) {
		return names
	}
	return append(names, name)
}

func isName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '/'
	})
}

func (a *app) namespaceNames(c *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completeTime)
	defer cancel()
	client, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{Limit: maxNames})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for i := range list.Items {
		if name := list.Items[i].Name; strings.HasPrefix(name, typed) && isName(name) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) contextNames(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	config, err := a.flags.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for name := range config.Contexts {
		if strings.HasPrefix(name, typed) && plain(name) == name {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
