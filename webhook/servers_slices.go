package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// maxEndpoints is how many endpoints an EndpointSlice may have: the API server's limit.
const maxEndpoints = 1000

// serverGroup is servers that can be in one EndpointSlice: they have the same ports and kind of address.
type serverGroup struct {
	family    discoveryv1.AddressType
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
}

// groupServers gives the servers that pods are for target, a Service or an InferencePool. zoneOf tells the zone of a node. There is one
// group at least: that nobody serves is something to say.
func groupServers(target *thing, pods []*corev1.Pod, zoneOf func(node string) string) []serverGroup {
	groups := map[string]*serverGroup{}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	for _, pod := range pods {
		ports := portsOf(target, pod)
		address, ok := addressOf(target.service, pod)
		if !ok || len(ports) == 0 || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		family := discoveryv1.AddressTypeIPv4
		if address.Is6() {
			family = discoveryv1.AddressTypeIPv6
		}
		key := string(family) + portWords(ports)
		if groups[key] == nil {
			groups[key] = &serverGroup{family: family, ports: ports}
		}
		groups[key].endpoints = append(groups[key].endpoints, endpointOf(target.service, pod, address, zoneOf))
	}
	if len(groups) == 0 {
		return []serverGroup{{family: discoveryv1.AddressTypeIPv4, ports: usualPorts(target)}}
	}
	var all []serverGroup
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		all = append(all, *groups[key])
	}
	return all
}

// portsOf gives the ports of a pod by the names that routing knows: those of the Service's ports, or the numbers of the pool's.
func portsOf(target *thing, pod *corev1.Pod) (all []discoveryv1.EndpointPort) {
	protocol := corev1.ProtocolTCP
	if target.service == nil {
		for _, pool := range target.content.InferencePools {
			for _, number := range pool.TargetPorts {
				name, port := strconv.Itoa(int(number)), int32(number)
				all = append(all, discoveryv1.EndpointPort{Name: &name, Port: &port, Protocol: &protocol})
			}
		}
		return all
	}
	for i := range target.service.Ports {
		p := &target.service.Ports[i]
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue
		}
		if number := portOn(p, pod); number > 0 {
			name := p.Name
			all = append(all, discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &protocol})
		}
	}
	return all
}

// usualPorts gives the ports of target where no pod says what a name of one means.
func usualPorts(target *thing) []discoveryv1.EndpointPort {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: make([]corev1.Container, 1)}}
	if target.service != nil {
		for _, p := range target.service.Ports {
			if p.TargetPort.Type == intstr.String {
				pod.Spec.Containers[0].Ports = append(pod.Spec.Containers[0].Ports, corev1.ContainerPort{Name: p.TargetPort.StrVal, ContainerPort: p.Port})
			}
		}
	}
	return portsOf(target, pod)
}

// portOn gives the port of a pod that a Service's port means; 0 where it has none.
func portOn(p *corev1.ServicePort, pod *corev1.Pod) int32 {
	if p.TargetPort.Type == intstr.Int {
		return cmp.Or(p.TargetPort.IntVal, p.Port)
	}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			for _, named := range containers[i].Ports {
				if named.Name == p.TargetPort.StrVal && (named.Protocol == "" || named.Protocol == corev1.ProtocolTCP) {
					return named.ContainerPort
				}
			}
		}
	}
	return 0
}

func portWords(ports []discoveryv1.EndpointPort) string {
	var words strings.Builder
	for _, p := range ports {
		var name string
		var number int32
		if p.Name != nil {
			name = *p.Name
		}
		if p.Port != nil {
			number = *p.Port
		}
		fmt.Fprintf(&words, " %s=%d", name, number)
	}
	return words.String()
}

