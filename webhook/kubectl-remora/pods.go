package main

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/launch"
)

// podID is the name of a pod.
type podID struct {
	Namespace string `json:"namespace"`
	Name      string `json:"pod"`
}

func (p podID) String() string { return p.Namespace + "/" + p.Name }

func (p podID) compare(other podID) int {
	return cmp.Or(cmp.Compare(p.Namespace, other.Namespace), cmp.Compare(p.Name, other.Name))
}

// server is a sidecar or a gateway: a process of Remora in a pod.
type server struct {
	podID
	Container string
	Gateway   bool
	Image     string
	running   bool // the container is
	ready     bool
	restarts  int32
	why       string // it does not run, or is not ready
	labels    map[string]string
	owner     string // KIND/NAME
}

// serverOf gives the process of Remora in a pod; nil where there is none.
func serverOf(pod *corev1.Pod) *server {
	s := &server{podID: podID{pod.Namespace, pod.Name}, labels: pod.Labels}
	statuses := pod.Status.InitContainerStatuses
	if c := container(pod.Spec.InitContainers, v1beta1.SidecarContainer); c != nil {
		s.Container, s.Image = c.Name, c.Image
	} else if c := container(pod.Spec.Containers, v1beta1.SidecarContainer); c != nil {
		s.Container, s.Image, statuses = c.Name, c.Image, pod.Status.ContainerStatuses
	} else if i := slices.IndexFunc(pod.Spec.Containers, isGateway); i >= 0 {
		c := &pod.Spec.Containers[i]
		s.Container, s.Image, s.Gateway, statuses = c.Name, c.Image, true, pod.Status.ContainerStatuses
	} else {
		return nil
	}
	for _, o := range pod.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			s.owner = o.Kind + "/" + o.Name
		}
	}
	for i := range statuses {
		st := &statuses[i]
		if st.Name != s.Container {
			continue
		}
		s.running, s.ready, s.restarts = st.State.Running != nil, st.Ready, st.RestartCount
		switch {
		case st.State.Waiting != nil:
			s.why = st.State.Waiting.Reason
		case st.State.Terminated != nil:
			s.why = st.State.Terminated.Reason
		}
	}
	if pod.DeletionTimestamp != nil {
		s.ready = false
		s.why = cmp.Or(s.why, "it is ending")
	}
	s.why = cmp.Or(s.why, string(pod.Status.Phase))
	return s
}

func container(all []corev1.Container, name string) *corev1.Container {
	if i := slices.IndexFunc(all, func(c corev1.Container) bool { return c.Name == name }); i >= 0 {
		return &all[i]
	}
	return nil
}

// isGateway knows a gateway by its command: its pod may have any labels, those by which Istio Gateways select it.
func isGateway(c corev1.Container) bool {
	words := append(slices.Clone(c.Command), c.Args...)
	at := slices.Index(words, launch.Gateway)
	return at >= 0 && at <= 1 && (at == 0 || strings.HasSuffix(words[0], "sidecar"))
}

// answers tells whether it is worth asking.
func (s *server) answers() bool { return s.running }
