package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"remora.dev/remora/apis/v1beta1"
)

// settled is how long a new configuration has to reach all pods of a workload: until then, that they differ is as it should be.
const settled = 30 * time.Second

// told is what a sidecar says of its configuration.
type told struct {
	generation            string
	age                   float64 // seconds
	away, unread, invalid float64
}

// The series that are looked at.
const (
	configurationInfo    = "remora_configuration_info"
	configurationAge     = "remora_configuration_age_seconds"
	configurationAway    = "remora_api_server_unreachable_seconds"
	configurationUnread  = "remora_configuration_unread"
	configurationInvalid = "remora_configuration_problems"
)

func readTold(text []byte) (told, error) {
	var t told
	err := samples(text, func(name string) bool {
		return strings.HasPrefix(name, "remora_configuration_") || name == configurationAway
	}, func(s sample) {
		switch s.name {
		case configurationInfo:
			t.generation = s.labels["generation"]
		case configurationAge:
			t.age = s.value
		case configurationAway:
			t.away = s.value
		case configurationUnread:
			t.unread = s.value
		case configurationInvalid:
			t.invalid = s.value
		}
	})
	return t, err
}

// sidecars looks at each sidecar and gateway: whether it runs, is of the image that is injected, and has the newest configuration.
func (i *inspection) sidecars(ctx context.Context) error {
	image := ""
	switch template, err := i.client.CoreV1().PodTemplates(i.home).Get(ctx, v1beta1.SidecarName, metav1.GetOptions{}); {
	case apierrors.IsNotFound(err):
		i.find("PodTemplate "+i.home+"/"+v1beta1.SidecarName, "it is not there: no pod can be injected", install)
	case apierrors.IsForbidden(err):
		i.unseen(err.Error())
	case err != nil:
		return err
	default:
		if c := container(template.Template.Spec.Containers, v1beta1.SidecarContainer); c != nil {
			image = c.Image
		}
	}
	namespaces, err := i.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var all []*server
	for n := range namespaces.Items {
		ns := &namespaces.Items[n]
		_, gateways := ns.Annotations[v1beta1.GatewayLabels]
		inject := ns.Labels[v1beta1.InjectLabel]
		if i.only != "" && ns.Name != i.only || !gateways && inject == "" {
			continue
		}
		err := scope{namespace: ns.Name}.pods(ctx, i.client, func(pod *corev1.Pod) {
			if s := serverOf(pod); s != nil {
				all = append(all, s)
			} else if inject == v1beta1.InjectEnabled && pod.Labels[v1beta1.InjectedLabel] == "" && pod.Labels[v1beta1.InjectLabel] != v1beta1.InjectDisabled &&
				pod.Status.Phase == corev1.PodRunning && !pod.Spec.HostNetwork {
				i.find("Pod "+ns.Name+"/"+pod.Name, "it has no sidecar: it was made before its namespace was labelled, or while the webhook was not asked", "make the pod anew: kubectl rollout restart what made it")
			}
		})
		if err != nil {
			return err
		}
	}
	i.looked(len(all))
	asked := i.askAll(ctx, all)
	byOwner := map[string][]*server{}
	for _, s := range all {
		i.sidecar(s, image, asked[s.podID])
		if t := asked[s.podID]; t != nil && t.told.generation != "" && s.owner != "" {
			owner := s.Namespace + "/" + s.owner
			byOwner[owner] = append(byOwner[owner], s)
		}
	}
	for _, owner := range slices.Sorted(maps.Keys(byOwner)) {
		i.generations(byOwner[owner], asked)
	}
	return nil
}

// answer is what one pod said.
type answer struct {
	told told
	err  error
}