// addressOf gives the address of a pod in the family that its Service prefers, or else its own first.
func addressOf(service *corev1.ServiceSpec, pod *corev1.Pod) (netip.Addr, bool) {
	var first netip.Addr
	for _, ip := range pod.Status.PodIPs {
		address, err := netip.ParseAddr(ip.IP)
		if err != nil {
			continue
		}
		if !first.IsValid() {
			first = address
		}
		if service != nil && len(service.IPFamilies) > 0 && address.Is6() == (service.IPFamilies[0] == corev1.IPv6Protocol) {
			return address, true
		}
	}
	return first, first.IsValid()
}

func endpointOf(service *corev1.ServiceSpec, pod *corev1.Pod, address netip.Addr, zoneOf func(string) string) discoveryv1.Endpoint {
	serving := service != nil && service.PublishNotReadyAddresses
	for _, c := range pod.Status.Conditions {
		serving = serving || c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}
	terminating := pod.DeletionTimestamp != nil
	ready := serving && !terminating
	e := discoveryv1.Endpoint{
		Addresses:  []string{address.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if node := pod.Spec.NodeName; node != "" {
		e.NodeName = &node
		if zone := zoneOf(node); zone != "" {
			e.Zone = &zone
		}
	}
	return e
}

// slicePlan is what has to be written for the servers to be as they should be.
type slicePlan struct {
	create, update, remove []*discoveryv1.EndpointSlice
}

// planSlices gives the least that has to be written for have to say what groups do, under the metadata of form. An endpoint stays where it
// is. What is new goes into EndpointSlices that are written anyway, then into those with room, then into new ones. It changes nothing.
func planSlices(have []*discoveryv1.EndpointSlice, groups []serverGroup, form *discoveryv1.EndpointSlice) slicePlan {
	var p slicePlan
	taken, names := map[*discoveryv1.EndpointSlice]bool{}, map[string]bool{}
	for _, s := range have {
		names[s.Name] = true
	}
	for _, g := range groups {
		var of []*discoveryv1.EndpointSlice
		for _, s := range have {
			if !taken[s] && s.AddressType == g.family && portWords(s.Ports) == portWords(g.ports) && s.DeletionTimestamp == nil {
				of = append(of, s)
				taken[s] = true
			}
		}
		p.add(of, g, form, names)
	}
	for _, s := range have {
		if !taken[s] && s.DeletionTimestamp == nil {
			p.remove = append(p.remove, s)
		}
	}
	return p
}

// add plans one group. of are the EndpointSlices that it has.
func (p *slicePlan) add(of []*discoveryv1.EndpointSlice, g serverGroup, form *discoveryv1.EndpointSlice, names map[string]bool) {
	type filled struct {
		from      *discoveryv1.EndpointSlice // nil: it is new
		endpoints []discoveryv1.Endpoint
		changed   bool
	}
	left := map[string]*discoveryv1.Endpoint{}
	for i := range g.endpoints {
		left[g.endpoints[i].Addresses[0]] = &g.endpoints[i]
	}
	var all []*filled
	for _, s := range of {
		f := &filled{from: s, changed: !isFormed(s, form)}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			var now *discoveryv1.Endpoint
			if len(e.Addresses) == 1 {
				now = left[e.Addresses[0]]
			}
			if now == nil {
				f.changed = true
				continue
			}
			delete(left, e.Addresses[0])
			f.changed = f.changed || !equality.Semantic.DeepEqual(e, now)
			f.endpoints = append(f.endpoints, *now)
		}
		all = append(all, f)
	}
	slices.SortStableFunc(all, func(a, b *filled) int {
		if a.changed != b.changed {
			return map[bool]int{true: -1, false: 1}[a.changed]
		}
		return cmp.Compare(len(b.endpoints), len(a.endpoints))
	})
	next := 0
	for i := range g.endpoints { // in their order, and not in the map's
		if left[g.endpoints[i].Addresses[0]] != &g.endpoints[i] {
			continue
		}
		for next < len(all) && len(all[next].endpoints) >= maxEndpoints {
			next++
		}
		if next == len(all) {
			all = append(all, &filled{})
		}
		all[next].endpoints, all[next].changed = append(all[next].endpoints, g.endpoints[i]), true
	}
	if len(all) == 0 {
		all = append(all, &filled{})
	}
	kept := 0
	for _, f := range all {
		switch {
		case len(f.endpoints) == 0 && f.from != nil && (len(g.endpoints) > 0 || kept > 0):
			p.remove = append(p.remove, f.from)
			continue
		case f.from == nil:
			p.create = append(p.create, formed(form, nextName(form, names), g, f.endpoints))
		case f.changed:
			s := formed(form, f.from.Name, g, f.endpoints)
			s.ResourceVersion, s.UID = f.from.ResourceVersion, f.from.UID
			p.update = append(p.update, s)
		}
		kept++
	}
}

// isFormed tells whether the metadata of an EndpointSlice says what ours should.
func isFormed(s, form *discoveryv1.EndpointSlice) bool {
	has := func(have, want map[string]string) bool {
		for name, value := range want {
			if have[name] != value {
				return false
			}
		}
		return true
	}
	return has(s.Labels, form.Labels) && has(s.Annotations, form.Annotations) && equality.Semantic.DeepEqual(s.OwnerReferences, form.OwnerReferences) &&
		s.Labels[discoveryv1.LabelServiceName] == ""
}

func formed(form *discoveryv1.EndpointSlice, name string, g serverGroup, endpoints []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := form.DeepCopy()
	s.Name, s.AddressType, s.Ports, s.Endpoints = name, g.family, g.ports, endpoints
	if s.Endpoints == nil {
		s.Endpoints = []discoveryv1.Endpoint{}
	}
	return s
}

// nextName gives the first name that is free. Who made one with a cache that is behind fails, and sees it then.
func nextName(form *discoveryv1.EndpointSlice, names map[string]bool) string {
	for i := 0; ; i++ {
		if name := form.GenerateName + strconv.Itoa(i); !names[name] {
			names[name] = true
			return name
		}
	}
}

// sliceForm gives what all EndpointSlices of some servers have. GenerateName is how their names begin.
func sliceForm(id routing.ServersID, target *thing) *discoveryv1.EndpointSlice {
	of := v1beta1.ServersOfSubset
	annotations := map[string]string{v1beta1.ServersOf: id.Name, v1beta1.ServersSubset: id.Subset}
	if id.Kind == routing.KindInferencePool {
		of = v1beta1.ServersOfPool
		delete(annotations, v1beta1.ServersSubset)
	}
	sum := sha256.Sum256([]byte(id.Kind + "/" + id.Name + "/" + id.Subset))
	// Without blockOwnerDeletion, to which clusters can want rights of its own.
	owner := metav1.OwnerReference{APIVersion: target.apiVersion, Kind: id.Kind, Name: id.Name, UID: target.UID}
	return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: id.Namespace, GenerateName: strings.TrimRight(id.Name[:min(len(id.Name), 200)], "-.") + "-" + hex.EncodeToString(sum[:5]) + "-",
		Labels: map[string]string{
			v1beta1.ServersLabel: of, discoveryv1.LabelManagedBy: v1beta1.ServersManagedBy, v1beta1.PartOfLabel: v1beta1.PartOf,
		},
		Annotations: annotations, OwnerReferences: []metav1.OwnerReference{owner},
	}}
}

// servedBy tells what the servers in an EndpointSlice of ours are of.
func servedBy(s *discoveryv1.EndpointSlice) routing.ServersID {
	id := routing.ServersID{Kind: routing.KindService, Namespace: s.Namespace, Name: s.Annotations[v1beta1.ServersOf], Subset: s.Annotations[v1beta1.ServersSubset]}
	if s.Labels[v1beta1.ServersLabel] == v1beta1.ServersOfPool {
		id.Kind, id.Subset = routing.KindInferencePool, ""
	}
	return id
}
