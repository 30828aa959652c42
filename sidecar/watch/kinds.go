package watch

import (
	"remora.dev/remora/apis/istio"
	"remora.dev/remora/apis/v1beta1"
	"remora.dev/remora/sidecar/routing"
)

// kindOfFeed is what has to be known of a kind to follow it.
type kindOfFeed struct {
	kind, group, resource string
	versions              []string // the first that the API server has is followed
	// optional: configurations run without it, where there is no such kind, or no right to read it.
	optional bool
	without  string // what happens then, where the right is missing
}

const (
	poolGroup  = "inference.networking.k8s.io"
	sliceGroup = "discovery.k8s.io"
)

// What is followed in any case, beside the Secret of keys.
var (
	providerFeed = kindOfFeed{kind: v1beta1.KindLLMProvider, group: v1beta1.GroupVersion.Group, resource: "llmproviders", versions: []string{v1beta1.GroupVersion.Version}}
	routeFeed    = kindOfFeed{kind: v1beta1.KindLLMRoute, group: v1beta1.GroupVersion.Group, resource: "llmroutes", versions: []string{v1beta1.GroupVersion.Version}}
	keysFeed     = kindOfFeed{kind: secretKind, resource: "secrets", versions: []string{"v1"}}
)

const (
	withoutServices = "until then, nothing is known of Services, and calls go to their own addresses"
	withoutIstio    = "until then, it is as if there were none"
)

// What is followed where the configuration speaks of it.
var (
	serviceFeed = kindOfFeed{kind: routing.KindService, resource: "services", versions: []string{"v1"}, optional: true, without: withoutServices}
	poolFeed    = kindOfFeed{kind: routing.KindInferencePool, group: poolGroup, resource: "inferencepools", versions: []string{"v1"}, optional: true, without: withoutIstio}
	virtualFeed = kindOfFeed{kind: istio.KindVirtualService, group: istio.Group, resource: "virtualservices", versions: istio.Versions, optional: true, without: withoutIstio}
	ruleFeed    = kindOfFeed{kind: istio.KindDestinationRule, group: istio.Group, resource: "destinationrules", versions: istio.Versions, optional: true, without: withoutIstio}
	gatewayFeed = kindOfFeed{kind: istio.KindGateway, group: istio.Group, resource: "gateways", versions: istio.Versions, optional: true, without: withoutIstio}
	sliceFeed   = kindOfFeed{kind: sliceKind, group: sliceGroup, resource: "endpointslices", versions: []string{"v1"}, optional: true, without: withoutServices}
)

// name gives the resource as it is written in messages, such as "llmroutes.istio.alibabacloud.com".
func (k *kindOfFeed) name() string {
	if k.group == "" {
		return k.resource
	}
	return k.resource + "." + k.group
}

// apiVersion gives that of one of the versions.
func (k *kindOfFeed) apiVersion(version int) string {
	if k.group == "" {
		return k.versions[version]
	}
	return k.group + "/" + k.versions[version]
}

// path is that of the collection; in no namespace, it is that of the whole cluster.
func (k *kindOfFeed) path(version int, namespace string) string {
	path := "/apis/"
	if k.group == "" {
		path = "/api/"
	}
	path += k.apiVersion(version)
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	return path + "/" + k.resource
}

// needed gives the kinds that a configuration needs beside those that are always followed.
func needed(n routing.Needs, gateway bool) map[string]*kindOfFeed {
	all := map[string]*kindOfFeed{}
	add := func(kinds ...*kindOfFeed) {
		for _, k := range kinds {
			all[k.kind] = k
		}
	}
	if n.Services || gateway {
		add(&serviceFeed, &virtualFeed, &ruleFeed)
	}
	if n.InferencePools || gateway {
		add(&poolFeed)
	}
	if gateway {
		add(&gatewayFeed)
	}
	return all
}