func (i *inspection) askAll(ctx context.Context, all []*server) map[podID]*answer {
	var mu sync.Mutex
	asked := map[podID]*answer{}
	var group errgroup.Group
	group.SetLimit(i.parallel)
	for _, s := range all {
		if !s.answers() {
			continue
		}
		group.Go(func() error {
			a := i.ask(ctx, s.podID)
			mu.Lock()
			defer mu.Unlock()
			asked[s.podID] = a
			return nil
		})
	}
	_ = group.Wait() // what went wrong is with the pod
	return asked
}

func (i *inspection) ask(ctx context.Context, pod podID) *answer {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	t, err := i.open(ctx, pod)
	if err != nil {
		return &answer{err: inTime(ctx, err)}
	}
	defer t.close()
	text, err := t.get(ctx, healthPort, "/metrics", nil)
	if err != nil {
		return &answer{err: inTime(ctx, err)}
	}
	read, err := readTold(text)
	return &answer{read, err}
}

func (i *inspection) sidecar(s *server, image string, a *answer) {
	object := "Pod " + s.String()
	see := fmt.Sprintf("kubectl logs -n %s %s -c %s says why", s.Namespace, s.Name, s.Container)
	switch {
	case !s.running:
		i.find(object, fmt.Sprintf("its container %s does not run: %s", s.Container, s.why), fmt.Sprintf("kubectl describe pod -n %s %s says why", s.Namespace, s.Name))
		return
	case !s.ready && s.why != "it is ending":
		i.find(object, fmt.Sprintf("its container %s is not ready", s.Container), see)
	}
	if image != "" && !s.Gateway && s.Image != image {
		i.find(object, fmt.Sprintf("its sidecar is of image %s, and new pods get %s", s.Image, image), "make the pod anew: kubectl rollout restart what made it")
	}
	if a == nil {
		return
	}
	if apierrors.IsForbidden(a.err) {
		i.unseen(a.err.Error())
		return
	}
	if a.err != nil {
		i.find(object, "it does not say how it is: "+a.err.Error(), see)
		return
	}
	if a.told.away > 0 {
		i.find(object, fmt.Sprintf("it has not reached the API server for %s, and goes on with the configuration that it has", time.Duration(a.told.away*float64(time.Second)).Round(time.Second)), see+"; a NetworkPolicy may keep it from it")
	}
	if a.told.unread > 0 {
		i.find(object, "a part of its configuration cannot be read, and the one before it holds", fmt.Sprintf("kubectl remora config -n %s pod/%s names it", s.Namespace, s.Name))
	}
	if a.told.invalid > 0 {
		i.find(object, fmt.Sprintf("%.0f faults of its configuration: calls that need what is faulty are refused", a.told.invalid), fmt.Sprintf("kubectl remora config -n %s pod/%s names them", s.Namespace, s.Name))
	}
}

// generations compares what the pods of one ReplicaSet, StatefulSet or the like run: it should be the same. Those that do not run the newest
// are behind.
func (i *inspection) generations(of []*server, asked map[podID]*answer) {
	newest := of[0]
	for _, s := range of {
		if asked[s.podID].told.age < asked[newest.podID].told.age {
			newest = s
		}
	}
	now := asked[newest.podID].told
	if now.age < settled.Seconds() {
		return
	}
	for _, s := range of {
		if t := asked[s.podID].told; t.generation != now.generation && labelsBut(s.labels) == labelsBut(newest.labels) {
			i.find("Pod "+s.String(), fmt.Sprintf("it runs configuration %s, and %s has had %s for %s", t.generation, newest.Name, now.generation, time.Duration(now.age*float64(time.Second)).Round(time.Second)),
				fmt.Sprintf("kubectl logs -n %s %s -c %s says why; a pod that is made anew has the newest one", s.Namespace, s.Name, s.Container))
		}
	}
}

// labelsBut gives the labels by which configurations may differ: not those that tell pods of one kind apart.
func labelsBut(labels map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if name != "statefulset.kubernetes.io/pod-name" && name != "apps.kubernetes.io/pod-index" {
			all = append(all, name+"="+labels[name])
		}
	}
	return strings.Join(all, ",")
}
